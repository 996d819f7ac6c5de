package layout

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// change is a typical change of a network.
type change struct {
	name     string
	from, to []Holder
	n, next  int // shards of a stripe before and after
}

func changes() []change {
	double, second, lopsided := network(12), network(12), network(20)
	double[3].Pledge *= 2
	second = append(second, Holder{Node: Node{ID: "second", Site: second[3].Site, Pledge: 8 * terabyte}})
	for i := range lopsided {
		lopsided[i].Pledge = int64(2+i*i) * terabyte / 4 // from 0.5 to 90
	}
	return []change{
		{"5 to 6 sites", network(5), network(6), 4, 6},
		{"6 to 5 sites", network(6), network(5), 6, 4},
		{"8 to 9 sites", network(8), network(9), 6, 9},
		{"12 to 13 sites", network(12), network(13), 9, 9},
		{"13 to 12 sites", network(13), network(12), 9, 9},
		{"18 to 19 sites", network(18), network(19), 9, 9},
		{"24 to 25 sites", network(24), network(25), 12, 14},
		{"30 to 29 sites", network(30), network(29), 14, 14},
		{"29 to 30 sites", network(29), network(30), 14, 14},
		{"60 to 59 sites", network(60), network(59), 14, 14},
		{"12 sites, one doubles", network(12), double, 9, 9},
		{"12 sites, one gets a second node", network(12), second, 9, 9},
		{"20 unequal sites, the largest goes", lopsided, lopsided[:19], 9, 9},
		{"20 unequal sites, the smallest goes", lopsided, lopsided[1:], 9, 9},
	}
}

// figures are those of a change.
type figures struct {
	step
	optimum float64 // cells that have to move for every node to hold its exact share
	ratio   float64 // moved to that
	peak    float64 // slots a pledged byte: the most of a node to the mean, where sites are below their limit
}

func measure(t fataler, from, to *Layout) figures {
	f := figures{step: checkStep(t, from, to)}
	before, after := exactShares(from, from.Shards), exactShares(to, f.kept)
	scale := float64(f.kept) / float64(from.Shards) * float64(to.Groups) / float64(from.Groups)
	for _, node := range to.Nodes {
		f.optimum += max(0, after[node.ID]-before[node.ID]*scale)
	}
	f.ratio = 1
	if f.moved > 0 {
		f.ratio = float64(f.moved) / f.optimum
	}
	f.peak = peak(to)
	return f
}

