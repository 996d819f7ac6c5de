package placement

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/node/member"
)

const (
	// lostAfter is how long a node must be absent to be declared lost without an
	// operator, backAfter how long a lost one must be there to count again.
	lostAfter = 72 * time.Hour
	backAfter = 10 * time.Minute
	// watchEvery is how often the leader looks who is there.
	watchEvery = time.Minute
)

// watching is how long nodes were absent or there while this node watched for the
// network, by its own monotonic clock. It is pure but for being changed.
type watching struct {
	absent, present map[string]time.Duration
}

func newWatching() *watching {
	return &watching{absent: map[string]time.Duration{}, present: map[string]time.Duration{}}
}

// note counts a time during which the nodes of alive were there, and the other ones of
// the members not.
func (w *watching) note(took time.Duration, members []member.Member, alive map[string]bool) {
	seen := map[string]bool{}
	for _, m := range members {
		seen[m.Node] = true
		if alive[m.Node] {
			w.present[m.Node] += took
			delete(w.absent, m.Node)
		} else {
			w.absent[m.Node] += took
			delete(w.present, m.Node)
		}
	}
	gone := func(node string, _ time.Duration) bool { return !seen[node] }
	maps.DeleteFunc(w.absent, gone)
	maps.DeleteFunc(w.present, gone)
}

// back lists the lost nodes that count again.
func (w *watching) back(f *facts) []string {
	var all []string
	for _, m := range f.members {
		if _, lost := f.lost[m.Node]; lost && w.present[m.Node] >= backAfter {
			all = append(all, m.Node)
		}
	}
	return all
}

// lose lists the nodes to declare lost without an operator: of one site at most,
// counting those that were before, and that is the one absent longest.
func (w *watching) lose(f *facts) []string {
	due := slices.DeleteFunc(slices.Clone(f.members), func(m member.Member) bool {
		_, lost := f.lost[m.Node]
		return lost || m.Witness || w.absent[m.Node] < lostAfter
	})
	if len(due) == 0 {
		return nil
	}
	site, none := f.lostAlone()
	if none {
		site = slices.MinFunc(due, func(a, b member.Member) int {
			return cmp.Or(cmp.Compare(w.absent[b.Node], w.absent[a.Node]), cmp.Compare(a.Site, b.Site))
		}).Site
	}
	var all []string
	for _, m := range due {
		if m.Site == site {
			all = append(all, m.Node)
		}
	}
	return all
}

// lostAlone is the site of which nodes were declared lost without an operator; none
// if there is none.
func (f *facts) lostAlone() (site string, none bool) {
	for _, m := range f.members {
		if l, lost := f.lost[m.Node]; lost && l.By == "" {
			return m.Site, false
		}
	}
	return "", true
}

// Watch sees, while this node leads, who is absent for so long that it is lost, and
// which lost node is back, and has the network decide so, until the context ends. Time
// counts only in which a majority followed the leader and most members were heard:
// who is cut off takes nobody for lost. A witness decides nothing: while one leads, the
// first other node that is there watches in its place.
func (p *Placement) Watch(ctx context.Context) error {
	if p.o.Alive == nil {
		<-ctx.Done()
		return nil
	}
	w, last := newWatching(), time.Time{}
	for pause.For(ctx, watchEvery) {
		if leader := p.leader(); leader != p.o.Self && p.now.Load().decides(leader) {
			w, last = newWatching(), time.Time{} // who watches meanwhile sees what this node does not
			continue
		}
		alive, sure := p.look(ctx)
		if !sure {
			last = time.Time{}
			continue
		}
		if p.watcher(alive) != p.o.Self {
			w, last = newWatching(), time.Time{}
			continue
		}
		now := time.Now()
		if !last.IsZero() {
			w.note(min(now.Sub(last), 2*watchEvery), p.now.Load().members, alive)
		}
		last = now
		if err := p.judge(ctx, w); err != nil && ctx.Err() == nil {
			p.failed(err)
		}
	}
	return nil
}

// watcher is the node that watches.
func (p *Placement) watcher(alive map[string]bool) string {
	f, leader := p.now.Load().facts, p.leader()
	if leader == "" || f.decides(leader) {
		return leader
	}
	for _, m := range f.members {
		if alive[m.Node] && f.decides(m.Node) {
			return m.Node
		}
	}
	return ""
}

// look sees who is there: false if this node cannot tell, or no majority follows the
// leader.
func (p *Placement) look(ctx context.Context) (alive map[string]bool, sure bool) {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	if err := p.o.Decisions.Current(ctx); err != nil {
		return nil, false
	}
	heard, known := p.o.Alive()
	if !known {
		return nil, false
	}
	alive = map[string]bool{p.o.Self: true}
	for _, node := range heard {
		alive[node] = true
	}
	members, there := p.now.Load().members, 0
	for _, m := range members {
		if alive[m.Node] {
			there++
		}
	}
	return alive, 2*there > len(members)
}

// judge has the network decide what watching has come to.
func (p *Placement) judge(ctx context.Context, w *watching) error {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	f := p.now.Load().facts
	if back := w.back(f); len(back) > 0 {
		if err := p.declare(ctx, back, nil); err != nil {
			return err
		}
		p.o.Log.Warn("nodes that were lost are back: what they hold counts again", "nodes", back)
	}
	lost := w.lose(f)
	if len(lost) == 0 {
		return nil
	}
	if err := p.declare(ctx, lost, &loss{}); err != nil {
		return err
	}
	p.o.Log.Error("nodes are declared lost after an absence of 72 hours: what they held is made anew elsewhere", "nodes", lost)
	return nil
}

// declare has the network declare nodes lost, or with nil no longer so. Those that it
// was decided of already stay as they are, and nodes that are no members are passed
// over. Without an operator, it loses nodes of one site only.
func (p *Placement) declare(ctx context.Context, nodes []string, as *loss) error {
	return p.make(ctx, func(s *member.Step) error {
		f, err := p.read()
		if err != nil {
			return err
		}
		only, none := f.lostAlone()
		for _, node := range nodes[:min(len(nodes), maxNamed)] {
			there, err := p.o.Decisions.Record(kindLost, node)
			if err != nil {
				return err
			}
			if (there == nil) == (as == nil) {
				continue
			}
			m, err := p.o.Decisions.Member(s, node)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			s.Given(kindLost, node, there)
			if as == nil {
				s.Put(kindLost, node, nil)
				continue
			}
			if as.By == "" {
				if !none && m.Site != only {
					return fault.New(fault.Conflict, "placement: another site than %q is lost without an operator already", m.Site)
				}
				only, none = m.Site, false
			}
			s.Put(kindLost, node, encode(loss{Version: recordVersion, By: as.By, Since: time.Now().UTC()}))
		}
		return nil
	})
}
