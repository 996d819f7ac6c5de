package engine

import (
	"context"
	"errors"
	"iter"
	"slices"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/replication/catalog"
)

// others returns who must be asked for the instances of a series: for each set
// of them that this node does not have, the nodes that hold it. Nodes whose sets
// have the same hash stand for each other. here is whether this node holds any.
func (t *scan) others(x *catalog.SeriesRow) (groups [][]catalog.Holder, here bool) {
	if t.asks == nil {
		return nil, true
	}
	holders := x.Holders()
	own := slices.IndexFunc(holders, func(h catalog.Holder) bool { return h.Node == t.engine.node })
	for _, h := range holders {
		if own >= 0 && h.UIDHash == holders[own].UIDHash {
			continue
		}
		i := slices.IndexFunc(groups, func(g []catalog.Holder) bool { return g[0].UIDHash == h.UIDHash })
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], h)
	}
	return groups, own >= 0
}

// candidate returns what others are asked about a series.
func (t *scan) candidate(m *matched) query.Candidate {
	c := query.Candidate{Study: m.study.UID(), Series: m.series.UID(), First: t.q.Level < query.Image}
	omitted := func(tag dict.Tag) bool { return m.study.Omits(m.patient, tag) || m.series.Omits(tag) }
	for _, tags := range t.keys.tags {
		for _, tag := range tags {
			if omitted(tag) {
				c.Return, c.First = append(c.Return, tag), false // whether it matches is seen here
			}
		}
	}
	for _, w := range t.want {
		if omitted(w.tag) {
			c.Return = append(c.Return, w.tag)
		}
	}
	return c
}

// window is studies that are gone through together: others are asked about all
// of them at once, before the first is matched.
type window struct {
	rows   []catalog.StudyRow
	by     map[asked]answerAt
	open   map[string]*inquiry // by node, the one that takes more candidates
	all    []*inquiry
	cancel context.CancelFunc
}

// asked names what a node was asked about.
type asked struct{ node, study, series string }

// answerAt is where the answer to it is.
type answerAt struct {
	inquiry   *inquiry
	candidate int
}

// Sizes of windows, in studies. The first ones are small: most queries that
// have a limit, or are cancelled, need no more.
const (
	firstWindow = 8
	growWindow  = 4
	maxWindow   = 512
)

// gather returns a window of studies and asks others about them.
func (t *scan) gather(rows []catalog.StudyRow) (*window, error) {
	w := &window{rows: rows, by: map[asked]answerAt{}, open: map[string]*inquiry{}}
	t.ahead = w
	defer func() { t.ahead = nil }()
	for _, row := range rows {
		for i := range row.Patients() {
			if err := t.variant(row, i, func(m matched) error { return w.represent(t, m) }); err != nil {
				return nil, err
			}
		}
	}
	ctx, cancel := context.WithCancel(t.ctx)
	w.cancel = cancel
	for _, q := range w.all {
		t.asks.running.Go(func() { q.run(ctx, t.asks) })
	}
	return w, nil
}

// add asks about the series of a match, if others must be asked.
func (w *window) add(t *scan, m matched) error {
	c := t.candidate(&m)
	groups, _ := t.others(m.series)
	for _, g := range groups {
		nodes := t.asks.order(g)
		if len(nodes) == 0 {
			continue
		}
		name := asked{nodes[0], c.Study, c.Series}
		if p, ok := w.by[name]; ok { // another patient of the study
			old := &p.inquiry.candidates[p.candidate]
			old.First = old.First && c.First
			old.Return = append(old.Return, c.Return...)
			continue
		}
		q := w.open[nodes[0]]
		if q == nil || len(q.candidates) == query.MaxCandidates {
			q = &inquiry{node: nodes[0], found: make(chan query.Found, inquiryAhead)}
			w.open[nodes[0]], w.all = q, append(w.all, q)
		}
		w.by[name] = answerAt{q, len(q.candidates)}
		q.candidates = append(q.candidates, c)
	}
	return nil
}

// represent asks for the instance that an answer is made from when nothing below
// the match had to be looked at.
func (w *window) represent(t *scan, m matched) error {
	if t.wantOf&(ofListing|ofHeader) == 0 && !t.leftOut(&m) {
		return nil
	}
	if err := t.represented(&m); err != nil || m.series == nil {
		return err
	}
	return w.add(t, m)
}

// remoteList yields the instances of a series that others hold, together with
// this node's own, in ascending order, each once.
func (t *scan) remoteList(m *matched, groups [][]catalog.Holder, here bool) iter.Seq2[query.Found, error] {
	var sources []iter.Seq2[query.Found, error]
	if here {
		sources = append(sources, t.ownList(m.study.UID(), m.series.UID()))
	}
	for _, g := range groups {
		sources = append(sources, t.ofGroup(m, g))
	}
	if len(sources) == 1 {
		return sources[0]
	}
	return merge(sources)
}

