package layout

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// divide is apportion one slot after another from none on, with real numbers where
// pledges are small enough for them to be exact.
func divide(nodes []Node, site []int, groups, width int) []int {
	got, ofSite := make([]int, len(nodes)), make([]int, len(nodes))
	for range groups * width {
		best := -1
		for v, node := range nodes {
			if ofSite[site[v]] < groups && (best < 0 || float64(node.Pledge)/float64(got[v]+1) > float64(nodes[best].Pledge)/float64(got[best]+1)) {
				best = v
			}
		}
		got[best]++
		ofSite[site[best]]++
	}
	return got
}

func TestSlotsAreDividedByTheRuleOfDHondt(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 11))
		nodes := someNodes(r, 1+r.IntN(12), 1<<(1+r.IntN(30)))
		table := newTable(nodes, 16, 1)
		width := 1 + r.IntN(table.width)
		got := apportion(nodes, table.site, 16, width, make([]int, len(nodes)))
		want := divide(nodes, table.site, 16, width)
		for v := range nodes {
			// Equal quotients may be served in another order.
			if got[v] != want[v] && (got[v]-want[v] > 1 || want[v]-got[v] > 1) {
				t.Fatalf("seed %d: %v slots, not %v", seed, got, want)
			}
		}
		worst := func(slots []int) float64 {
			w := 0.0
			for v, node := range nodes {
				w = max(w, float64(slots[v])/float64(node.Pledge))
			}
			return w
		}
		if worst(got) > worst(want) {
			t.Fatalf("seed %d: %v is fuller than %v", seed, got, want)
		}
	}
}

// More nodes leave nobody with more slots, fewer nobody with less: rounding never
// moves what the change does not.
func TestSlotsAreMonotonic(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 13))
		nodes := someNodes(r, 5+r.IntN(20), 1<<(1+r.IntN(40)))
		fewer := nodes[:len(nodes)-1-r.IntN(3)]
		few := newTable(fewer, FewGroups, 1)
		width := 1 + r.IntN(min(few.width, 4))
		before := apportion(fewer, few.site, FewGroups, width, make([]int, len(fewer)))
		all := newTable(nodes, FewGroups, 1)
		after := apportion(nodes, all.site, FewGroups, width, append(before, make([]int, len(nodes)-len(fewer))...))
		for v := range fewer {
			if after[v] > before[v] {
				t.Fatalf("seed %d: node %d has %d slots with fewer nodes, %d with more", seed, v, before[v], after[v])
			}
		}
		again := apportion(fewer, few.site, FewGroups, width, after[:len(fewer)])
		for v := range fewer {
			if again[v] < after[v] {
				t.Fatalf("seed %d: node %d has %d slots with more nodes, %d with fewer", seed, v, after[v], again[v])
			}
		}
	}
}

// The largest pledges there may be do not overflow.
func TestLargestPledges(t *testing.T) {
	nodes, holders := make([]Node, MaxNodes), make([]Holder, 40)
	for v := range nodes {
		nodes[v] = Node{ID: fmt.Sprintf("%04d", v), Site: fmt.Sprintf("%02d", v/52), Pledge: MaxPledge - int64(v)}
	}
	table, total := newTable(nodes, ManyGroups, 1), 0
	for v, slots := range apportion(nodes, table.site, ManyGroups, 9, make([]int, len(nodes))) {
		if total += slots; slots < 9*ManyGroups/MaxNodes-1 || slots > 9*ManyGroups/MaxNodes+1 {
			t.Errorf("node %d has %d slots", v, slots)
		}
	}
	if total != 9*ManyGroups {
		t.Errorf("%d slots", total)
	}
	for v := range holders {
		holders[v].Node = nodes[v*25]
	}
	l := compute(t, nil, holders, 9)
	checkTable(t, l)
	if c := l.Capacity(); c.Bytes < c.Pledged/10*9 || c.Bytes > c.Pledged {
		t.Errorf("%+v", c)
	}
}
