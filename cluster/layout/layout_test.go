package layout

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pelago/cluster/fault"
)

const terabyte = 1_000_000_000_000

// network is so many sites of one node each, with equal pledges.
func network(sites int) []Holder {
	holders := make([]Holder, sites)
	for s := range holders {
		holders[s] = Holder{Node: Node{ID: fmt.Sprintf("node%02d", s), Site: fmt.Sprintf("site%02d", s), Pledge: 8 * terabyte}}
	}
	return holders
}

// width is a number of shards as networks have it.
func width(sites int) int {
	switch {
	case sites <= 4:
		return sites
	case sites == 5:
		return 4
	case sites <= 8:
		return 6
	case sites <= 14:
		return 9
	case sites <= 24:
		return 12
	}
	return 14
}

func compute(t testing.TB, previous *Layout, holders []Holder, n int) *Layout {
	t.Helper()
	l, err := Compute(previous, holders, n)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkTable checks what holds of any layout: one node of a site in a row, every node
// with the slots that its pledge calls for, and one spelling.
func checkTable(t fataler, l *Layout) {
	t.Helper()
	seen := make(map[string]*int, len(l.Nodes)) // the last group that a site was in
	last := make([]*int, len(l.Nodes))
	for v, node := range l.Nodes {
		if seen[node.Site] == nil {
			seen[node.Site] = new(int)
			*seen[node.Site] = -1
		}
		last[v] = seen[node.Site]
	}
	if l.width != min(len(seen), MaxRow) || len(l.rows) != l.Groups*l.width {
		t.Fatalf("%d cells, rows of %d for %d sites", len(l.rows), l.width, len(seen))
	}
	for c, v := range l.rows {
		if *last[v] == c/l.width {
			t.Fatalf("%s is twice in the row of group %d", l.Nodes[v].Site, c/l.width)
		}
		*last[v] = c / l.width
	}
	checkShares(t, l, l.Shards)
	b, err := l.MarshalBinary()
	if err != nil || len(b) != l.size() {
		t.Fatalf("%d bytes, said to be %d: %v", len(b), l.size(), err)
	}
	again, err := Parse(b)
	if err != nil {
		t.Fatalf("a layout that was written is not read: %v", err)
	}
	if !again.Places(l) || again.Version != l.Version || !slices.Equal(again.Nodes, l.Nodes) {
		t.Fatalf("a layout is read as another")
	}
}

// checkShares checks that no slot would be better at another node: moving one from w
// to u, whose site has room for it, would leave u with more a byte than w has.
func checkShares(t fataler, l *Layout, n int) {
	t.Helper()
	slots, ofSite, all := l.Slots(n), map[string]int{}, 0
	for v, node := range l.Nodes {
		ofSite[node.Site] += slots[v]
		all += slots[v]
	}
	if all != n*l.Groups {
		t.Fatalf("%d slots, not %d", all, n*l.Groups)
	}
	for u, taker := range l.Nodes {
		for w, giver := range l.Nodes {
			room := ofSite[taker.Site] < l.Groups || taker.Site == giver.Site
			if u != w && slots[w] > 0 && room && less(giver.Pledge, slots[u]+1, taker.Pledge, slots[w]) {
				t.Fatalf("node %s has %d slots for %d bytes, %s %d for %d", giver.ID, slots[w], giver.Pledge, taker.ID, slots[u], taker.Pledge)
			}
		}
	}
}

// step is what a change from one layout to another moves.
type step struct {
	kept  int // positions that both have for shards
	moved int // cells there that have another node
	least int // of any table whose nodes have as many cells there as this one's
}

// checkStep checks that shards stay at their positions, and counts what moves. A node
// that has more cells there than before has at least so many new ones: no table can
// have fewer than the sum of that over nodes.
func checkStep(t fataler, from, to *Layout) step {
	t.Helper()
	s := step{kept: min(from.Shards, to.Shards)}
	number := map[string]int{}
	for v, node := range to.Nodes {
		number[node.ID] = v
	}
	before := make([]int, len(to.Nodes))
	for g := range to.Groups {
		for i := range s.kept {
			now, stays := to.At(g, i).ID, false
			for j := range s.kept {
				if from.At(g*from.Groups/to.Groups, j).ID != now {
					continue
				}
				if stays = true; i != j {
					t.Fatalf("group %d: %s was at position %d and is at %d", g, now, j, i)
				}
			}
			if !stays {
				s.moved++
			}
			if v, ok := number[from.At(g*from.Groups/to.Groups, i).ID]; ok {
				before[v]++
			}
		}
	}
	for v, slots := range to.Slots(s.kept) {
		s.least += max(0, slots-before[v])
	}
	if moves := Diff(from, to, s.kept); len(moves) != s.moved {
		t.Fatalf("%d moves are listed, and %d cells differ", len(moves), s.moved)
	}
	return s
}

func TestFirstLayoutOfEverySize(t *testing.T) {
	for _, sites := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 16, 17, 24, 25, 60} {
		l := compute(t, nil, network(sites), width(sites))
		checkTable(t, l)
		want := FewGroups
		if sites >= 25 {
			want = ManyGroups
		}
		if l.Version != 1 || l.Groups != want || l.Width() != min(sites, 16) {
			t.Errorf("%d sites: version %d, %d groups of %d", sites, l.Version, l.Groups, l.Width())
		}
		checkPositions(t, l, 1)
	}
}

