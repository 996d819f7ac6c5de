package placement

import (
	"context"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/cluster/pause"
	"pelago/node/member"
)

const (
	// gather is how long the records must not have changed before a layout is made,
	// so that several nodes that join make one; gatherMost how long they may go on.
	gather     = 3 * time.Second
	gatherMost = 15 * time.Second
	// lookEvery is how often is looked at what is due beside every change of the
	// records, later how long others leave it to the leader.
	lookEvery = 5 * time.Minute
	later     = 5 * time.Second
	soon      = 500 * time.Millisecond // the same where the leader is a witness, which decides nothing
	retry     = 2 * time.Second
	// decideTime bounds one decision with the computing of its layout.
	decideTime = 30 * time.Second
	// maxNamed bounds the nodes whose records a layout's decision names: each comes
	// with three of the catalog.MaxConditions. Of more, what has changed meanwhile the
	// next version makes right.
	maxNamed = 64
)

// Propose has the network decide what is due until the context ends: the next layout
// and with it a better code, the end of a change. The leader goes first. What fails
// is tried again.
func (p *Placement) Propose(ctx context.Context) error {
	for {
		v := p.now.Load()
		wait, changed := jitter(lookEvery), v.changed
		if s := p.due(v.facts); s.any() { // of a large network a layout takes a while
			if !p.gathered(ctx, s) || !pause.For(ctx, p.patience()) {
				return nil
			}
			if now := p.now.Load(); now == v || p.due(now.facts).any() {
				if err := p.decide(ctx); err != nil && ctx.Err() == nil {
					p.failed(err)
					wait, changed = jitter(retry), nil
				}
			}
		}
		if !pause.Until(ctx, changed, wait) {
			return nil
		}
	}
}

// due is what is due by some facts, for this node to propose; nothing where no layout can be made of them.
func (p *Placement) due(f *facts) step {
	if !f.decides(p.o.Self) {
		return step{}
	}
	s, err := f.due()
	if err != nil {
		p.once("layout "+err.Error(), "no layout can be made of the network's nodes: shards stay where they belong now", "error", err)
	}
	return s
}

// gathered waits until changes of the records have come to rest, if a layout is to be
// made: false at the context's end.
func (p *Placement) gathered(ctx context.Context, s step) bool {
	if s.next == nil {
		return true
	}
	most := time.NewTimer(gatherMost)
	defer most.Stop()
	for {
		rest := time.NewTimer(gather)
		select {
		case <-ctx.Done():
			rest.Stop()
			return false
		case <-p.now.Load().changed:
			rest.Stop()
		case <-most.C:
			rest.Stop()
			return true
		case <-rest.C:
			return true
		}
	}
}

// patience is how long this node leaves what is due to others.
func (p *Placement) patience() time.Duration {
	leader := p.leader()
	switch {
	case leader == p.o.Self:
		return 0
	case leader != "" && !p.now.Load().decides(leader):
		return jitter(soon)
	}
	return jitter(later)
}

func (p *Placement) leader() string {
	if p.o.Leader == nil {
		return p.o.Self
	}
	return p.o.Leader()
}

// decides reports whether a node is a member that may decide: a witness may not.
func (f *facts) decides(node string) bool {
	return slices.ContainsFunc(f.members, func(m member.Member) bool { return m.Node == node && (!m.Witness || m.Founder) })
}

// failed tells of what does not pass by itself, once of each kind.
func (p *Placement) failed(err error) {
	if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.Canceled {
		p.once("decide "+kind.String(), "the network's layout cannot be changed; it is tried again", "error", err, "kind", kind.String())
	}
	p.o.Log.Debug("layout", "error", err)
}

// decide has one decision of what is due, from what is committed.
func (p *Placement) decide(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	return p.make(ctx, func(s *member.Step) error {
		f, err := p.read()
		if err != nil {
			return err
		}
		due, err := f.due()
		if err != nil {
			return err
		}
		return p.put(s, f, due)
	})
}

// put adds what is due to a decision, with what it was made from.
func (p *Placement) put(s *member.Step, f *facts, due step) error {
	for _, name := range due.drop[:min(len(due.drop), maxNamed)] {
		s.Given(layout.Kind, name, f.spoilt[name])
		s.Put(layout.Kind, name, nil)
	}
	if due.complete {
		f.given(s)
		for _, l := range f.layouts[:min(len(f.layouts)-1, maxNamed)] {
			s.Put(layout.Kind, layout.RecordName(l.Version), nil)
		}
		f.givenLost(s)
	}
	if due.code != nil {
		s.Put(kindCode, nameCode, encode(due.code))
	}
	if due.code != nil || due.next != nil {
		s.Given(kindCode, nameCode, f.codeRaw)
	}
	if due.next == nil {
		return nil
	}
	f.given(s)
	if due.next.Version > 1 {
		s.Given(layout.Kind, layout.RecordName(due.next.Version-2), nil)
	}
	s.Given(layout.Kind, layout.RecordName(due.next.Version), nil)
	value, err := due.next.MarshalBinary()
	if err != nil {
		return err
	}
	s.Put(layout.Kind, layout.RecordName(due.next.Version), value)
	return p.givenNew(s, f.newest(), due.next)
}

// given has a decision taken only on the layouts as they were read.
func (f *facts) given(s *member.Step) {
	for _, l := range f.layouts[max(0, len(f.layouts)-maxNamed):] {
		s.Given(layout.Kind, layout.RecordName(l.Version), l.raw)
	}
}

// givenLost has the end of a change decided only while those are lost that it does
// not wait for.
func (f *facts) givenLost(s *member.Step) {
	named := 0
	for _, m := range f.members {
		l, lost := f.lost[m.Node]
		if lost && !m.Witness && f.placed[m.Node] < f.newest().Version && named < maxNamed {
			s.Given(kindLost, m.Node, l.raw)
			named++
		}
	}
}

// givenNew has a layout taken only if those that it is the first to name are still
// members who hold shards.
func (p *Placement) givenNew(s *member.Step, was, next *layout.Layout) error {
	known := map[string]bool{}
	if was != nil {
		for _, n := range was.Nodes {
			known[n.ID] = true
		}
	}
	named := 0
	for _, n := range next.Nodes {
		if known[n.ID] || named == maxNamed {
			continue
		}
		named++
		m, err := p.o.Decisions.Member(s, n.ID)
		switch {
		case fault.Is(err, fault.NotFound), err == nil && (m.Drained || m.Witness):
			return fault.New(fault.Unavailable, "placement: node %s holds no shards any more", n.ID)
		case err != nil:
			return err
		}
		s.Given(kindLost, n.ID, nil)
	}
	return nil
}
