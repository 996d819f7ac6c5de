package layout

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// history draws networks and what becomes of them.
type history struct {
	*rapid.T
	holders []Holder
	next    int // number of the next site or node
	unequal bool
}

func (h *history) pledge() int64 {
	if !h.unequal {
		return 4 * terabyte
	}
	return int64(rapid.IntRange(1, 999).Draw(h.T, "digits")) << rapid.IntRange(20, 36).Draw(h.T, "magnitude")
}

func (h *history) addSite() {
	site := fmt.Sprintf("site%03d", h.next)
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 3, 4}).Draw(h.T, "nodes") {
		h.addNode(site)
	}
}

func (h *history) addNode(site string) {
	h.holders = append(h.holders, Holder{Node: Node{ID: fmt.Sprintf("node%03d", h.next), Site: site, Pledge: h.pledge()}})
	h.next++
}

func (h *history) any(what string) int { return rapid.IntRange(0, len(h.holders)-1).Draw(h.T, what) }

// happen changes the network by one event.
func (h *history) happen() string {
	event := rapid.SampledFrom([]string{"site comes", "node comes", "node goes", "site goes", "drained", "back", "grows", "shrinks", "replaced"}).Draw(h.T, "event")
	switch i := h.any("who"); event {
	case "site comes":
		h.addSite()
	case "node comes":
		h.addNode(h.holders[i].Site)
	case "node goes":
		h.holders[i].Lost = true
	case "site goes":
		site := h.holders[i].Site
		h.holders = slices.DeleteFunc(h.holders, func(o Holder) bool { return o.Site == site })
	case "drained":
		h.holders[i].Drained = true
	case "back":
		for i := range h.holders {
			h.holders[i].Drained, h.holders[i].Lost = false, false
		}
	case "grows":
		h.holders[i].Pledge *= 2
	case "shrinks":
		h.holders[i].Pledge = h.holders[i].Pledge/2 + 1
	case "replaced":
		h.holders[i].Lost = true
		h.addNode(h.holders[i].Site)
	}
	return event
}

func (h *history) sites() int {
	nodes, err := holding(h.holders)
	if err != nil {
		return 0
	}
	return siteCount(nodes)
}

// Whatever becomes of a network, its layouts are proper, as even as whole slots allow,
// the same wherever they are made, and what moves is what has to.
func TestLayoutsOfAnyHistory(t *testing.T) {
	changes, chained, worstSubstitutes, worstGivenUp := 0, 0, 0, 0.0
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{T: rt, unequal: rapid.Bool().Draw(rt, "unequal")}
		for range rapid.IntRange(1, rapid.SampledFrom([]int{6, 12, 12, 12, 24, 60}).Draw(rt, "size")).Draw(rt, "sites") {
			h.addSite()
		}
		var l *Layout
		for range rapid.IntRange(2, 5).Draw(rt, "events") {
			if h.sites() == 0 {
				return
			}
			n := width(h.sites())
			if rapid.IntRange(0, 4).Draw(rt, "code") == 0 {
				n = rapid.IntRange(1, min(h.sites(), MaxRow)).Draw(rt, "shards")
			}
			next, err := Compute(l, h.holders, n)
			if err != nil {
				rt.Fatal(err)
			}
			checkTable(rt, next)
			if l == nil || rapid.IntRange(0, 3).Draw(rt, "same") == 0 {
				checkSame(rt, l, next, h.holders, n)
			}
			if l != nil {
				changes++
				m := checkMovement(rt, l, next, h.holders)
				if m.moved > m.least {
					chained++
				}
				worstGivenUp = max(worstGivenUp, float64(m.givenUp)/float64(m.kept*next.Groups))
			}
			worstSubstitutes = max(worstSubstitutes, uneven(next, n, next.width))
			l = next
			h.happen()
		}
	})
	t.Logf("%d changes, of which %d needed more moves than nodes gained; substitutes off at a position %d; of older stripes' cells at most %.4f given up for the whole",
		changes, chained, worstSubstitutes, worstGivenUp)
}

// movement is what a change moves, and what of it is for the stripes of another n.
type movement struct {
	step
	givenUp int // cells of the positions kept that are not as the older stripes alone would have them
}

