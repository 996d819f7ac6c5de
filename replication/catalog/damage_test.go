package catalog_test

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard/bulk/bulktest"
)

// Reading a rotten block is an error of that read, not the end of the process.
func TestARottenBlockFailsTheReadAlone(t *testing.T) {
	mem := vfs.NewCrashableMem()
	c := openMem(t, mem)
	const studies = 400
	if err := catalogtest.Load(c, 1, studies); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := mem.List("catalog")
	if err != nil {
		t.Fatal(err)
	}
	failed, served := 0, 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		name = "catalog/" + name
		info, err := mem.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < info.Size(); at += max(1, info.Size()/4) {
			fs := mem.CrashClone(vfs.CrashCloneCfg{})
			bulktest.Rot(t, fs, name, at)
			c, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: wordIndexer{}})
			if err != nil {
				continue // it says so
			}
			for i := uint64(0); i < studies; i += 9 {
				if _, err := c.Study(catalogtest.Make(1, i).UID); err != nil {
					failed++
				} else {
					served++
				}
			}
			_ = c.Verify(t.Context(), func(error) {}) // an error is what it should be
			_ = c.Close()
			if failed > 0 && served > 0 {
				return
			}
		}
	}
	t.Errorf("%d reads failed, %d did not: the test proves nothing", failed, served)
}
