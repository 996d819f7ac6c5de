package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/chaos/proc"
	"pelago/cluster/identity"
	"pelago/dimse/dimsetest"
)

// packing has a node pack soon.
func packing(o *proc.Options) {
	o.Env = append(o.Env, "PELAGO_STORE_QUIET=200ms", "PELAGO_STORE_GATHER=500ms", "PELAGO_STORE_TABLE_SIZE=1MiB")
}

// packs stores a study and waits until it is packed.
func (n *node) packs(seed uint64) []instance {
	n.t.Helper()
	before, all := n.status().HotBytes, world(dimsetest.World{Seed: seed, Patients: 1})
	n.cstore(all)
	until(n.t.(*testing.T), "what was stored is packed", func() bool { return n.status().HotBytes > before })
	return all
}

// keyed waits until a node holds so many epochs, and lacks none.
func (n *node) keyed(epochs int) {
	n.t.Helper()
	until(n.t.(*testing.T), "it holds the network's epochs", func() bool {
		s := n.status()
		return s.EpochsHeld == epochs && s.EpochsLacking == 0 && !s.PackingWaits
	})
}

// epochsOf are the epoch keys in a data directory on which no node runs.
func epochsOf(t *testing.T, n *node) map[uint32][32]byte {
	t.Helper()
	self, err := identity.Open(vfs.Default, filepath.Join(n.Data(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint32][32]byte{}
	for _, number := range self.Epochs() {
		if all[number], err = self.Epoch(number); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestEpochKeysReachWhoJoinsAndTurnOnRemoval(t *testing.T) {
	a := start(t, at("Mercy"), packing)
	a.keyed(1) // at once
	first := a.packs(301)
	b := start(t, joining("Grace", a, a.token()), packing)
	c := start(t, joining("Hope", b, b.token()), packing)
	w := start(t, joining("Tower", a, a.token()), func(o *proc.Options) { o.Args = append(o.Args, "--witness") })
	for _, n := range []*node{b, c} {
		n.keyed(1)
	}
	second, third := b.packs(302), c.packs(303)
	backup := filepath.Join(t.TempDir(), "backup")
	b.cli(0, "backup", backup, "--data", b.Data())
	gone := c.id()
	a.cli(0, "remove", gone, "--data", a.Data())
	b.kill() // before it has the new epoch, or after
	a.keyed(2)
	b.restart()
	b.keyed(2)
	late := start(t, joining("Peace", b, b.token()), packing)
	late.keyed(2) // those of before, too
	fourth, fifth := a.packs(304), late.packs(305)
	if s := w.status(); s.EpochsHeld != 0 || s.EpochsLacking != 0 {
		t.Errorf("the witness: %d held, %d lacking", s.EpochsHeld, s.EpochsLacking)
	}
	until(t, "it knows that it was removed", func() bool { return strings.Contains(c.Log(), "removed this node") })
	sixth := c.packs(306) // it goes on for those around it
	c.cget(slices.Concat(third, sixth)).same(t, "C-GET from the removed node", slices.Concat(third, sixth))

	// A start brings back from the catalogue what keys/ has lost.
	b.stop()
	if err := os.Remove(filepath.Join(b.Data(), "keys", "epochs")); err != nil {
		t.Fatal(err)
	}
	again(t, b)
	b.keyed(2)
	b.cget(second).same(t, "C-GET after the epoch keys were lost", second)
	b.stop()
	// So does a restored node, of what came after the backup.
	restored := filepath.Join(t.TempDir(), "restored")
	a.cli(0, "restore", backup, "--data", restored)
	r := start(t, at("Grace"), packing, func(o *proc.Options) { o.Data = restored })
	r.keyed(2)
	r.cget(second).same(t, "C-GET from the restored node", second)
	r.packs(307)

	a.cget(slices.Concat(first, fourth)).same(t, "C-GET where the network was founded", slices.Concat(first, fourth))
	for _, n := range []*node{a, c, w, late, r} {
		if strings.Contains(n.Log(), "packing failed") {
			t.Errorf("packing failed:\n%s", tail(n.Log(), 30))
		}
		n.stop()
	}
	late.restart()
	late.cget(fifth).same(t, "C-GET where a node joined late", fifth)
	late.stop()
	want := epochsOf(t, a)
	for name, n := range map[string]*node{"Grace": r, "Peace": late} {
		got := epochsOf(t, n)
		for number, key := range want {
			if got[number] != key || len(got) != len(want) {
				t.Errorf("%s holds other epochs than Mercy", name)
			}
		}
	}
	if old := epochsOf(t, c); len(want) != 2 || len(old) != 1 || old[1] != want[1] {
		t.Errorf("the network has %d epochs, who was removed %d", len(want), len(old))
	}
	if len(epochsOf(t, w)) != 0 {
		t.Error("the witness has epoch keys")
	}
}

// What a recovered network packs, those that were removed from it cannot open.
func TestTheEpochTurnsInARecoveredNetwork(t *testing.T) {
	a := start(t, at("Mercy"), packing)
	b := start(t, joining("Grace", a, a.token()), packing)
	b.keyed(1)
	stored, gone := b.packs(311), a.id()
	until(t, "both know the study", func() bool { return a.studies() == 1 && b.studies() == 1 })
	a.kill() // for good, and with it the only voter
	b.stop()
	b.cli(0, "recover", "--yes", "--data", b.Data())
	again(t, b)
	b.keyed(1)
	b.cget(stored).same(t, "C-GET from the survivor", stored)
	until(t, "the survivor leads", func() bool { return b.status().Leader == b.id() })
	b.cli(0, "remove", gone, "--data", b.Data())
	b.keyed(2)
	later := b.packs(312)
	c := start(t, joining("Hope", b, b.token()), packing)
	began := time.Now()
	c.keyed(2)
	t.Logf("epoch keys %v after the node was ready", time.Since(began).Round(time.Millisecond))
	b.kill()
	b.restart()
	b.cget(slices.Concat(stored, later)).same(t, "C-GET from the survivor", slices.Concat(stored, later))
	b.verifyClean()
}
