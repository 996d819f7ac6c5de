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
	changes, chained, worstSubstitutes, worstOlder := 0, 0, 0, 0.0
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
				s := checkStep(rt, l, next)
				if s.kept == n && s.moved > s.least && wasteful(l, next, n) {
					rt.Fatalf("%d cells moved, of which some need not (nodes gained %d)", s.moved, s.least)
				}
				if off := misplaced(next, s.kept); s.kept < n {
					// What the whole needs comes before what is best for the older stripes.
					worstOlder = max(worstOlder, off)
					if off > 0.05 || s.moved-s.least > next.Groups*s.kept/20 {
						rt.Fatalf("of the older stripes' cells %.4f are at nodes that have too many; %d moved, and nodes gained %d", off, s.moved, s.least)
					}
				}
			}
			worstSubstitutes = max(worstSubstitutes, uneven(next, n, next.width))
			l = next
			h.happen()
		}
	})
	t.Logf("%d changes, of which %d needed more moves than nodes gained; substitutes off at a position %d; of older stripes at most %.4f at the wrong nodes",
		changes, chained, worstSubstitutes, worstOlder)
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