// checkPositions checks that no node is at a position among the shards, or among the
// substitutes, by more than so many cells more or less often than at the others on average.
func checkPositions(t fataler, l *Layout, off int) {
	t.Helper()
	if shards, substitutes := uneven(l, 0, l.Shards), uneven(l, l.Shards, l.width); shards > off || substitutes > off {
		t.Fatalf("%d nodes, %d shards: %d cells too many at a position, %d among substitutes", len(l.Nodes), l.Shards, shards, substitutes)
	}
}

// uneven is by how many cells a node is more often at a position than on average over
// those from lo to hi-1, at most.
func uneven(l *Layout, lo, hi int) int {
	at := make([]int, len(l.Nodes)*l.width)
	for c, v := range l.rows {
		at[int(v)*l.width+c%l.width]++
	}
	worst := 0
	for v := range l.Nodes {
		all, most := 0, 0
		for _, n := range at[v*l.width+lo : v*l.width+hi] {
			all, most = all+n, max(most, n)
		}
		if all > 0 {
			worst = max(worst, most-(all+hi-lo-1)/(hi-lo))
		}
	}
	return worst
}

func TestTheOrderOfNodesDoesNotCount(t *testing.T) {
	holders := network(19)
	one, err := compute(t, compute(t, nil, holders, 12), holders[:18], 12).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		all := slices.Clone(holders)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		first := compute(t, nil, all, 12)
		all = slices.DeleteFunc(all, func(h Holder) bool { return h.ID == holders[18].ID })
		if b, _ := compute(t, first, all, 12).MarshalBinary(); !bytes.Equal(b, one) {
			t.Fatal("the same nodes in another order have another layout")
		}
	}
}

func TestWhoGivesUpOrIsLostOrPledgesNothingGetsNothing(t *testing.T) {
	holders := network(8)
	first := compute(t, nil, holders, 5)
	holders[1].Drained, holders[4].Lost, holders[6].Pledge = true, true, 0
	l := compute(t, first, holders, 5)
	checkTable(t, l)
	if s := checkStep(t, first, l); s.moved != s.least {
		t.Errorf("%d cells moved, not %d", s.moved, s.least)
	}
	for _, node := range l.Nodes {
		if i := slices.IndexFunc(holders, func(h Holder) bool { return h.ID == node.ID }); i == 1 || i == 4 || i == 6 {
			t.Errorf("node %d has shards", i)
		}
	}
}

// A node that changed its site is another one: it was counted for the site it was at.
func TestANodeThatChangedItsSiteStartsAnew(t *testing.T) {
	holders := network(9)
	first := compute(t, nil, holders, 6)
	holders[8].Site = holders[7].Site
	checkTable(t, compute(t, first, holders, 6))
}

