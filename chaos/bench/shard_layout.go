package main

import (
	"context"
	"fmt"
	"math"
	"slices"

	"pelago/cluster/layout"
	"pelago/shard"
)

// shardLayout grows networks node by node, of equal pledges and of unequal ones, and
// shrinks them again in another order. It is computed, and the same each time.
func shardLayout(ctx context.Context, b *bench, s *sheet) error {
	s.note("networks of 4 to %d sites of a node each, in turn of equal pledges and of 4, 8, 16 and 32 TB, with the default code of their size; each change makes the layout that follows the one before (`cluster/layout`). Movement is of shards whose node is another, at the positions that both layouts have; the optimum is what nodes that held their exact shares would have to gain, no site with more than one shard of a stripe; where that cannot be reached, because every table with these numbers of slots moves shards from node to node in chains, it is the least that any table moves (there is no circle of nodes each of which could give the next a shard with fewer of them new: Klein's theorem on flows). Slots are for each pledged byte, of sites that are below that bound, with n of the default code and of 2+2 and 3+3 where N ≥ 2n. One computation: every round would be the same", b.cut.most)
	var adding, removing, slots extreme
	var chains chained
	for _, unequal := range []bool{false, true} {
		if err := followLayouts(ctx, b, unequal, &adding, &removing, &slots, &chains); err != nil {
			return err
		}
	}
	s.add("moved by adding", "×", pelago, adding.value)
	s.add("moved by removing", "×", pelago, removing.value)
	s.add("slots", "×", pelago, slots.value)
	s.note("the worst: %s; %s; %s", adding.what, removing.what, slots.what)
	s.note("%d changes of %d move more than nodes gain by exact shares and 0.5 %%, at most %s× as much; of these, %d are proven to be the least", chains.more, chains.all, number(chains.most), chains.proven)
	return nil
}

// extreme is the largest of several figures, and of what it is.
type extreme struct {
	value float64
	what  string
}

func (e *extreme) see(value float64, format string, args ...any) {
	if e.what == "" || value > e.value {
		e.value, e.what = value, fmt.Sprintf(format, args...)
	}
}

func followLayouts(ctx context.Context, b *bench, unequal bool, adding, removing, slots *extreme, chains *chained) error {
	const first = 4
	all, kind := benchHolders(b.cut.most, unequal), "equal"
	if unequal {
		kind = "unequal"
	}
	var last *layout.Layout
	next := func(holders []layout.Holder, worst *extreme) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		code, _ := shard.Default(len(holders))
		l, err := layout.Compute(last, holders, code.N())
		if err != nil {
			return err
		}
		if last != nil {
			moved, optimum := movement(last, l)
			optimum = chains.see(last, l, moved, optimum)
			worst.see(float64(moved)/optimum, "%d to %d sites of %s pledges, %d shards moved and %.1f had to", len(last.Nodes), len(holders), kind, moved, optimum)
		}
		last = l
		for _, n := range []int{code.N(), 4, 6} {
			of := l
			if len(holders) < 2*n {
				continue
			}
			if n != code.N() {
				if of, err = layout.Compute(nil, holders, n); err != nil {
					return err
				}
			}
			slots.see(slotPeak(of), "%d sites of %s pledges, stripes of %d shards", len(holders), kind, n)
		}
		return nil
	}
	for n := first; n <= len(all); n++ {
		if err := next(all[:n], adding); err != nil {
			return err
		}
	}
	for n := 1; len(all)-n >= first; n++ { // not those that came last
		if err := next(all[n:], removing); err != nil {
			return err
		}
	}
	b.say("  %s pledges: adding %s, removing %s, slots %s", kind, number(adding.value), number(removing.value), number(slots.value))
	return nil
}

func benchHolders(n int, unequal bool) []layout.Holder {
	const terabyte = 1 << 40
	all := make([]layout.Holder, n)
	for i := range all {
		pledge := int64(8 * terabyte)
		if unequal {
			pledge = 4 * terabyte << (i * 7 % 4)
		}
		all[i] = layout.Holder{Node: layout.Node{ID: fmt.Sprintf("node%02d", i), Site: fmt.Sprintf("site%02d", i), Pledge: pledge}}
	}
	return all
}

// movement is how many shards a change moves, and how many have to: what nodes gain
// whose shares are exact before and after.
func movement(from, to *layout.Layout) (moved int, optimum float64) {
	kept := min(from.Shards, to.Shards)
	before, after := exactShares(from, from.Shards), exactShares(to, kept)
	scale := float64(kept) / float64(from.Shards) * float64(to.Groups) / float64(from.Groups)
	for _, n := range to.Nodes {
		optimum += max(0, after[n.ID]-before[n.ID]*scale)
	}
	return len(layout.Diff(from, to, kept)), optimum
}

