package main

import (
	"context"
	"fmt"
	"math"

	"pelago/cluster/layout"
	"pelago/shard"
)

// shardLayout grows networks node by node, of equal pledges and of unequal ones, and
// shrinks them again in another order. It is computed, and the same each time.
func shardLayout(ctx context.Context, b *bench, s *sheet) error {
	s.note("networks of 4 to %d sites of a node each, in turn of equal pledges and of 4, 8, 16 and 32 TB, with the default code of their size; each change makes the layout that follows the one before (`cluster/layout`). Movement is of shards whose node is another, at the positions that both layouts have; the optimum is what nodes that held their exact shares would have to gain, no site with more than one shard of a stripe. Slots are for each pledged byte, of sites that are below that bound, with n of the default code and of 2+2 and 3+3 where N ≥ 2n. One computation: every round would be the same", b.cut.most)
	var adding, removing, slots extreme
	for _, unequal := range []bool{false, true} {
		if err := followLayouts(ctx, b, unequal, &adding, &removing, &slots); err != nil {
			return err
		}
	}
	s.add("moved by adding", "×", pelago, adding.value)
	s.add("moved by removing", "×", pelago, removing.value)
	s.add("slots", "×", pelago, slots.value)
	s.note("the worst: %s; %s; %s", adding.what, removing.what, slots.what)
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

func followLayouts(ctx context.Context, b *bench, unequal bool, adding, removing, slots *extreme) error {
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
