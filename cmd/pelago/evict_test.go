package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/dimse/dimsetest"
	"pelago/node/archive/archivepb"
	"pelago/node/config"
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

// joined is a node of another site in this process.
func joined(t *testing.T, to *node, site string) *node {
	t.Helper()
	r := pelago(t, nil, "token", "--data", to.config.Data)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	return started(t, func(c *config.Config) {
		c.Site, c.Peer.Join, c.Peer.Token = site, to.network.place.Address, lines[len(lines)-1]
	})
}

// until waits for something that a running network comes to.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within three minutes", what)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// A copy is given up in a network of three sites, and its study is read as before, also
// after a restart.
func TestAStudyIsReadFromItsShardsOnceItsCopyIsEvicted(t *testing.T) {
	if testing.Short() {
		t.Skip("three nodes")
	}
	ruled := func(c *config.Config) { c.Store.EvictAbove = 99 }
	n := started(t, func(c *config.Config) { ruled(c); c.Site = "A" })
	others := []*node{joined(t, n, "B"), joined(t, n, "C")}
	defer func() {
		for _, o := range append(others, n) {
			o.end(t)
		}
	}()
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	var sops []string
	for i := range 3 {
		one := dimsetest.CT(7, i)
		sops = append(sops, one.SOPInstanceUID)
		if err := os.WriteFile(filepath.Join(dir, one.SOPInstanceUID+".dcm"), one.File(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := pelago(t, nil, "import", "--data", n.config.Data, dir); r.code != 0 {
		t.Fatalf("import: %+v", r)
	}
	until(t, "the code for three sites", func() bool { s := n.placement.State(); return s.Striped() && s.Code.N() == 3 })
	if err := n.archive.Pack(t.Context()); err != nil {
		t.Fatal(err)
	}
	var packs []*archivepb.Pack
	if err := n.archive.EachPack(t.Context(), pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		packs = append(packs, p)
		return true, nil
	}); err != nil || len(packs) == 0 {
		t.Fatalf("%d packs, %v", len(packs), err)
	}
	for _, p := range packs {
		id, last := pack.ID(p.Id), ""
		until(t, "its eviction", func() bool {
			freed, err := n.evict.Pack(t.Context(), id)
			if err != nil && err.Error() != last {
				last = err.Error()
				t.Log(last)
			}
			return freed > 0
		})
		v := n.catalog.View()
		seals, err := v.Pack(id)
		v.Close()
		if err != nil || len(seals) != 1 || seals[0].Virtual != catalog.NoShard || seals[0].Receipts != 7 {
			t.Errorf("sealed %+v, %v", seals, err)
		}
	}
	read := func() {
		t.Helper()
		var found []string
		for i := range 3 {
			one := dimsetest.CT(7, i)
			for ref, err := range n.archive.Select(t.Context(), one.StudyInstanceUID, "", one.SOPInstanceUID) {
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, ref.SOP)
				in, err := n.archive.Open(t.Context(), ref)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, ref.Bytes)
				if k, err := in.Stored().ReadAt(got, 0); k != len(got) || !strings.HasSuffix(string(one.File()), string(got)) {
					t.Errorf("%s: %d of %d bytes, %v", ref.SOP, k, len(got), err)
				}
				in.Close()
			}
		}
		if slices.Sort(found); len(found) != len(sops) {
			t.Errorf("found %v", found)
		}
		report, err := n.archive.Verify(t.Context(), nil)
		if err != nil || len(report.Findings) > 0 || report.Evicted != uint64(len(packs)) {
			t.Errorf("verify: %+v, %v", report, err)
		}
	}
	read()
	for _, sop := range sops {
		until(t, "the commitment of what is evicted", func() bool {
			return n.protect.Committed(t.Context(), dimsetest.CTImageStorage, sop, "") == nil
		})
	}
	data := n.config.Data
	n.end(t)
	n = started(t, func(c *config.Config) { ruled(c); c.Data, c.Site = data, "A" })
	until(t, "the others are known", func() bool { return len(n.network.alive()) == 2 })
	read()
	if _, _, err := n.archive.Ciphertext(pack.ID(packs[0].Id)); err == nil {
		t.Error("the copy is still here")
	}
}
