package placement

import (
	"fmt"
	"slices"
	"testing"

	"pelago/cluster/layout"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/recall"
)

// network is a layout of so many sites of one node each.
func network(t *testing.T, previous *layout.Layout, sites, n int) *layout.Layout {
	t.Helper()
	var holders []layout.Holder
	for i := range sites {
		holders = append(holders, layout.Holder{Node: layout.Node{ID: fmt.Sprintf("n%02d", i), Site: fmt.Sprintf("s%02d", i), Pledge: 1 << 40}})
	}
	l, err := layout.Compute(previous, holders, n)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPlacesAreOfTheNewRowTheOldOneExceptionsAndTheOrigin(t *testing.T) {
	before := network(t, nil, 6, 4)
	after := network(t, before, 7, 4)
	s := State{View: layout.View{New: after, Old: before}, Code: shard.Code{K: 2, M: 2}, Survives: 2}
	moved := layout.Diff(before, after, 4)
	if len(moved) == 0 {
		t.Fatal("nothing moves")
	}
	stripe := shard.Stripe{Generation: 1}
	for i := range 1 << 16 { // a pack of the group of the first move
		stripe.Pack = [16]byte{byte(i), byte(i >> 8)}
		if after.Group(shard.Spread(stripe.Pack)) == moved[0].Group {
			break
		}
	}
	at := moved[0].Position
	owner, ok := s.Owner(stripe, at)
	if !ok || owner.ID != moved[0].To.ID {
		t.Fatalf("%s, %t, of %s", owner.ID, ok, moved[0].To.ID)
	}
	virtual := (at + 1) % 4
	row := after.Row(after.Group(shard.Spread(stripe.Pack)))
	seal := catalog.SealFact{
		Stripe: stripe, Code: s.Code, Origin: row[virtual].ID, Virtual: virtual,
		Elsewhere: []catalog.Elsewhere{{Shard: at, Node: row[4].ID}, {Shard: at, Node: moved[0].From.ID}},
	}
	places := s.Places(&seal)
	var of []string
	for _, p := range places {
		if p.Index == at {
			of = append(of, p.Node)
		}
	}
	if want := []string{moved[0].To.ID, moved[0].From.ID, row[4].ID}; !slices.Equal(of, want) {
		t.Errorf("%v of %v", of, want)
	}
	count := map[recall.Place]int{}
	for _, p := range places {
		if count[p]++; count[p] > 1 {
			t.Errorf("%v twice", p)
		}
	}
	if count[recall.Place{Index: virtual, Node: seal.Origin}] != 1 {
		t.Errorf("the origin is not among %v", places)
	}
	for _, n := range s.Substitutes(stripe, 4) {
		if slices.Contains(row[:4], n) {
			t.Errorf("%s stands in for itself", n.ID)
		}
	}
}

func TestWithoutALayoutThereIsNoPlaceButExceptionsAndTheOrigin(t *testing.T) {
	var s State
	seal := catalog.SealFact{Code: shard.Code{K: 1, M: 1}, Origin: "a", Virtual: 0, Elsewhere: []catalog.Elsewhere{{Shard: 1, Node: "b"}}}
	if got, want := s.Places(&seal), []recall.Place{{Index: 0, Node: "a"}, {Index: 1, Node: "b"}}; !slices.Equal(got, want) {
		t.Errorf("%v of %v", got, want)
	}
	if _, ok := s.Owner(seal.Stripe, 0); ok || s.Striped() || s.Substitutes(seal.Stripe, 2) != nil {
		t.Error("something is placed")
	}
}
