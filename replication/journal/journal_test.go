package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// source is a node's instances in memory.
type source struct {
	mu     sync.Mutex
	count  map[seriesName]uint64
	log    []seriesName // by local number, from 1
	broken map[seriesName]error
	asked  int
}

func newSource() *source {
	return &source{count: map[seriesName]uint64{}, broken: map[seriesName]error{}}
}

// store adds an instance and returns its local number.
func (s *source) store(study, series string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := seriesName{study, series}
	s.count[name]++
	s.log = append(s.log, name)
	return uint64(len(s.log))
}

func (s *source) SeriesFact(_ context.Context, study, series string) (*catalog.SeriesFact, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	name := seriesName{study, series}
	if err := s.broken[name]; err != nil {
		return nil, err
	}
	if s.count[name] == 0 {
		return nil, fault.New(fault.NotFound, "nothing of it")
	}
	return &catalog.SeriesFact{
		Origin: "n", Site: "s", AsOf: uint64(len(s.log)), Study: study, Series: series, Instances: s.count[name],
		Attributes: catalogtest.Dataset(map[dict.Tag]string{dict.PatientID: study, dict.Modality: "CT"}),
	}, nil
}

func (s *source) After(_ context.Context, after uint64, yield func(uint64, string, string) error) error {
	s.mu.Lock()
	log := slices.Clone(s.log)
	s.mu.Unlock()
	for i := after; i < uint64(len(log)); i++ {
		if err := yield(i+1, log[i].study, log[i].series); err != nil {
			return err
		}
	}
	return nil
}

// node is what a journal stands between.
type node struct {
	db *pebble.DB
	c  *catalog.Catalog
	j  *Journal
}

