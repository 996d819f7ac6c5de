package layout

import (
	"math"
	"slices"
)

// augment completes a round where nobody who needs a cell can have one straight from
// who has too many, by chains: a gives a cell to b in one row, b gives another to c in
// another row.
//
// The table is a flow: a unit from each row to each node in it, through one arc for
// each of the row's sites, and each node takes what it should have. A cell that a node
// did not have before the round costs one. What spread does is a flow of least cost for
// its value, since a node that has so many cells more than before has at least so many
// new ones. Each chain here is a shortest path by cost in what is left of the network
// (Ahuja, Magnanti, Orlin, Network Flows, 1993, section 9.7: successive shortest
// paths), so the flow stays one of least cost for its value until all have what they
// should: no table with these targets has fewer new cells.
//
// Among paths of one cost the one with the fewest steps is taken; it never needs a row
// in a way in which one step would undo another's.
func (r *round) augment() {
	a := newArcs(r)
	for path := a.shortest(); path != nil; path = a.shortest() {
		for i := 1; i < len(path); i++ {
			a.move(path[i-1], path[i])
		}
	}
}

// arcs counts, for each pair of a node that gives a cell (or a hole, the number after
// the last node) and a node that takes it, the rows in which that can be.
type arcs struct {
	*round
	giver int     // how many may give: all nodes, and holes
	count []int32 // by giver, taker, cost
}

// Costs of a step: a new cell more, or one less, or neither.
const (
	saves = iota
	even
	costs
	steps
)

func newArcs(r *round) *arcs {
	a := &arcs{round: r, giver: len(r.nodes) + 1}
	a.count = make([]int32, a.giver*len(r.nodes)*steps)
	for g := range r.groups {
		a.tally(g, 1)
	}
	return a
}

// number is that of who gives a cell.
func (a *arcs) number(v int16) int {
	if v == hole {
		return len(a.nodes)
	}
	return int(v)
}

// tally adds a row's arcs to the counts, or takes them away.
func (a *arcs) tally(g int, by int32) {
	row := a.row(g)
	var fresh [MaxRow]int // 1: a cell that is given up was new
	for i := a.lo; i < a.hi; i++ {
		if row[i] != hole && a.held(g, row[i]) < 0 {
			fresh[i] = 1
		}
	}
	for u := range a.nodes {
		to := costs
		if a.held(g, int16(u)) >= 0 {
			to = even
		}
		for i := a.lo; i < a.hi; i++ {
			if a.open(g, row[i], int16(u)) {
				a.count[(a.number(row[i])*len(a.nodes)+u)*steps+to-fresh[i]] += by
			}
		}
	}
}

// open reports whether o's cell in a row could be u's.
func (a *arcs) open(g int, o, u int16) bool {
	return o != u && (!a.hasSite(g, a.site[u]) || o != hole && a.site[o] == a.site[u])
}

// shortest returns a path of least cost and then of fewest steps, from who has a cell
// too many to who has one too few: nil if there is none. It is Bellman's and Ford's
// search, for a step may save.
func (a *arcs) shortest() []int {
	const far, unit = math.MaxInt32, 1 << 12 // a step counts one, a new cell more than all steps of a path
	length, from := make([]int32, a.giver), make([]int, a.giver)
	for o := range a.giver {
		length[o], from[o] = far, -1
		if o == len(a.nodes) && a.holes > 0 || o < len(a.nodes) && a.need(o) < 0 {
			length[o] = 0
		}
	}
	for more := true; more; { // no cycle saves, so it ends
		more = false
		for o, l := range length {
			if l == far {
				continue
			}
			for u := range a.nodes {
				count := a.count[(o*len(a.nodes)+u)*steps:][:steps]
				for cost, rows := range count {
					if rows == 0 {
						continue
					}
					if to := length[o] + int32(cost-even)*unit + 1; to < length[u] {
						length[u], from[u], more = to, o, true
					}
					break
				}
			}
		}
	}
	last := -1
	for u := range a.nodes {
		if a.need(u) > 0 && length[u] != far && (last < 0 || length[u] < length[last]) {
			last = u
		}
	}
	if last < 0 {
		return nil
	}
	var path []int
	for v := last; v >= 0; v = from[v] {
		path = append(path, v)
	}
	slices.Reverse(path)
	return path
}

// move gives a cell of o to u, in a row in which that costs least.
func (a *arcs) move(o, u int) {
	least := 0
	for a.count[(o*len(a.nodes)+u)*steps+least] == 0 {
		least++ // it is a step of a path, so there is one
	}
	for _, g := range a.turn {
		for i := a.lo; i < a.hi; i++ {
			if v := a.row(g)[i]; a.number(v) == o && a.open(g, v, int16(u)) && a.costIn(g, v, int16(u)) == least {
				a.tally(g, -1)
				a.swap(g, i, int16(u))
				a.tally(g, 1)
				return
			}
		}
	}
	panic("layout: a step of a path is in no row")
}

// costIn is that of o's cell in a row becoming u's.
func (a *arcs) costIn(g int, o, u int16) int {
	cost := even
	if a.held(g, u) < 0 {
		cost++
	}
	if o != hole && a.held(g, o) < 0 {
		cost--
	}
	return cost
}

// swap gives a cell to u. If u was in this row before the round, it returns to its
// position, and who is there meanwhile, being new, goes to the other.
func (a *arcs) swap(g, i int, u int16) {
	back := a.held(g, u)
	if back < 0 || back == i {
		a.give(g, i, u)
		return
	}
	other := a.row(g)[back]
	a.give(g, i, hole)
	a.give(g, back, hole)
	a.give(g, back, u)
	a.give(g, i, other)
}
