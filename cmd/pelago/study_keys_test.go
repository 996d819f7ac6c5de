package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/identity"
	"pelago/node/keyring"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard/keys"
)

// What nodes announce in the catalogue is kept in keys/, in its order, and what is
// wrapped anew beside the former.
func TestStudyKeysOfTheCatalogueAreKeptInTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		self, err := identity.Open(fs, "keys")
		if err != nil {
			t.Fatal(err)
		}
		ring, err := keys.Open(fs, "keys", self)
		if err != nil {
			t.Fatal(err)
		}
		c, err := catalog.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}})
		if err != nil {
			t.Fatal(err)
		}
		studies, err := keyring.OpenStudies(keyring.StudiesOptions{FS: fs, Dir: "keys", Ring: ring, From: agreed{c}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		solo := alone.New(c)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- studies.Run(ctx) }()
		var all []*catalog.KeyFact
		announce := func(k catalog.KeyFact) {
			t.Helper()
			if results, err := solo.Do(&k); err != nil || results[0] != nil {
				t.Fatalf("%v, %v", results, err)
			}
			all = append(all, &k)
		}
		for i := range 20 {
			announce(catalog.KeyFact{Origin: fmt.Sprint("n", i%3), Study: fmt.Sprint("1.2.", i), ID: [16]byte{1, byte(i)}, Epoch: 1})
		}
		anew := *all[4]
		anew.Epoch, anew.Wrapped[0] = 7, 1
		announce(anew)
		time.Sleep(time.Second)
		if studies.At() != uint64(len(all)) {
			t.Errorf("at %d of %d", studies.At(), len(all))
		}
		for i, k := range all {
			want := keys.StudyKey{ID: k.ID, Study: k.Study, Origin: k.Origin, Epoch: k.Epoch, Wrapped: k.Wrapped}
			if got, err := ring.Wrapped(k.ID); err != nil || got != want && i != 4 {
				t.Errorf("key %d: %+v, %v", i, got, err)
			}
		}
		studies.Replaced()
		if studies.At() != 0 {
			t.Error("it goes on where it was")
		}
		if _, err := solo.Do(all[0]); err != nil { // something changes
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if studies.At() != uint64(len(all)) {
			t.Errorf("from the beginning: at %d of %d", studies.At(), len(all))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := ring.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
