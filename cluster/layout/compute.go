package layout

import (
	"slices"

	"pelago/cluster/fault"
)

// Holder is a node as the network knows it.
type Holder struct {
	Node         // a pledge of 0: it holds no shards, like a witness
	Drained bool // it gives up what it holds
	Lost    bool // declared lost, with what it held
}

// Compute makes the layout that follows previous, nil before the first, for stripes
// of n shards on these nodes, in any order. Drained and lost ones get nothing; their
// places go to others.
//
// Fault.Invalid is for nodes out of bounds or listed twice, and for an n that is not
// from 1 to the smaller of [MaxRow] and the number of sites that are left.
//
// Against previous, no more shards move than have to. If n is another than before,
// that is said of the positions that both have, at which the older stripes stay spread
// by the pledges too; the other positions get what they need besides.
func Compute(previous *Layout, holders []Holder, n int) (*Layout, error) {
	nodes, err := holding(holders)
	if err != nil {
		return nil, err
	}
	sites := siteCount(nodes)
	if n < 1 || n > min(sites, MaxRow) {
		return nil, fault.New(fault.Invalid, "layout: no stripe has %d shards on %d sites", n, sites)
	}
	groups := FewGroups
	if sites >= ManySites || previous != nil && previous.Groups > FewGroups {
		groups = ManyGroups
	}
	l := &Layout{Version: 1, Shards: n, Groups: groups, Nodes: nodes, width: min(sites, MaxRow)}
	if previous != nil {
		l.Version = previous.Version + 1
	}
	if size := l.size(); size > MaxBytes {
		return nil, fault.New(fault.Invalid, "layout: %d nodes of %d sites take %d bytes, and %d are the most", len(nodes), sites, size, MaxBytes)
	}
	l.place(previous)
	return l, nil
}

// holding returns who may hold shards, in order.
func holding(holders []Holder) ([]Node, error) {
	var nodes []Node
	for _, h := range holders {
		if !h.Drained && !h.Lost && h.Pledge != 0 {
			nodes = append(nodes, h.Node)
		}
	}
	slices.SortFunc(nodes, compareNodes)
	return nodes, checkNodes(nodes)
}

// place makes the rows, for any number of groups that is a power of two and no less
// than before.
func (l *Layout) place(previous *Layout) {
	t, n, kept := newTable(l.Nodes, l.Groups, l.Version), l.Shards, 0
	if previous != nil {
		kept = min(previous.Shards, n)
	}
	former := t.former(previous)
	t.inherit(former, 0, kept)
	if kept < n {
		t.balance(0, kept, slices.Clone(t.cells)).settle()
	}
	base := slices.Clone(t.cells)
	if kept < n {
		t.balance(kept, n, base)
	}
	shards := t.balance(0, n, base)
	if !shards.done() {
		panic("layout: no table has these numbers of slots") // by Gale and Ryser there is one
	}
	shards.settle()
	t.restore(former, kept)
	t.inherit(former, n, t.width)
	substitutes := t.balance(n, t.width, slices.Clone(t.cells))
	substitutes.fill()
	substitutes.settle()
	l.rows = t.cells
}

// balance fills the positions from lo to hi-1, of which those before are settled and
// those after still empty, so that each node has its share of all below hi, and moves
// as little as it can of what is there. With positions before, that need not come out:
// the round is then not done. What is there already is in base, or moved straight to
// a hole of it.
func (t *table) balance(lo, hi int, base []int16) *round {
	r := newRound(t, lo, hi, base)
	if lo == hi {
		return r
	}
	if !r.done() {
		r.spread(true)
	}
	if !r.done() {
		r.spread(false)
	}
	if !r.done() {
		r.augment()
	}
	return r
}

// round is one balancing of a table, of the cells at positions from lo to hi-1. They
// are taken by spread, augment, fill and settle, in this order.
type round struct {
	*table
	lo, hi int     // hi may be lo: then there is nothing to do
	base   []int16 // the cells before the round
	before []int   // cells of each node at positions below lo, which stay
	target []int   // cells that each node should have below hi

	siteTarget []int
	siteCount  []int // kept by give
	holes      int   // kept by give
}

func newRound(t *table, lo, hi int, base []int16) *round {
	r := &round{table: t, lo: lo, hi: hi, base: base, before: make([]int, len(t.nodes))}
	r.target = apportion(t.nodes, t.site, t.groups, hi, t.count)
	r.siteTarget, r.siteCount = make([]int, t.site[len(t.nodes)-1]+1), make([]int, t.site[len(t.nodes)-1]+1)
	r.holes = t.groups * (hi - lo)
	for v := range t.nodes {
		for i := range lo {
			r.before[v] += t.at[i*len(t.nodes)+v]
		}
		r.siteTarget[t.site[v]] += r.target[v]
		r.siteCount[t.site[v]] += t.count[v]
		r.holes -= t.count[v] - r.before[v]
	}
	return r
}

// need is how many cells a node still wants; below 0, it has so many too many.
func (r *round) need(v int) int { return r.target[v] - r.count[v] }

// done reports whether all have what they should.
func (r *round) done() bool {
	for v := range r.nodes {
		if r.need(v) != 0 {
			return false
		}
	}
	return r.holes == 0
}

// give is set, and keeps the round's counts.
func (r *round) give(g, i int, v int16) {
	if old := r.row(g)[i]; old != hole {
		r.siteCount[r.site[old]]--
		r.holes++
	}
	if v != hole {
		r.siteCount[r.site[v]]++
		r.holes--
	}
	r.set(g, i, v)
}

// held is where a node was in a row before the round, or -1.
func (r *round) held(g int, v int16) int {
	base := r.base[g*r.width:]
	for i := r.lo; i < r.hi; i++ {
		if base[i] == v {
			return i
		}
	}
	return -1
}