func TestWhatIsNoNetworkIsRefused(t *testing.T) {
	many := make([]Holder, MaxNodes+1)
	for i := range many {
		many[i] = Holder{Node: Node{ID: fmt.Sprint("n", i), Site: fmt.Sprint("s", i%7), Pledge: 1}}
	}
	sites := make([]Holder, MaxSites)
	for i := range sites {
		sites[i] = Holder{Node: Node{ID: fmt.Sprint("n", i), Site: fmt.Sprintf("%0256d", i), Pledge: 1}}
	}
	with := func(change func(h []Holder)) []Holder {
		h := network(6)
		change(h)
		return h
	}
	for name, c := range map[string]struct {
		holders []Holder
		n       int
	}{
		"nobody":             {nil, 1},
		"nobody is left":     {with(func(h []Holder) { h = h[:1]; h[0].Lost = true })[:1], 1},
		"no shards":          {network(6), 0},
		"more than sites":    {network(6), 7},
		"more than a row":    {network(20), 17},
		"one id twice":       {with(func(h []Holder) { h[3].ID = h[5].ID }), 4},
		"no id":              {with(func(h []Holder) { h[3].ID = "" }), 4},
		"a long id":          {with(func(h []Holder) { h[3].ID = fmt.Sprintf("%065d", 1) }), 4},
		"no site":            {with(func(h []Holder) { h[3].Site = "" }), 4},
		"less than nothing":  {with(func(h []Holder) { h[3].Pledge = -1 }), 4},
		"too large a pledge": {with(func(h []Holder) { h[3].Pledge = MaxPledge + 1 }), 4},
		"too many nodes":     {many, 4},
		"too long a record":  {sites, 14},
	} {
		if _, err := Compute(nil, c.holders, c.n); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCapacityIsWhatTheFirstFullNodeLeaves(t *testing.T) {
	t.Run("every site has a shard of each stripe", func(t *testing.T) {
		holders := network(4)
		holders[2].Pledge = 3 * terabyte
		c := compute(t, nil, holders, 4).Capacity()
		if c.Bytes != 12*terabyte || c.Pledged != 27*terabyte || c.Limit.ID != "node02" || !c.EverySite {
			t.Errorf("%+v", c)
		}
	})
	t.Run("one site has more than can be used", func(t *testing.T) {
		holders := network(6)
		holders[0].Pledge = 100 * terabyte // each of the others has 2/5 of a slot a group
		c := compute(t, nil, holders, 3).Capacity()
		if c.Bytes < 3*20*terabyte*998/1000 || c.Bytes > 3*20*terabyte || c.Limit.ID == "node00" || c.EverySite {
			t.Errorf("%+v", c)
		}
	})
	t.Run("unequal pledges are used alike", func(t *testing.T) {
		holders := network(20)
		for i := range holders {
			holders[i].Pledge = int64(i+5) * terabyte
		}
		c := compute(t, nil, holders, 9).Capacity()
		if c.Bytes > c.Pledged || c.Bytes < c.Pledged*99/100 || c.EverySite {
			t.Errorf("%+v", c)
		}
	})
}

func TestPacksStayInTheirGroupsWhenGroupsAreDivided(t *testing.T) {
	few, many := compute(t, nil, network(24), 12), compute(t, nil, network(25), 12)
	for _, spread := range []uint64{0, 1, 1 << 53, 1<<54 - 1, 1 << 54, 0x8123456789abcdef, 1<<64 - 1} {
		if f, m := few.Group(spread), many.Group(spread); f != m/4 || f != int(spread>>54) {
			t.Errorf("%#x is in group %d of few, %d of many", spread, f, m)
		}
	}
}

// A network that had many groups keeps them: rows that went apart are not merged.
func TestGroupsAreNeverFewerThanTheyWere(t *testing.T) {
	first := compute(t, nil, network(25), 14)
	l := compute(t, first, network(24), 12)
	if l.Groups != ManyGroups {
		t.Fatalf("%d groups", l.Groups)
	}
	checkTable(t, l)
	if s := checkStep(t, first, l); s.moved != s.least {
		t.Errorf("%d cells moved, not %d", s.moved, s.least)
	}
}