// exactShares are the slots of each node for stripes of n shards as real numbers, no
// site with more than one a group: by repeated filling, not as Compute does it.
func exactShares(l *Layout, n int) map[string]float64 {
	site := map[string]float64{}
	for _, node := range l.Nodes {
		site[node.Site] += float64(node.Pledge)
	}
	low, high := 0.0, math.MaxFloat64 // slots a byte
	for range 4096 {
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

// peak is the most slots a byte of a node to the mean, of the nodes whose sites are
// below their limit; 1 if there are none.
func peak(l *Layout) float64 {
	shares, site := exactShares(l, l.Shards), map[string]float64{}
	for _, node := range l.Nodes {
		site[node.Site] += shares[node.ID]
	}
	most, slots, bytes := 0.0, 0.0, 0.0
	for v, n := range l.Slots(l.Shards) {
		node := l.Nodes[v]
		if site[node.Site] < float64(l.Groups)*(1-1e-9) {
			most = max(most, float64(n)/float64(node.Pledge))
			slots, bytes = slots+float64(n), bytes+float64(node.Pledge)
		}
	}
	if bytes == 0 {
		return 1
	}
	return most / (slots / bytes)
}

// No change moves 2 % more than has to move, by shares that need not be whole, or two
// cells; and no node is 3 % fuller than the mean.
func TestTypicalChangesMoveTheOptimum(t *testing.T) {
	for _, c := range changes() {
		from := compute(t, nil, c.from, c.n)
		to := compute(t, from, c.to, c.next)
		checkTable(t, to)
		f := measure(t, from, to)
		t.Logf("%-36s %5d cells of %5d moved, optimum %7.1f: %.4f; slots max/mean %.4f; off at a position %d, of substitutes %d",
			c.name, f.moved, to.Groups*f.kept, f.optimum, f.ratio, f.peak, uneven(to, 0, to.Shards), uneven(to, to.Shards, to.width))
		if f.moved > f.least+f.least/50+2 || float64(f.moved) > 1.02*f.optimum+2 || f.peak > 1.03 {
			t.Errorf("%s: %d cells moved, %d for these slots, %.4f of the optimum; slots max/mean %.4f", c.name, f.moved, f.least, f.ratio, f.peak)
		}
	}
}

// Every network grown site by site, and shrunk again in the order in which it grew.
func TestNetworksGrowAndShrinkByTheOptimum(t *testing.T) {
	all := network(26)
	l := compute(t, nil, all[:1], 1)
	next := func(sites []Holder) {
		to := compute(t, l, sites, width(len(sites)))
		checkTable(t, to)
		f := measure(t, l, to)
		if f.moved != f.least {
			t.Errorf("%d sites: %d cells moved, not %d", len(sites), f.moved, f.least)
		}
		if f.ratio > 1.02 || f.peak > 1.03 {
			t.Errorf("%d sites: %d cells moved, %.4f of the optimum; max/mean %.4f", len(sites), f.moved, f.ratio, f.peak)
		}
		l = to
	}
	for n := 2; n <= len(all); n++ {
		next(all[:n])
	}
	for n := 1; n < len(all); n++ {
		next(all[n:])
	}
}

// BenchmarkChange reports both figures of each typical change beside its time.
func BenchmarkChange(b *testing.B) {
	for _, c := range changes() {
		b.Run(c.name, func(b *testing.B) {
			from := compute(b, nil, c.from, c.n)
			to := from
			for b.Loop() {
				to = compute(b, from, c.to, c.next)
			}
			f := measure(b, from, to)
			b.ReportMetric(f.ratio, "moved/optimum")
			b.ReportMetric(f.peak, "max/mean")
		})
	}
}

// BenchmarkFirst makes layouts of new networks.
func BenchmarkFirst(b *testing.B) {
	for _, sites := range []int{6, 24, 60, 300} {
		b.Run(fmt.Sprintf("%d sites", sites), func(b *testing.B) {
			holders := make([]Holder, sites)
			for s := range holders {
				holders[s] = Holder{Node: Node{ID: fmt.Sprintf("node%03d", s), Site: fmt.Sprintf("site%03d", s), Pledge: 8 * terabyte}}
			}
			for b.Loop() {
				compute(b, nil, holders, width(sites))
			}
		})
	}
}

// together is how often two nodes are in one row among the shards, at most, to the mean.
func together(l *Layout) float64 {
	count, most := make([]int, len(l.Nodes)*len(l.Nodes)), 0
	for g := range l.Groups {
		row := l.rows[g*l.width:][:l.Shards]
		for _, a := range row {
			for _, b := range row {
				if a != b {
					pair := int(a)*len(l.Nodes) + int(b)
					count[pair]++
					most = max(most, count[pair])
				}
			}
		}
	}
	pairs := len(l.Nodes) * (len(l.Nodes) - 1)
	return float64(most) * float64(pairs) / float64(l.Groups*l.Shards*(l.Shards-1))
}

// After many changes a layout is as even as a new one, in what nobody pays for too:
// nodes are at all positions alike, and together with all others, so that what a node
// held is rebuilt from and by all alike.
func TestManyChangesLeaveNoTraces(t *testing.T) {
	for _, sites := range []int{12, 20, 30} {
		r := rand.New(rand.NewPCG(uint64(sites), 17))
		holders, next := network(sites), sites
		l := compute(t, nil, holders, width(sites))
		first := together(l)
		for range 20 {
			if len(holders) <= sites || len(holders) < sites+4 && r.IntN(2) == 0 {
				holders = append(holders, Holder{Node: Node{ID: fmt.Sprint("node", next), Site: fmt.Sprint("site", next), Pledge: 8 * terabyte}})
				next++
			} else {
				i := r.IntN(len(holders))
				holders = slices.Delete(holders, i, i+1)
			}
			to := compute(t, l, holders, width(sites))
			if s := checkStep(t, l, to); s.moved != s.least {
				t.Errorf("%d sites: %d cells moved, not %d", len(holders), s.moved, s.least)
			}
			l = to
		}
		checkTable(t, l)
		checkPositions(t, l, 3)
		last := together(l)
		t.Logf("%d sites: pairs max/mean %.3f when new, %.3f of %d sites after %d versions", sites, first, last, len(holders), l.Version)
		if last > 1.25 {
			t.Errorf("%d sites: nodes are together in rows up to %.3f times as often as on average, %.3f when new", sites, last, first)
		}
	}
}
