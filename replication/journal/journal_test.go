package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/replication/catalog/catalogtest"
)

func TestSettleFindsWhatWasJustStored(t *testing.T) {
	n, s := openNode(t, vfs.NewMem(), newOrder(t)), newSource()
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
}

func TestSettleLogsNothingThatIsNotDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := openNode(t, vfs.NewMem(), newOrder(t)), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		for range 30 { // a worklist that asks every 100 ms while a series comes in
			n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
			if err := n.j.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got := n.j.Status().Logged; got != 1 {
			t.Errorf("%d batches in 3 s, want the first", got)
		}
		n.j.Ended("1.2")
		n.drained(t)
		if got := n.j.Status().Logged; got != 2 {
			t.Errorf("%d batches at the end, want 2", got)
		}
		n.o.agree(t, s, "at the end")
	})
}

// Nobody but the sender waits for the network.
func TestNobodyWaitsForTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		o.delay = time.Hour
		n, s := openNode(t, vfs.NewMem(), o), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		for i := range 200 {
			study := fmt.Sprint("1.", i)
			began := time.Now()
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			n.j.Again(study, study+".1")
			if err := n.j.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != 0 {
				t.Fatalf("settling took %v while the network does not answer", took)
			}
			if instances(t, n.c, study) != 1 {
				t.Fatal("what was settled is not known")
			}
		}
	})
}

func TestSettleIsNotStarvedByThoseWhoKeepStoring(t *testing.T) {
	n, s := openNode(t, vfs.NewMem(), newOrder(t)), newSource()
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
	fs, o := vfs.NewMem(), newOrder(t)
	n, s := openNode(t, fs, o), newSource()
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
	n = openNode(t, fs, o)
	defer n.close(t)
	defer n.run(t, s)()
	if err := n.j.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := instances(t, n.c, "1.3"); got != 1 {
		t.Errorf("instance %d, stored and not named: %d are known", late, got)
	}
}

// Who has called Again and settled remembers it no more.
func TestWhatAgainNamesIsLoggedBeforeSettleReturns(t *testing.T) {
	fs, o := vfs.NewCrashableMem(), newOrder(t)
	o.fortune = func() fortune { return refused }
	n, s := openNode(t, fs, o), newSource()
	stop := n.run(t, s)
	for i := range 2 * maxBacklog { // beyond the bound, too
		series := fmt.Sprint("1.2.", i)
		s.store("1.2", series)
		n.j.Again("1.2", series)
		if err := n.j.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	copied := fs.CrashClone(vfs.CrashCloneCfg{})
	stop()
	n.close(t)
	n = openNode(t, copied, o)
	defer n.close(t)
	if got := instances(t, n.c, "1.2"); got != 2*maxBacklog {
		t.Errorf("%d instances are known after a crash, want %d", got, 2*maxBacklog)
	}
}

func TestSeriesThatCannotBeToldDoesNotHoldUpOthers(t *testing.T) {
	n, s := openNode(t, vfs.NewMem(), newOrder(t)), newSource()
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

// A fact that no batch takes must not keep others out of the log.
func TestFactThatNoBatchTakesStandsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := openNode(t, vfs.NewMem(), newOrder(t)), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		n.j.Dirty(s.store("1.1", "no \xff text"), "1.1", "no \xff text")
		for i := range 20 {
			series := fmt.Sprint("1.2.", i)
			n.j.Dirty(s.store("1.2", series), "1.2", series)
		}
		time.Sleep(time.Second)
		c := n.o.observe(t)
		defer c.Close()
		if got := instances(t, c, "1.2"); got != 20 {
			t.Errorf("the network knows %d of 20 series", got)
		}
	})
}

// Many facts are logged at once, in batches of bounded size.
func TestFactsThatDoNotFitOneBatchAreLoggedInSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := openNode(t, vfs.NewMem(), newOrder(t)), newSource()
		defer n.close(t)
		for i := range 2000 {
			study := fmt.Sprintf("1.2.840.113619.2.55.3.604688119.%d.%d", 1700000000+i, i)
			s.store(study, study+".1")
		}
		defer n.run(t, s)()
		n.drained(t)
		n.o.agree(t, s, "at the end")
		if st := n.j.Status(); st.Logged > 20 {
			t.Errorf("2,000 facts took %d batches", st.Logged)
		}
	})
}

func TestRottenOrForgedBatchesAreRefused(t *testing.T) {
	for name, change := range map[string]func(rows map[uint64][]byte){
		"a byte":             func(rows map[uint64][]byte) { rows[2][40] ^= 1 },
		"one is missing":     func(rows map[uint64][]byte) { rows[2] = nil },
		"the last is gone":   func(rows map[uint64][]byte) { rows[3] = nil },
		"two have changed":   func(rows map[uint64][]byte) { rows[1], rows[2] = rows[2], rows[1] },
		"one is there twice": func(rows map[uint64][]byte) { rows[4] = rows[3] },
		"another has signed": func(rows map[uint64][]byte) {
			r, b, err := decodeBatch(rows[3], catalogtest.SignerOf("n"))
			if err != nil {
				t.Fatal(err)
			}
			r.entry, r.hash = forge(t, *b, r.previous)
			rows[3] = r.encode()
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs, o := vfs.NewMem(), newOrder(t)
			o.fortune = func() fortune { return refused }
			n, s := openNode(t, fs, o), newSource()
			stop := n.run(t, s)
			for i := range 3 {
				study := fmt.Sprint("1.", i)
				s.store(study, study+".1")
				n.j.Again(study, study+".1")
				if err := n.j.Settle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			rows := map[uint64][]byte{}
			for number := uint64(1); number <= 3; number++ {
				value, closer, err := n.db.Get(batchKey(number))
				if err != nil {
					t.Fatal(err)
				}
				rows[number] = slices.Clone(value)
				closer.Close()
			}
			change(rows)
			for number, value := range rows {
				err := n.db.Set(batchKey(number), value, pebble.Sync)
				if value == nil {
					err = n.db.Delete(batchKey(number), pebble.Sync)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			n.close(t)
			if again, err := tryOpen(fs, o); !fault.Is(err, fault.Corrupt) {
				if err == nil {
					again.close(t)
				}
				t.Errorf("Open: %v, want corrupt", err)
			}
		})
	}
}
