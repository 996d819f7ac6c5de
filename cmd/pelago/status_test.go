package main

import (
	"bytes"
	"strings"
	"testing"

	"pelago/node/admin"
)

func TestShardsOfSitesForPeople(t *testing.T) {
	st := admin.Status{Site: "north", LayoutVersion: 3, Sites: []admin.Site{
		{Name: "north", OwedBytes: 5 << 30, HeldBytes: 4 << 30, LackingBytes: 1 << 30, RoomBytes: 2 << 30, Nodes: []admin.Node{{PledgeBytes: 1 << 40}, {PledgeBytes: 1 << 40}, {PledgeBytes: 1 << 40, State: admin.Removed}}},
		{Name: "south", OwedBytes: 5 << 30, HeldBytes: -1, LackingBytes: -1, RoomBytes: -1, Nodes: []admin.Node{{PledgeBytes: 1 << 40}}},
		{Name: "witness", Nodes: []admin.Node{{Witness: true}}},
	}}
	const want = `
SHARDS AT  OWED     HELD       LACKING    ROOM       PLEDGED
north      5.0 GiB  4.0 GiB    1.0 GiB    2.0 GiB    2.0 TiB
south      5.0 GiB  not known  not known  not known  1.0 TiB
`
	var got bytes.Buffer
	if err := printStatus(&got, st); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(got.String(), want) {
		t.Errorf("got\n%s\nwant at its end\n%s", &got, want)
	}
}

func TestShortagesForPeople(t *testing.T) {
	st := admin.Status{LayoutVersion: 3}
	for _, site := range []string{"north", "south", "east", "west", "lakes"} {
		st.Layout.Shortages = append(st.Layout.Shortages, admin.Shortage{Site: site, Bytes: 3 << 30})
	}
	st.Layout.RebuildableBytes = 5 << 40
	const want = `room with a site lost   5.0 TiB
short of room           if north is lost, 3.0 GiB of its shards have no place
short of room           if south is lost, 3.0 GiB of its shards have no place
short of room           if east is lost, 3.0 GiB of its shards have no place
short of room           and for 2 sites more
`
	var got bytes.Buffer
	if err := printStatus(&got, st); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.String(), want) {
		t.Errorf("got\n%s\nwant in it\n%s", &got, want)
	}
}

func TestStatusForPeople(t *testing.T) {
	st := admin.Status{
		Network: "n1", Site: "north", Node: "a1", Leader: "b1", AppliedIndex: 40, CommitIndex: 42, StalenessSeconds: -1,
		Sites: []admin.Site{
			{Name: "north", State: admin.Alive, Nodes: []admin.Node{{
				ID: "a1", Address: "10.0.0.1:7700", State: admin.Alive, Self: true, Voter: true,
				CapacityBytes: 1 << 40, UsedBytes: 1 << 38, LagEntries: -1, LagSeconds: -1,
			}}},
			{Name: "south", State: admin.Alive, Nodes: []admin.Node{{
				ID: "b1", Address: "10.0.0.2:7700", State: admin.Alive, Leader: true, Voter: true, LagEntries: 3, LagSeconds: 75,
			}}},
			{Name: "w\x1b[2Jest", State: admin.Silent, Nodes: []admin.Node{{ID: "c1", State: admin.Silent}}},
		},
		Transfers: []admin.Transfer{{Kind: "images", Incoming: true, Node: "b1", Calls: 3, Bytes: 1 << 20, Seconds: 1.5}},
		Tasks: []admin.Task{
			{Name: "pack", State: "running"},
			{Name: "purge", State: "backoff", Error: "no room", ErrorAt: "2026-01-02T03:04:05Z"},
		},
		RejectedFacts: 2, Spread: admin.Spread{Packs: 3, Bytes: 5 << 20, OldestSeconds: 90},
	}
	const want = `SITE                    north
node                    a1
network                 n1
leader                  south
version                 
up                      0s
studies                 0
series                  0
instances               0
staleness               not known
entries applied         40 of 42
journal pending         0
staging                 0 B
at rest                 0 B, 0 B of them copies of others', 0 B shards
free                    0 B
quarantined             0
commitments pending     0
repair                  0 queued, 0 running
sites that may be lost  0
to be spread            3 packs, 5.0 MiB, for up to 1m30s
journal                 2 facts refused by the catalogue
task purge              backoff, at 2026-01-02T03:04:05Z: no room

SITE      NODE  ADDRESS        STATE   ROLE        LAG        BEHIND     DISK
north     a1    10.0.0.1:7700  alive   this,voter  not known  not known  256.0 GiB of 1.0 TiB
south     b1    10.0.0.2:7700  alive   leader      3          1m15s      not known
w�[2Jest  c1                   silent  -           0          0.0s       not known

TRANSFER  WITH        CALLS  MOVED    FOR
images    from south  3      1.0 MiB  1.5s
`
	var got bytes.Buffer
	if err := printStatus(&got, st); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
}
