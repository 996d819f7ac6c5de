package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/match"
	"pelago/replication/catalog"
)

// asks is how one search asks other nodes: what of them, and who failed to
// answer. A node that has failed is not asked again by the same search.
type asks struct {
	peers query.Peers
	probe query.Probe
	// told is set where the answer can still say who was silent. Where it cannot,
	// because nobody expected that others must be asked, silence is a failure.
	told bool

	running sync.WaitGroup // inquiries

	mu     sync.Mutex // over what is below
	failed map[string]bool
	silent map[string]bool // sites
}

// newAsks returns how a search asks others; nil in a network of one.
func (s *search) newAsks() *asks {
	if s.engine.peers == nil || s.engine.alone() {
		return nil
	}
	a := &asks{peers: s.engine.peers, failed: map[string]bool{}, silent: map[string]bool{}}
	keys, _ := s.q.Keys.Recode([]string{"ISO_IR 192"})
	a.probe = query.Probe{
		Keys: keys, Fuzzy: s.q.Fuzzy, CombinedDateTime: s.q.CombinedDateTime, Timezone: s.q.Timezone, FoldText: s.q.FoldText,
		Match: slices.Concat(s.keys.tags[ofListing], s.keys.tags[ofHeader]), All: s.q.All && s.q.Level == query.Image, Instances: s.sops,
	}
	for _, w := range s.want {
		if w.scope == ofHeader {
			a.probe.Return = append(a.probe.Return, w.tag)
		}
	}
	const below = ofListing | ofHeader
	a.told = s.q.Level == query.Image || (s.keys.has|s.wantOf)&below != 0
	return a
}

// sites returns the sites that were silent so far, ascending.
func (a *asks) sites() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	sites := make([]string, 0, len(a.silent))
	for site := range a.silent {
		sites = append(sites, site)
	}
	slices.Sort(sites)
	return sites
}

// fail notes that a node does not answer.
func (a *asks) fail(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed[node] = true
}

// keepSilent notes that nobody of those who hold something has answered for it:
// an error where the answer cannot say so.
func (a *asks) keepSilent(sites ...string) error {
	if !a.told {
		return fault.New(fault.Unavailable, "query: %d sites that hold a value too long for the catalogue do not answer", len(sites))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, site := range sites {
		a.silent[site] = true
	}
	return nil
}

// order returns the nodes of a group to be asked, the nearest first.
func (a *asks) order(group []catalog.Holder) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var nodes []string
	far := map[string]int{}
	for _, h := range group {
		if !a.failed[h.Node] {
			nodes = append(nodes, h.Node)
			far[h.Node] = distance(a.peers.Availability(h.Node))
		}
	}
	slices.SortStableFunc(nodes, func(x, y string) int { return cmp.Compare(far[x], far[y]) })
	return nodes
}

func distance(a query.Availability) int {
	return slices.Index([]query.Availability{query.Online, query.Nearline, query.Unavailable}, a)
}

// namesSeries reports whether keys name the studies or series that are meant.
func namesSeries(keys []match.Key) bool {
	return slices.ContainsFunc(keys, func(k match.Key) bool {
		return (k.Tag == dict.StudyInstanceUID || k.Tag == dict.SeriesInstanceUID) && (k.Kind == match.Single || k.Kind == match.List)
	})
}

// locate asks all other nodes for instances, until somebody has each of them: so
// a node that is silent is no loss as long as others know them all.
func (t *scan) locate(sops []string) ([]query.Instance, error) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	type answer struct {
		node  query.Node
		found []query.Instance
		err   error
	}
	nodes := t.asks.peers.Nodes()
	answers := make(chan answer, len(nodes))
	for _, n := range nodes {
		t.asks.running.Go(func() {
			found, err := t.asks.peers.Locate(ctx, n.ID, sops)
			answers <- answer{n, found, err}
		})
	}
	missing := map[string]bool{}
	for _, sop := range sops {
		missing[sop] = true
	}
	var all []query.Instance
	var silent []string
	for range nodes {
		a := <-answers
		if err := t.ctx.Err(); err != nil {
			return nil, err
		}
		if a.err != nil {
			t.asks.fail(a.node.ID)
			silent = append(silent, a.node.Site)
			continue
		}
		for _, i := range a.found {
			i.Origin = a.node.ID
			all = append(all, i)
			delete(missing, i.SOP)
		}
		if len(missing) == 0 {
			return all, nil
		}
	}
	if len(silent) > 0 {
		return all, t.asks.keepSilent(silent...)
	}
	return all, nil
}

// errStopped says that nobody wants more of an inquiry's answer.
var errStopped = errors.New("query: enough of this series")

// inquiry is one node asked about the series of a window.
type inquiry struct {
	node       string
	candidates []query.Candidate
	found      chan query.Found
	err        error        // why the answer is not whole; set before found is closed
	last       *query.Found // received, and of a later candidate than was asked for
	read       int          // candidates below were read
}

// inquiryAhead is how many instances an inquiry holds that nobody took yet.
const inquiryAhead = 16

// run asks; it ends with ctx, or once all is taken.
func (q *inquiry) run(ctx context.Context, a *asks) {
	defer close(q.found)
	for f, err := range a.peers.Probe(ctx, q.node, a.probe, q.candidates) {
		if err != nil {
			q.err = err
			return
		}
		select {
		case q.found <- f:
		case <-ctx.Done():
			q.err = ctx.Err()
			return
		}
	}
}

// each calls yield with what was found of a candidate, none of which must have
// been asked for before. errStopped if yield says so.
func (q *inquiry) each(candidate int, yield func(query.Found) bool) error {
	q.read = candidate + 1
	for {
		f := q.last
		q.last = nil
		if f == nil {
			got, ok := <-q.found
			if !ok {
				return q.err
			}
			f = &got
		}
		switch {
		case f.Candidate > candidate:
			q.last = f
			return nil
		case f.Candidate == candidate && !yield(*f):
			return errStopped
		}
	}
}