// chained counts changes that move more than nodes gain.
type chained struct {
	all, more, proven int
	most              float64 // times what nodes gain
}

// see returns the optimum of a change: what nodes gain, or what is moved if that is
// more, and proven to be the least.
func (c *chained) see(from, to *layout.Layout, moved int, gained float64) float64 {
	const rounding = 1.005
	c.all++
	over := float64(moved) / gained
	if over <= rounding {
		return gained
	}
	c.more++
	c.most = max(c.most, over)
	if wasteful(from, to) {
		return gained
	}
	c.proven++
	return float64(moved)
}

// none is a step that cannot be made.
const none = 1 << 20

// wasteful reports whether a table could have been made that moves less and has as many
// slots for each node: whether there are nodes in a circle, of which each could give
// the next a slot, in whatever rows, to the effect that fewer shards are new. Without
// such a circle a flow has the least cost.
func wasteful(from, to *layout.Layout) bool {
	n := min(from.Shards, to.Shards)
	index, sites := map[string]int{}, map[string]int{}
	site := make([]int, len(to.Nodes))
	for v, node := range to.Nodes {
		if _, known := sites[node.Site]; !known {
			sites[node.Site] = len(sites)
		}
		index[node.ID], site[v] = v, sites[node.Site]
	}
	step := make([][]int, len(to.Nodes)) // the least that a slot of one costs as another's
	for o := range step {
		step[o] = slices.Repeat([]int{none}, len(to.Nodes))
	}
	for g := range to.Groups {
		price := slices.Repeat([]int{1}, len(to.Nodes)) // of a slot in this row: 0 for who was there
		taken := make([]bool, len(sites))
		for i := range n {
			if v, stays := index[from.At(g*from.Groups/to.Groups, i).ID]; stays {
				price[v] = 0
			}
			taken[site[index[to.At(g, i).ID]]] = true
		}
		for i := range n {
			o := index[to.At(g, i).ID]
			for u := range to.Nodes {
				if o != u && (!taken[site[u]] || site[u] == site[o]) {
					step[o][u] = min(step[o][u], price[u]-price[o])
				}
			}
		}
	}
	return negative(step)
}

// negative reports whether a circle of steps costs less than nothing (Bellman and Ford).
func negative(step [][]int) bool {
	length := make([]int, len(step))
	for range len(step) + 1 {
		shorter := false
		for o := range step {
			for u, cost := range step[o] {
				if cost < none && length[o]+cost < length[u] {
					length[u], shorter = length[o]+cost, true
				}
			}
		}
		if !shorter {
			return false
		}
	}
	return true
}

// exactShares are the slots of each node for stripes of n shards as real numbers, by
// pledge, no site with more than one a group.
func exactShares(l *layout.Layout, n int) map[string]float64 {
	site := map[string]float64{}
	for _, node := range l.Nodes {
		site[node.Site] += float64(node.Pledge)
	}
	// What a pledged byte gets, where the bound does not: found by halving, as the sum
	// grows with it.
	low, high := 0.0, float64(l.Groups)
	for range 200 {
		level, sum := low+(high-low)/2, 0.0
		for _, pledge := range site {
			sum += min(level*pledge, float64(l.Groups))
		}
		if sum < float64(n*l.Groups) {
			low = level
		} else {
			high = level
		}
	}
	shares := map[string]float64{}
	for _, node := range l.Nodes {
		shares[node.ID] = float64(node.Pledge) * min(high, float64(l.Groups)/site[node.Site])
	}
	return shares
}

// slotPeak is the most slots a pledged byte of a node to the mean, of nodes whose sites
// are below their bound; 1 if there are none.
func slotPeak(l *layout.Layout) float64 {
	shares, site := exactShares(l, l.Shards), map[string]float64{}
	for _, node := range l.Nodes {
		site[node.Site] += shares[node.ID]
	}
	most, slots, bytes := 0.0, 0.0, 0.0
	for v, n := range l.Slots(l.Shards) {
		node := l.Nodes[v]
		if site[node.Site] >= float64(l.Groups)*(1-1e-9) {
			continue
		}
		most = math.Max(most, float64(n)/float64(node.Pledge))
		slots, bytes = slots+float64(n), bytes+float64(node.Pledge)
	}
	if bytes == 0 {
		return 1
	}
	return most / (slots / bytes)
}
