package catalog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// behindAndAhead makes a catalogue that has little, and a checkpoint of one that
// has more, in dir of the same file system.
func behindAndAhead(t *testing.T, fs vfs.FS, dir string) (c *catalog.Catalog, hash [32]byte) {
	t.Helper()
	v := values{dict.PatientID: "P1", dict.PatientName: "Doe^Jane", dict.Modality: "CT", dict.StudyDate: "20240102"}
	c = openMem(t, fs)
	apply(t, c, fact("a", "1.0", "1.0.1", 1, 3, v))
	other, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "other", CacheBytes: 1 << 20, Indexer: wordIndexer{}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	apply(t, other, fact("z", "1.4", "1.4.1", 1, 9, v)) // names have other numbers there
	apply(t, other, fact("a", "1.0", "1.0.1", 1, 3, v))
	for i := range 4 {
		uid := fmt.Sprintf("1.%d", i)
		apply(t, other, fact("b", uid, uid+".7", uint64(i), 7, v))
	}
	apply(t, other, &catalog.TombstoneFact{Study: "1.2", Tick: 1})
	apply(t, other, keyOf("b", "1.1", 1, 1), keyOf("b", "1.2", 2, 1), keyOf("b", "1.1", 1, 2))
	apply(t, other, sealOf("b", "1.1", "1.1.7", 1, 1), sealOf("b", "1.2", "1.2.7", 2, 2))
	if err := other.Ahead([]*catalog.SeriesFact{fact("z", "1.3", "1.3.9", 99, 2, v)}); err != nil {
		t.Fatal(err)
	}
	if err := other.Checkpoint(dir); err != nil {
		t.Fatal(err)
	}
	hash, _ = other.StateHash()
	return c, hash
}

func TestReplaceTakesACopyUnderItsUsers(t *testing.T) {
	fs := vfs.NewMem()
	c, want := behindAndAhead(t, fs, "copy")
	if hash, _, err := c.Prepare(t.Context(), "copy", "a"); err != nil || hash != want {
		t.Fatal(hash, err)
	}
	before := answers(t, c)
	applied := c.Applied()
	if _, ok := c.Results(applied); !ok {
		t.Fatal("nothing was applied before")
	}
	var readers sync.WaitGroup
	seen := make([][]string, 4)
	end := make(chan struct{})
	for i := range seen {
		readers.Go(func() {
			for {
				got := answers(t, c)
				if n := len(seen[i]); n == 0 || seen[i][n-1] != got {
					seen[i] = append(seen[i], got)
				}
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	changed := c.Changed()
	if err := c.Replace(t.Context(), "copy"); err != nil {
		t.Fatal(err)
	}
	<-changed
	close(end)
	readers.Wait()
	after := answers(t, c)
	for _, s := range seen {
		if last := s[len(s)-1]; len(s) > 2 || last != after && last != before || len(s) == 2 && s[0] != before {
			t.Errorf("a reader saw %d states", len(s))
		}
	}
	if hash, index := c.StateHash(); hash != want || index != c.Applied() {
		t.Error("another state than the copy's")
	}
	if _, ok := c.Deleted("1.2", "", ""); !ok {
		t.Error("a tombstone of the copy does not stand")
	}
	if _, ok := c.Results(applied); ok {
		t.Error("results of what was replaced are told still")
	}
	verify(t, c)
	// It goes on, with names and words of its own.
	apply(t, c, fact("new", "1.5", "1.5.1", 1, 1, values{dict.PatientID: "P2", dict.Modality: "MR"}), fact("b", "1.0", "1.0.8", 50, 1, values{dict.PatientID: "P1"}))
	if got := kinds(apply(t, c, keyOf("b", "1.3", 3, 1), sealOf("b", "1.3", "1.3.7", 3, 3), sealOf("b", "1.1", "1.1.7", 2, 1))); got != "ok, ok, conflict" {
		t.Errorf("keys and seals after it: %s", got)
	}
	verify(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openMem(t, fs)
	defer c.Close()
	verify(t, c)
	if left, err := fs.List(""); err != nil || slices.Contains(left, "copy.tables") {
		t.Error(left, err)
	}
}

func TestACrashWhileReplacingLeavesTheOldOrTheNew(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	disk := vfs.NewCrashableMem()
	var clones []*vfs.MemFS
	var mu sync.Mutex
	watching := false
	fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if watching && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			clones = append(clones, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random}))
		}
		return nil
	}))
	c, want := behindAndAhead(t, fs, "copy")
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	old, _ := c.StateHash()
	mu.Lock()
	watching = true
	mu.Unlock()
	if _, _, err := c.Prepare(t.Context(), "copy", "a"); err != nil {
		t.Fatal(err)
	}
	if err := c.Replace(t.Context(), "copy"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	watching = false
	clones = append(clones, disk.CrashClone(vfs.CrashCloneCfg{}))
	mu.Unlock()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	olds, news := 0, 0
	for i, clone := range clones {
		after := openMem(t, clone)
		hash, _ := after.StateHash()
		switch hash {
		case old:
			olds++
			if news > 0 {
				t.Errorf("crash %d of %d: the old state again", i, len(clones))
			}
		case want:
			news++
		default:
			t.Errorf("crash %d of %d left another state", i, len(clones))
		}
		verify(t, after)
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if olds < 5 || news < 1 {
		t.Errorf("%d crashes before, %d after", olds, news)
	}
}

func TestPrepareTellsACopyThatIsNotWhole(t *testing.T) {
	fs := vfs.NewMem()
	c, want := behindAndAhead(t, fs, "copy")
	defer c.Close()
	names, err := fs.List("copy")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range names {
		if ext := filepath.Ext(name); ext != ".log" && ext != ".sst" {
			continue
		}
		dir := "without " + name
		if _, err := vfs.Clone(fs, fs, "copy", dir); err != nil {
			t.Fatal(err)
		}
		if err := fs.Remove(fs.PathJoin(dir, name)); err != nil {
			t.Fatal(err)
		}
		damaged++
		if hash, _, err := c.Prepare(t.Context(), dir, "a"); err == nil && hash == want {
			t.Errorf("nobody misses %s", name)
		}
	}
	if damaged == 0 {
		t.Error("nothing was damaged")
	}
}

func TestReplaceWaitsForReadersAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := behindAndAhead(t, vfs.NewMem(), "copy")
		defer c.Close()
		if _, _, err := c.Prepare(t.Context(), "copy", "a"); err != nil {
			t.Fatal(err)
		}
		before := answers(t, c)
		v := c.View()
		if err := c.Replace(t.Context(), "copy"); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("replaced under a reader: %v", err)
		}
		if answers(t, c) != before {
			t.Error("something has changed")
		}
		go func() {
			time.Sleep(10 * time.Second)
			c.View().Close() // who reads may read more
			v.Close()
		}()
		start := time.Now()
		if err := c.Replace(t.Context(), "copy"); err != nil || time.Since(start) != 10*time.Second {
			t.Error(err, time.Since(start))
		}
		if err := c.Replace(t.Context(), "copy"); !fault.Is(err, fault.Invalid) {
			t.Errorf("replaced by what nobody prepared: %v", err)
		}
		if _, _, err := c.Prepare(t.Context(), "copy", "a"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		v = c.View()
		cancel()
		if err := c.Replace(ctx, "copy"); !fault.Is(err, fault.Canceled) {
			t.Error(err)
		}
		v.Close()
		if _, err := catalogtest.Alone(c).Do(fact("a", "1.9", "1.9.1", 1, 1, values{dict.PatientID: "P"})); err != nil {
			t.Error(err)
		}
		verify(t, c)
	})
}