// checkMovement checks that no more moves than has to. Where the shards are as many as
// before, or fewer, that is one statement: there is no table with these numbers of
// slots that moves less.
//
// Where they are more, the positions that are kept serve two kinds of stripes, and there
// is no telling how much has to move for both: what each row gives to each kind is no
// flow of one good, and a bound on it in numbers would be one of those networks that
// somebody looked at. (It may be much: if sites are so few that one of them has to be in
// every row now, it comes to all rows that were without it, by chains that no node's gain
// shows.) What holds of every history are the two steps of which the change is made,
// each the best there is:
//
//   - the older stripes alone get the table of the least moves with their shares. It is
//     what Compute makes for their n, of the same nodes and version;
//   - of all tables with the shares of the whole, none has more of that one's cells, and
//     what is left of it is at the positions that the older stripes have.
//
// So if the whole can have its shares with nothing of the first step given up, then
// nothing is.
func checkMovement(t fataler, from, to *Layout, holders []Holder) movement {
	t.Helper()
	m := movement{step: checkStep(t, from, to)}
	if m.kept == to.Shards {
		checkThrift(t, from, to, m.step)
		return m
	}
	older, err := Compute(from, holders, m.kept)
	if err != nil {
		t.Fatalf("older stripes: %v", err)
	}
	checkShares(t, older, m.kept)
	checkThrift(t, from, older, checkStep(t, from, older))
	for g := range to.Groups {
		now := to.Row(g)
		for _, node := range older.Row(g)[:m.kept] {
			at := slices.Index(now, node)
			if at < 0 || at >= to.Shards {
				m.givenUp++
			} else if at >= m.kept {
				t.Fatalf("group %d: %s has a shard of the older stripes, and is at position %d of the new ones", g, node.ID, at)
			}
		}
	}
	if m.givenUp > 0 && wasteful(older, m.kept, to, to.Shards) {
		t.Fatalf("%d cells of the older stripes are given up, of which some need not be", m.givenUp)
	}
	if m.givenUp == 0 && misplaced(to, m.kept) > 0 {
		t.Fatalf("older stripes have all their cells, and other shares")
	}
	return m
}

// checkThrift checks that no table with the slots of to, for stripes of to.Shards, moves
// less.
func checkThrift(t fataler, from, to *Layout, s step) {
	t.Helper()
	if s.moved > s.least && wasteful(from, to.Shards, to, to.Shards) {
		t.Fatalf("%d cells moved, of which some need not (nodes gained %d)", s.moved, s.least)
	}
}

// Three sites of one, three and four nodes lose two of these, and their stripes get
// shorter and longer again. By the shares of two sites a row the third must be in each,
// which it was not: 396 cells of 2,048 move, and nodes gain 293. A test held that for too
// much, and it is the least there is.
func TestASiteThatHasToBeInEveryRowComesToAll(t *testing.T) {
	var holders []Holder
	for i, site := range []string{"a", "b", "b", "b", "c", "c", "c", "c"} {
		holders = append(holders, Holder{Node: Node{ID: fmt.Sprintf("node%03d", i), Site: "site00" + site, Pledge: 4 * terabyte}})
	}
	first := compute(t, nil, holders, 3)
	holders[4].Lost = true
	second := compute(t, first, holders, 2)
	checkTable(t, second)
	checkMovement(t, first, second, holders)
	holders[2].Lost = true
	third := compute(t, second, holders, 3)
	checkTable(t, third)
	m := checkMovement(t, second, third, holders)
	if m.givenUp != 0 || m.moved <= m.least || wasteful(second, 2, third, 2) {
		t.Errorf("%+v", m)
	}
}

// misplaced is the part of the first n positions whose nodes have more cells there than
// their shares of them.
func misplaced(l *Layout, n int) float64 {
	table, slots, over := newTable(l.Nodes, l.Groups, l.Version), l.Slots(n), 0
	for v, share := range apportion(l.Nodes, table.site, l.Groups, n, slots) {
		over += max(0, slots[v]-share)
	}
	return float64(over) / float64(n*l.Groups)
}

// checkSame computes a layout once more, from nodes in another order and a last layout
// that was written and read; and then the next one, which moves nothing.
func checkSame(t *rapid.T, previous, l *Layout, holders []Holder, n int) {
	holders = slices.Clone(holders)
	slices.Reverse(holders)
	if previous != nil {
		b, _ := previous.MarshalBinary()
		previous, _ = Parse(b)
	}
	again, err := Compute(previous, holders, n)
	if err != nil {
		t.Fatal(err)
	}
	one, _ := l.MarshalBinary()
	if other, _ := again.MarshalBinary(); !bytes.Equal(one, other) {
		t.Fatalf("the same nodes have two layouts")
	}
	if same, err := Compute(l, holders, n); err != nil || !same.Places(l) || same.Version != l.Version+1 {
		t.Fatalf("nothing changed, and something moves: %v", err)
	}
}
