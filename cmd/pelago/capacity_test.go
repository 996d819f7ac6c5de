package main

import (
	"slices"
	"testing"

	"pelago/node/admin"
	"pelago/node/capacity"
)

func TestRoomIsKeptAsFarAsThePledgeGoes(t *testing.T) {
	for _, one := range []struct{ room, lacking, left, want int64 }{
		{5, 0, 100, 5}, {5, 3, 100, 8}, {5, 3, 7, 7}, {5, 3, 0, 0}, {5, 3, -4, 0}, // over its pledge
		{-1, 3, 100, 3}, {5, -1, 100, 5}, {-1, -1, 100, 0},
	} {
		if got := kept(one.room, one.lacking, one.left); got != one.want {
			t.Errorf("%+v: %d", one, got)
		}
	}
}

func TestShortagesGoByPledgesAndDisks(t *testing.T) {
	const gib = 1 << 30
	r := &capacity.Report{Losses: []capacity.Loss{
		{Site: "north", Takes: map[string]int64{"s": 10 * gib, "e": 10 * gib}},
		{Site: "south", Takes: map[string]int64{"n": 10 * gib, "e": 5 * gib}},
	}}
	pledged := func(used, capacity, held, owed int64) (all []admin.Member) {
		for _, id := range []string{"n", "s", "e"} {
			all = append(all, admin.Member{Node: id, Alive: true, Pledge: 30 * gib, Capacity: capacity, Used: used, Held: held, Owed: owed})
		}
		return all
	}
	left := int64(30*gib) - capacity.AtRest(26*gib)
	for _, test := range []struct {
		name    string
		members []admin.Member
		want    []admin.Shortage
	}{
		{"room for all", pledged(20*gib, 50*gib, 19*gib, 19*gib), nil},
		{"what is owed and has not come takes its pledge too", pledged(20*gib, 50*gib, 0, 26*gib),
			[]admin.Shortage{{Site: "north", Bytes: 2 * (10*gib - left)}, {Site: "south", Bytes: 10*gib - left + 5*gib - left}}},
		{"surplus too", pledged(20*gib, 50*gib, 24*gib, 0), []admin.Shortage{{Site: "north", Bytes: 8 * gib}, {Site: "south", Bytes: 4 * gib}}},
		{"copies have the disk", pledged(43*gib, 50*gib, 10*gib, 10*gib/2), []admin.Shortage{{Site: "north", Bytes: 8 * gib}, {Site: "south", Bytes: 4 * gib}}},
		{"a disk that is not known", pledged(0, 0, 10*gib, 10*gib), nil},
		{"nobody is known", nil, []admin.Shortage{{Site: "north", Bytes: 20 * gib}, {Site: "south", Bytes: 15 * gib}}},
	} {
		if got := shortages(r, test.members); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if got := shortages(nil, pledged(0, 0, 0, 0)); got != nil {
		t.Errorf("before anything is known: %v", got)
	}
}
