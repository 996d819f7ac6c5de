package admin

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"pelago/node/transfers"
)

func TestSitesAreSumsOfTheirNodesAndOursComesFirst(t *testing.T) {
	members := []Member{
		{Node: "e1", Site: "east", Alive: true, AppliedIndex: 90, Drained: true},
		{Node: "m2", Site: "north", AppliedIndex: 50, Owed: 3, Held: 2, Lacking: 1},
		{Node: "s1", Site: "south", Drained: true, Room: -1},
		{Node: "x1", Site: "x", Removed: true, Alive: true, Signs: true},
		{Node: "n1", Site: "north", Self: true, AppliedIndex: 90, Voter: true, Capacity: 10, Used: 4, Owed: 7, Held: 5, Lacking: 4, Room: 6},
		{Node: "b1", Site: "a", Alive: true, AppliedIndex: 90, RoundTrip: 80 * time.Millisecond, DICOM: "b:104", Web: "https://b", Owed: 9, Held: 8, Lacking: 2, Room: 2},
		{Node: "b2", Site: "a", Alive: true, AppliedIndex: 90, Owed: 1, Held: 4, Room: 3},
		{Node: "b3", Site: "a", Removed: true, Owed: 1, Held: 4, Lacking: 5, Room: 8},
	}
	from := Vantage{
		Leader: "b1", AppliedIndex: 90, CommitIndex: 97, Staleness: 1500 * time.Millisecond, StalenessKnown: true,
		Behind: func(index uint64) (time.Duration, bool) { return 30 * time.Second, index == 50 },
	}
	got := SitesOf(members, from)
	want := []Site{
		{"north", Partial, []Node{
			{ID: "n1", State: Alive, Self: true, Voter: true, CapacityBytes: 10, UsedBytes: 4, AppliedIndex: 90, LagEntries: 7, LagSeconds: 1.5, OwedBytes: 7, HeldBytes: 5, LackingBytes: 4, RoomBytes: 6},
			{ID: "m2", State: Silent, AppliedIndex: 50, LagEntries: 40, LagSeconds: 30, OwedBytes: 3, HeldBytes: -1, LackingBytes: -1},
		}, 10, 6, -1, -1},
		{"a", Alive, []Node{
			{ID: "b1", State: Alive, Leader: true, AppliedIndex: 90, RoundTripSeconds: .08, DICOM: "b:104", Web: "https://b", OwedBytes: 9, HeldBytes: 8, LackingBytes: 2, RoomBytes: 2},
			{ID: "b2", State: Alive, AppliedIndex: 90, OwedBytes: 1, HeldBytes: 4, RoomBytes: 3},
			{ID: "b3", State: Removed, LagEntries: -1, LagSeconds: -1, OwedBytes: 1, HeldBytes: -1, LackingBytes: -1, RoomBytes: 8},
		}, 10, 5, 12, 2},
		{"east", Drained, []Node{{ID: "e1", State: Drained, AppliedIndex: 90}}, 0, 0, 0, 0},
		{"south", Silent, []Node{{ID: "s1", State: Silent, LagEntries: -1, LagSeconds: -1, HeldBytes: -1, LackingBytes: -1, RoomBytes: -1}}, 0, -1, -1, -1},
		{"x", Removed, []Node{{ID: "x1", State: Removed, Signs: true, LagEntries: -1, LagSeconds: -1, HeldBytes: -1, LackingBytes: -1}}, 0, 0, 0, 0},
	}
	if len(got) != len(want) {
		t.Fatalf("%d sites", len(got))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("site %d:\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
	if members[0].Node != "e1" {
		t.Error("the caller's members were sorted")
	}
}

func TestStateOfASite(t *testing.T) {
	for _, test := range []struct {
		nodes []State
		want  State
	}{
		{[]State{Alive}, Alive}, {[]State{Alive, Alive}, Alive}, {[]State{Alive, Drained}, Alive},
		{[]State{Alive, Silent}, Partial}, {[]State{Alive, Silent, Drained}, Partial},
		{[]State{Silent}, Silent}, {[]State{Silent, Drained}, Silent},
		{[]State{Drained}, Drained}, {[]State{Drained, Drained}, Drained}, {[]State{Drained, Removed}, Drained},
		{[]State{Alive, Removed}, Alive}, {[]State{Silent, Removed}, Silent}, {[]State{Removed}, Removed},
	} {
		var nodes []Node
		for _, s := range test.nodes {
			nodes = append(nodes, Node{State: s})
		}
		if got := siteState(nodes); got != test.want {
			t.Errorf("%v: %s, want %s", test.nodes, got, test.want)
		}
	}
}

func TestLagIsNotUnderstated(t *testing.T) {
	known := Vantage{AppliedIndex: 100, CommitIndex: 100, StalenessKnown: true}
	for _, test := range []struct {
		name    string
		from    Vantage
		member  Member
		entries int64
		seconds float64
	}{
		{"never confirmed", Vantage{AppliedIndex: 100, CommitIndex: 100}, Member{Self: true}, -1, -1},
		{"confirmed just now", known, Member{Self: true}, 0, 0},
		{"a commit index heard of that lies behind", Vantage{AppliedIndex: 100, CommitIndex: 90, StalenessKnown: true, Staleness: time.Second}, Member{Self: true}, 0, 1},
		{"never heard", known, Member{}, -1, -1},
		{"as far as we are", known, Member{AppliedIndex: 100}, 0, 0},
		{"further than we are", known, Member{AppliedIndex: 150}, 0, 0},
		{"behind, for longer than is remembered", known, Member{AppliedIndex: 1}, 99, -1},
	} {
		if entries, seconds := test.from.lag(test.member); entries != test.entries || seconds != test.seconds {
			t.Errorf("%s: %d entries, %g s", test.name, entries, seconds)
		}
	}
	if got := (Vantage{}).StalenessSeconds(); got != -1 {
		t.Errorf("staleness that is not known is told as %g", got)
	}
}

func TestTransfersInTheStatus(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := TransfersOf([]transfers.Transfer{
		{Kind: transfers.Images, Incoming: true, Node: "b", Calls: 2, Bytes: 3, Began: began},
		{Kind: transfers.Catalogue, Node: "c", Bytes: 5, Began: began.Add(time.Hour)},
	}, began.Add(2*time.Second))
	want := []Transfer{
		{Kind: "images", Incoming: true, Node: "b", Calls: 2, Bytes: 3, Seconds: 2},
		{Kind: "catalogue", Node: "c", Bytes: 5},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Clients rely on these fields: they keep their names and types.
func TestFieldsOfTheStatusThatWerePromised(t *testing.T) {
	b, err := json.Marshal(Status{Sites: []Site{{Nodes: []Node{{}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	check := func(in map[string]any, text bool, names ...string) {
		for _, name := range names {
			if _, isText := in[name].(string); isText != text {
				t.Errorf("%s is %T", name, in[name])
			}
			if _, isNumber := in[name].(float64); isNumber == text {
				t.Errorf("%s is %T", name, in[name])
			}
		}
	}
	check(got, true, "network", "site", "node", "leader")
	check(got, false, "applied_index", "staleness_seconds", "studies", "series", "instances",
		"protected_studies", "pending_journal", "layout_version", "survives_sites")
	check(got["repair"].(map[string]any), false, "queued", "running")
	site := got["sites"].([]any)[0].(map[string]any)
	check(site, true, "name", "state")
	node := site["nodes"].([]any)[0].(map[string]any)
	check(node, true, "id", "address", "state")
	check(node, false, "capacity_bytes", "used_bytes")
}