func openNode(t testing.TB, fs vfs.FS) *node {
	t.Helper()
	db, err := pebble.Open("store", &pebble.Options{FS: fs, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(catalog.Options{FS: fs, Dir: "catalog"})
	if err != nil {
		t.Fatal(err)
	}
	j, err := Open(db, c)
	if err != nil {
		t.Fatal(err)
	}
	return &node{db, c, j}
}

func (n *node) close(t testing.TB) {
	t.Helper()
	if err := errors.Join(n.c.Close(), n.db.Close()); err != nil {
		t.Error(err)
	}
}

// run starts the journal and returns what ends it.
func (n *node) run(t testing.TB, s Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.j.Run(ctx, s) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func instances(t testing.TB, c *catalog.Catalog, study string) uint64 {
	t.Helper()
	s, err := c.Study(study)
	if fault.Is(err, fault.NotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Instances
}

func TestSettleFindsWhatWasJustStored(t *testing.T) {
	n, s := openNode(t, vfs.NewMem()), newSource()
	defer n.close(t)
	defer n.run(t, s)()
	for i := range 50 {
		for range 3 {
			n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
		}
		if err := n.j.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := instances(t, n.c, "1.2"), uint64(3*(i+1)); got != want {
			t.Fatalf("after settling %d instances are known, want %d", got, want)
		}
	}
	if n.j.Pending() != 0 {
		t.Errorf("%d facts pending after settling", n.j.Pending())
	}
}

func TestSettleIsNotStarvedByThoseWhoKeepStoring(t *testing.T) {
	n, s := openNode(t, vfs.NewMem()), newSource()
	defer n.close(t)
	defer n.run(t, s)()
	ctx, cancel := context.WithCancel(t.Context())
	var storing sync.WaitGroup
	storing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			study := fmt.Sprintf("1.%d", i%40)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			if i%20 == 0 {
				time.Sleep(time.Millisecond) // a sender's pace, not a wait for an event
			}
		}
	})
	// Who is starved waits for as long as the others store, which is for ever; a
	// slow machine is given time.
	waiting, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	for range 50 {
		if err := n.j.Settle(waiting); err != nil {
			t.Errorf("Settle under load: %v", err)
			break
		}
	}
	cancel()
	storing.Wait()
}

func TestAgainMakesAFactWithoutMovingTheCursor(t *testing.T) {
	fs := vfs.NewMem()
	n, s := openNode(t, fs), newSource()
	stop := n.run(t, s)
	n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
	late := s.store("1.3", "1.3.1") // its Dirty is still to come
	s.mu.Lock()
	s.count[seriesName{"1.2", "1.2.3"}] = 7 // a decision or a deletion
	s.mu.Unlock()
	n.j.Again("1.2", "1.2.3")
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := instances(t, n.c, "1.2"); got != 7 {
		t.Errorf("%d instances are known, want 7", got)
	}
	stop()
	n.close(t)
	// A start announces what came and was never named.
	n = openNode(t, fs)
	defer n.close(t)
	defer n.run(t, s)()
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := instances(t, n.c, "1.3"); got != 1 {
		t.Errorf("instance %d, stored and not named: %d are known", late, got)
	}
}

func TestAppendAnswersEachCommand(t *testing.T) {
	n, s := openNode(t, vfs.NewMem()), newSource()
	defer n.close(t)
	stop := n.run(t, s)
	n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	results, err := n.j.Append(t.Context(), &catalog.TombstoneFact{Study: "1.2", Tick: 10, By: "op"}, &catalog.RestoreFact{Study: "9.9", Tick: 11})
	if err != nil {
		t.Fatal(err)
	}
	if results[0] != nil || !fault.Is(results[1], fault.NotFound) {
		t.Errorf("results %v, want nil and not found", results)
	}
	if _, deleted := n.c.Deleted("1.2", "1.2.3", "1"); !deleted {
		t.Error("the tombstone is not applied")
	}
	stop()
	if _, err := n.j.Append(t.Context(), &catalog.TombstoneFact{Study: "1.2"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Append after Run: %v, want unavailable", err)
	}
}

func TestSeriesThatCannotBeToldDoesNotHoldUpOthers(t *testing.T) {
	n, s := openNode(t, vfs.NewMem()), newSource()
	defer n.close(t)
	defer n.run(t, s)()
	bad := s.store("1.1", "1.1.1")
	s.broken[seriesName{"1.1", "1.1.1"}] = errors.New("unreadable")
	n.j.Dirty(bad, "1.1", "1.1.1")
	n.j.Dirty(s.store("1.2", "1.2.1"), "1.2", "1.2.1")
	if err := n.j.Settle(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Settle: %v, want unavailable", err)
	}
	if instances(t, n.c, "1.2") != 1 {
		t.Error("the other series is not announced")
	}
	n.j.mu.Lock()
	defer n.j.mu.Unlock()
	if n.j.state.cursor >= bad {
		t.Errorf("the cursor %d passed instance %d, which nobody announced", n.j.state.cursor, bad)
	}
}

// Every instance that the source holds is known after any crash and a restart,
// every Append that was answered stands, and nothing is counted twice.
func TestCrashLosesNoFact(t *testing.T) {
	const crashes = 150
	for seed := range uint64(crashes) {
		r := rand.New(rand.NewPCG(seed, 7))
		fs, s := vfs.NewCrashableMem(), newSource()
		tombstones := map[string]bool{}
		var copied *vfs.MemFS
		n := openNode(t, fs)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.j.Run(ctx, s) }()
		steps, crash := 60, r.IntN(60)
		for i := range steps {
			study := fmt.Sprintf("1.2.%d", r.IntN(8))
			number := s.store(study, study+fmt.Sprintf(".%d", r.IntN(2)))
			name := s.log[number-1]
			n.j.Dirty(number, name.study, name.series)
			switch r.IntN(6) {
			case 0:
				if err := n.j.Settle(ctx); err != nil {
					t.Fatal(err)
				}
			case 1:
				n.j.Flush()
			case 2:
				dead := fmt.Sprintf("9.%d", i)
				if _, err := n.j.Append(ctx, &catalog.TombstoneFact{Study: dead, Tick: 1}); err != nil {
					t.Fatal(err)
				}
				tombstones[dead] = true
			}
			if i == crash {
				copied = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
				break
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		n.close(t)

		n = openNode(t, copied)
		stop := n.run(t, s)
		waitFor(t, n.j, s)
		for study := range maps.Keys(tombstones) {
			if _, ok := n.c.Deleted(study, "", ""); !ok {
				t.Fatalf("seed %d: an answered tombstone is lost", seed)
			}
		}
		want := map[string]uint64{}
		for name, count := range s.count {
			want[name.study] += count
		}
		for study, count := range want {
			if got := instances(t, n.c, study); got != count {
				t.Fatalf("seed %d: study %s has %d instances, want %d", seed, study, got, count)
			}
		}
		stop()
		n.close(t)
	}
}

// waitFor waits until all that a source holds has been announced.
func waitFor(t testing.TB, j *Journal, s *source) {
	t.Helper()
	// The last instance is dirtied again, after what Run announces by itself.
	for {
		if err := j.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		j.mu.Lock()
		idle := j.announced && len(j.series.dirty) == 0 && len(j.series.flying) == 0
		changed := j.changed
		j.mu.Unlock()
		if idle {
			return
		}
		<-changed
	}
}

func TestOpenRefusesACatalogueOlderThanWhatWasDropped(t *testing.T) {
	fs, s := vfs.NewMem(), newSource()
	n := openNode(t, fs)
	stop := n.run(t, s)
	n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := n.j.prune(); err != nil {
		t.Fatal(err)
	}
	n.close(t)
	if err := fs.RemoveAll("catalog"); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open("store", &pebble.Options{FS: fs, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := catalog.Open(catalog.Options{FS: fs, Dir: "catalog"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Open(db, c); !fault.Is(err, fault.Corrupt) {
		t.Errorf("Open: %v, want corrupt", err)
	}
}

func TestStoreOlderThanTheCatalogueOpensANewIncarnation(t *testing.T) {
	fs, s := vfs.NewMem(), newSource()
	n := openNode(t, fs)
	stop := n.run(t, s)
	n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	n.close(t)
	if err := fs.RemoveAll("store"); err != nil {
		t.Fatal(err)
	}
	s.store("1.3", "1.3.1")
	n = openNode(t, fs)
	defer n.close(t)
	if n.j.state.incarnation != 2 {
		t.Errorf("incarnation %d, want 2", n.j.state.incarnation)
	}
	defer n.run(t, s)()
	waitFor(t, n.j, s)
	if instances(t, n.c, "1.3") != 1 {
		t.Error("what was stored meanwhile is not announced")
	}
}

func TestRottenBatchIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := newSource()
	n := openNode(t, fs)
	stop := n.run(t, s)
	n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	row, closer, err := n.db.Get(batchKey(1))
	if err != nil {
		t.Fatal(err)
	}
	rotten := slices.Clone(row)
	closer.Close()
	rotten[3] ^= 1
	if err := n.db.Set(batchKey(1), rotten, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(n.db, n.c); !fault.Is(err, fault.Corrupt) {
		t.Errorf("Open: %v, want corrupt", err)
	}
	n.close(t)
}
