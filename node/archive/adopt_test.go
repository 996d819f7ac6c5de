package archive

import (
	"context"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/shard/bulk"
)

func TestAStartDropsOnlyTablesThatWereAnnounced(t *testing.T) {
	mem, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(mem, keys))
	for n := range 8 {
		b.store(serial(n))
	}
	b.pack()
	make := func(announced bool) bulk.Ref {
		table, err := b.bulk.NewTable(bulk.Hot)
		if err != nil {
			t.Fatal(err)
		}
		w, err := table.Add()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("what nobody refers to")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if announced {
			if err := b.announce(table.Number()); err != nil {
				t.Fatal(err)
			}
		}
		refs, err := table.Commit(context.Background())
		if err != nil || refs[0].Table != table.Number() {
			t.Fatalf("%v, %v", refs, err)
		}
		return refs[0]
	}
	// What a crash leaves, and what a store/ that is older than bulk/ does not know.
	crashed, unknown := make(true), make(false)
	b.close()
	b = open(t, testOptions(mem, keys))
	defer b.close()
	held := map[bulk.Ref]bool{}
	if err := b.bulk.Refs(bulk.Hot, func(r bulk.Ref) error { held[r] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if held[crashed] || !held[unknown] {
		t.Errorf("the announced table is there: %t; the unknown one: %t", held[crashed], held[unknown])
	}
	for n := range 8 {
		b.same(serial(n))
	}
	report, err := b.Verify(context.Background(), nil)
	if err != nil || len(report.Findings) != 1 || !strings.Contains(report.Findings[0].Detail, "no row names") {
		t.Errorf("%+v, %v", report, err)
	}
}

// A table may be lost before the segments go that its instances came from.
func TestStagedBytesOfALostPackAreTakenAgain(t *testing.T) {
	mem, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(mem, keys))
	for n := range 8 {
		b.store(serial(n))
	}
	b.pack()
	staged := len(files(t, mem, "data/staging"))
	b.close()
	if staged == 0 {
		t.Fatal("the test needs a segment that stays")
	}
	for _, name := range files(t, mem, "data/bulk/tables") {
		if strings.HasSuffix(name, ".sst") {
			if err := mem.Remove("data/bulk/tables/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	b = open(t, testOptions(mem, keys))
	for n := range 8 {
		b.same(serial(n))
	}
	b.pack()
	b.sound()
	b.close()
	b = open(t, testOptions(mem, keys))
	defer b.close()
	for n := range 8 {
		b.same(serial(n))
	}
	if r := b.sound(); r.Packs == 0 {
		t.Error("nothing was packed again")
	}
}

func files(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}