// ofGroup yields the instances of a series as one of several nodes that all have
// them tells; if it breaks off, the next goes on. If nobody answers, it yields what
// they told before; unless that is all, their sites are silent.
func (t *scan) ofGroup(m *matched, group []catalog.Holder) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		after := ""
		for _, node := range t.asks.order(group) {
			err := t.ofNode(m, node, after, func(f query.Found) bool {
				if f.Instance.SOP <= after { // as the one before has told
					return true
				}
				after = f.Instance.SOP
				f.Instance.Study, f.Instance.Series, f.Instance.Origin = m.study.UID(), m.series.UID(), node
				return yield(f, nil)
			})
			switch {
			case err == nil, errors.Is(err, errStopped):
				return
			case t.ctx.Err() != nil:
				yield(query.Found{}, t.ctx.Err())
				return
			}
			t.asks.fail(node)
		}
		whole, err := t.recall(m, group, after, yield)
		if whole || errors.Is(err, errStopped) {
			return
		}
		var sites []string
		for _, h := range group {
			sites = append(sites, h.Site)
		}
		if err := t.asks.keepSilent(sites...); err != nil {
			yield(query.Found{}, err)
		}
	}
}

// recall passes on what nodes that do not answer told before of a series, and
// reports whether that is all of it.
func (t *scan) recall(m *matched, group []catalog.Holder, after string, yield func(query.Found, error) bool) (whole bool, err error) {
	if t.engine.memory == nil {
		return false, nil
	}
	nodes := make([]string, len(group))
	for i, h := range group {
		nodes[i] = h.Node
	}
	all, whole := t.engine.memory.Recall(t.ctx, m.study.UID(), m.series.UID(), nodes)
	if len(all) == 0 {
		return false, nil
	}
	p, err := t.engine.newProbe(t.ctx, t.asks.probe)
	if err != nil {
		return false, err
	}
	c := t.candidate(m)
	for _, one := range all {
		if one.SOP <= after {
			continue
		}
		f := query.Found{Instance: one.Instance, Availability: one.Availability}
		ok, err := p.instance(&f, c, one.Header)
		if err != nil {
			whole = false // its header is not at hand
			continue
		}
		if ok && !yield(f, nil) {
			return whole, errStopped
		}
		if ok && c.First {
			break
		}
	}
	return whole, nil
}

// ofNode passes on what a node has found of a series: by the window's inquiry,
// or by one of its own if that is past it.
func (t *scan) ofNode(m *matched, node, after string, yield func(query.Found) bool) error {
	if t.at != nil {
		p, ok := t.at.by[asked{node, m.study.UID(), m.series.UID()}]
		if ok && p.inquiry.read <= p.candidate {
			return p.inquiry.each(p.candidate, yield)
		}
	}
	c := t.candidate(m)
	c.After = after
	for f, err := range t.asks.peers.Probe(t.ctx, node, t.asks.probe, []query.Candidate{c}) {
		if err != nil {
			return err
		}
		if !yield(f) {
			return errStopped
		}
	}
	return nil
}

// merge yields what ascending streams hold, each instance once: of equal ones
// that of the first stream.
func merge(sources []iter.Seq2[query.Found, error]) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		type head struct {
			next  func() (query.Found, error, bool)
			found query.Found
		}
		var heads []head
		// advance moves a head on and reports whether it has anything.
		advance := func(h *head) (ok bool, err error) {
			h.found, err, ok = h.next()
			return ok, err
		}
		for _, s := range sources {
			next, stop := iter.Pull2(s)
			defer stop()
			h := head{next: next}
			ok, err := advance(&h)
			if err != nil {
				yield(query.Found{}, err)
				return
			}
			if ok {
				heads = append(heads, h)
			}
		}
		for len(heads) > 0 {
			least := heads[0].found
			for _, h := range heads[1:] {
				if h.found.Instance.SOP < least.Instance.SOP {
					least = h.found
				}
			}
			if !yield(least, nil) {
				return
			}
			for i := 0; i < len(heads); {
				if heads[i].found.Instance.SOP != least.Instance.SOP {
					i++
					continue
				}
				ok, err := advance(&heads[i])
				if err != nil {
					yield(query.Found{}, err)
					return
				}
				if !ok {
					heads = slices.Delete(heads, i, i+1)
				}
			}
		}
	}
}

// remoteHeader is only asked for when a node has left out what it was asked for.
func (t *scan) remoteHeader(m *matched) (*dicom.Header, error) {
	t.asks.fail(m.instance.Origin)
	return nil, fault.New(fault.Protocol, "query: node %s answers without the header that it was asked for", m.instance.Origin)
}
