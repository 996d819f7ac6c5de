package journal

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// whatever gives proposals random fortunes, most of them good.
func whatever(seed uint64) func() fortune {
	r := randomly(seed)
	return func() fortune {
		if r.IntN(2) == 0 {
			return committed
		}
		return fortune(r.IntN(int(fortunes)))
	}
}

// Whatever becomes of proposals, and whether or not the proposer knows, each
// batch is committed once and in its order.
func TestEveryBatchIsCommittedOnce(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			o, r := newOrder(t), randomly(seed)
			o.fortune, o.delay = whatever(seed), time.Duration(r.IntN(300))*time.Millisecond
			n, s := openNode(t, vfs.NewMem(), o), newSource()
			defer n.close(t)
			defer n.run(t, s)()
			for range 40 {
				study := fmt.Sprint("1.2.", r.IntN(8))
				n.j.Dirty(s.store(study, study+".1"), study, study+".1")
				if r.IntN(3) == 0 {
					n.j.Ended(study)
				}
				time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
			}
			n.drained(t)
			o.agree(t, s, fmt.Sprint("seed ", seed))
			st := n.j.Status()
			if st.Incarnation != 1 || st.Failing != nil || st.Refused != nil || n.j.Rejected() != 0 {
				t.Errorf("seed %d: at the end %+v, %d rejected", seed, st, n.j.Rejected())
			}
			if taken := o.taken(t); taken != st.Logged {
				t.Errorf("seed %d: %d batches are committed, %d were logged", seed, taken, st.Logged)
			}
		})
	}
}

// taken returns the number of batches that the network has taken, each of which
// moved the cursor by one.
func (o *order) taken(t testing.TB) (taken uint64) {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var last catalog.Cursor
	for i := range o.entries {
		if err := o.bringTo(c, i+1); err != nil {
			t.Fatal(err)
		}
		now, _, err := c.Cursor("n")
		if err != nil {
			t.Fatal(err)
		}
		if now.Number != last.Number || now.Incarnation != last.Incarnation {
			taken++
		}
		last = now
	}
	return taken
}

// Days without the network must not fill the disk, nor the network afterwards.
func TestCutOffForDaysTheJournalKeepsNoMoreThanItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		cut := true
		o.fortune = func() fortune {
			if cut {
				return lost
			}
			return committed
		}
		fs := vfs.NewCrashableMem()
		n, s := openNode(t, fs, o), newSource()
		stop := n.run(t, s)
		days := 3
		if testing.Short() {
			days = 1
		}
		for hour := range days * 24 {
			for minute := range 60 {
				study := fmt.Sprintf("1.%d.%d", hour, minute/10)
				n.j.Dirty(s.store(study, study+".1"), study, study+".1")
				time.Sleep(time.Minute)
			}
			if err := n.j.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n.knows(t, s, "cut off")
		st := n.j.Status()
		if st.Logged > maxBacklog || st.Committed != 0 || !st.Left || st.Failing == nil {
			t.Errorf("after %d days cut off: %+v, want at most %d batches", days, st, maxBacklog)
		}
		if kept, most := n.j.Kept(), time.Duration(days)*24*time.Hour; kept > most || kept < most-time.Minute {
			t.Errorf("after %d days cut off it has kept something for %v", days, kept)
		}
		if limit := int(time.Duration(days) * 24 * time.Hour / (maxPause / 2)); o.proposals > limit+retryBudget {
			t.Errorf("%d proposals in vain, want at most %d", o.proposals, limit)
		}
		n.j.mu.Lock()
		if held := len(n.j.series.dirty) + len(n.j.series.recent); held > 10 {
			t.Errorf("%d series are held in memory", held)
		}
		n.j.mu.Unlock()
		// What an operator decides is logged nevertheless, and the node starts again
		// after a crash.
		n.j.Again("1.0.0", "1.0.0.1")
		if err := n.j.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := n.j.Status().Logged; got != st.Logged+1 {
			t.Errorf("%d batches after a decision, want one more than %d", got, st.Logged)
		}
		copied := fs.CrashClone(vfs.CrashCloneCfg{})
		stop()
		n.close(t)
		n = openNode(t, copied, o)
		defer n.close(t)
		defer n.run(t, s)()
		if err := n.j.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.knows(t, s, "started again")

		before := o.proposals
		cut = false
		n.drained(t)
		o.agree(t, s, "healed")
		if kept := n.j.Kept(); kept != 0 {
			t.Errorf("healed, and something is kept for %v", kept)
		}
		if after := o.proposals - before; after > maxBacklog+10 {
			t.Errorf("%d proposals after healing", after)
		}
		if st := n.j.Status(); st.Incarnation != 1 || o.taken(t) != st.Logged {
			t.Errorf("%d batches are committed: %+v", o.taken(t), st)
		}
	})
}

// However its instances lie among those of others, a series is announced once.
func TestAStartAnnouncesASeriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 3 * maxFacts
		s := newSource()
		for range 3 {
			for i := range count {
				study := fmt.Sprint("1.", i)
				s.store(study, study+".1")
			}
		}
		n := openNode(t, vfs.NewMem(), newOrder(t))
		defer n.close(t)
		defer n.run(t, s)()
		n.drained(t)
		n.o.agree(t, s, "announced")
		if s.asked != count {
			t.Errorf("%d facts of %d series were made", s.asked, count)
		}
	})
}

// A node that the network does not know is not to keep knocking.
func TestWhoIsRefusedAsksAgainOnceHeIsAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &order{}
		o.decide(t, catalogtest.Member("founder", "s"))
		n, s := openNode(t, vfs.NewMem(), o), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		for i := range 20 {
			study := fmt.Sprint("1.", i)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			time.Sleep(time.Minute)
		}
		st := n.j.Status()
		if o.proposals != 1 || !fault.Is(st.Refused, fault.Denied) || st.Logged != 20 {
			t.Errorf("after %d proposals: %+v", o.proposals, st)
		}
		o.decide(t, catalogtest.Member("n", "s"))
		if err := o.bring(n.c); err != nil {
			t.Fatal(err)
		}
		n.drained(t)
		o.agree(t, s, "a member")

		o.decide(t, &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "n", Value: []byte("yes")})
		if err := o.bring(n.c); err != nil {
			t.Fatal(err)
		}
		before := o.proposals
		for i := range 20 {
			study := fmt.Sprint("2.", i)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			time.Sleep(time.Minute)
		}
		if st := n.j.Status(); o.proposals != before+1 || !fault.Is(st.Refused, fault.Denied) {
			t.Errorf("revoked, %d proposals: %+v", o.proposals-before, st)
		}
	})
}

// told stores so many instances, each in a study of its own, and waits until the
// network knows them.
func (n *node) told(t testing.TB, s *source, of string, count int) {
	t.Helper()
	for i := range count {
		study := fmt.Sprint(of, ".", i)
		n.j.Dirty(s.store(study, study+".1"), study, study+".1")
		n.j.Ended(study)
		time.Sleep(2 * gather)
	}
	n.drained(t)
}

// What a store from before the catalogue would log next has numbers that are used.
func TestAnOldStoreBesideANewerCatalogueBeginsAnewIncarnation(t *testing.T) {
	for _, c := range []struct {
		name   string
		lost   int  // of the six instances that the backup lacks
		behind bool // the catalogue is as old as the store, and is brought forward while the node runs
	}{
		{"the catalogue is newer", 0, false},
		{"the catalogue is newer, and instances are lost", 2, false},
		{"the network is newer", 0, true},
		{"the network is newer, and instances are lost", 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs, s, o := vfs.NewCrashableMem(), newSource(), newOrder(t)
				n := openNode(t, fs, o)
				stop := n.run(t, s)
				n.told(t, s, "1", 3)
				if err := n.j.prune(); err != nil { // so that its rows tell nothing
					t.Fatal(err)
				}
				stop()
				n.close(t)
				backup := fs.CrashClone(vfs.CrashCloneCfg{})

				n = openNode(t, fs, o)
				stop = n.run(t, s)
				n.told(t, s, "1", 3) // more of each
				stop()
				n.close(t)
				s.cut(6 - c.lost)
				if c.behind {
					n = openNode(t, backup, o)
				} else {
					if err := fs.RemoveAll("store"); err != nil {
						t.Fatal(err)
					}
					if _, err := vfs.Clone(backup, fs, "store", "store"); err != nil {
						t.Fatal(err)
					}
					n = openNode(t, fs, o)
				}
				defer n.close(t)
				defer n.run(t, s)()
				n.told(t, s, "2", 2) // under local numbers that were used before
				if st := n.j.Status(); st.Incarnation != 2 {
					t.Errorf("incarnation %d, want 2", st.Incarnation)
				}
				o.agree(t, s, "at the end")
				n.knows(t, s, "at the end")
			})
		})
	}
}

// A catalogue that was restored from a backup is brought forward by the network.
func TestAnOldCatalogueBesideANewerStoreIsBroughtForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, s, o := vfs.NewCrashableMem(), newSource(), newOrder(t)
		n := openNode(t, fs, o)
		stop := n.run(t, s)
		n.told(t, s, "1", 3)
		if err := n.j.prune(); err != nil {
			t.Fatal(err)
		}
		stop()
		n.close(t)
		if err := fs.RemoveAll("catalog"); err != nil {
			t.Fatal(err)
		}
		n = openNode(t, fs, o)
		defer n.close(t)
		defer n.run(t, s)()
		n.drained(t)
		n.knows(t, s, "asked the network")
		n.told(t, s, "2", 3)
		if st := n.j.Status(); st.Incarnation != 1 || o.taken(t) != st.Logged {
			t.Errorf("%d batches are committed: %+v", o.taken(t), st)
		}
		o.agree(t, s, "at the end")
	})
}

// A network that was recovered from a minority lacks what this node has dropped.
func TestANetworkThatLostBatchesIsToldEverythingAgain(t *testing.T) {
	for _, idle := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			fs, s, o := vfs.NewCrashableMem(), newSource(), newOrder(t)
			n := openNode(t, fs, o)
			stop := n.run(t, s)
			n.told(t, s, "1", 2)
			kept := len(o.entries)
			n.told(t, s, "2", 3)
			if err := n.j.prune(); err != nil {
				t.Fatal(err)
			}
			stop()
			n.close(t)
			o.entries = o.entries[:kept]
			if err := fs.RemoveAll("catalog"); err != nil { // it is copied from the survivor
				t.Fatal(err)
			}
			n = openNode(t, fs, o)
			defer n.close(t)
			if err := o.bring(n.c); err != nil {
				t.Fatal(err)
			}
			defer n.run(t, s)()
			if idle {
				time.Sleep(time.Second)
			} else {
				n.told(t, s, "3", 2)
			}
			n.drained(t)
			if st := n.j.Status(); st.Incarnation != 2 {
				t.Errorf("incarnation %d, want 2", st.Incarnation)
			}
			o.agree(t, s, "at the end")
		})
	}
}

// A catalogue that was copied while the node ran knows nothing of what was told
// to the one before.
func TestACopiedCatalogueIsToldAgain(t *testing.T) {
	for _, cutOff := range []int{3, 3 * maxBacklog} {
		synctest.Test(t, func(t *testing.T) {
			fs, s, o := vfs.NewMem(), newSource(), newOrder(t)
			n := openNode(t, fs, o)
			stop := n.run(t, s)
			n.told(t, s, "1", 3)
			o.fortune = func() fortune { return refused }
			for i := range cutOff {
				study := fmt.Sprint("2.", i)
				n.j.Dirty(s.store(study, study+".1"), study, study+".1")
				time.Sleep(2 * gather)
			}
			stop()
			if err := n.c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := fs.RemoveAll("catalog"); err != nil {
				t.Fatal(err)
			}
			c, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if err := o.bring(c); err != nil {
				t.Fatal(err)
			}
			n.c, n.j.catalog, n.j.ended = c, c, nil
			n.j.Replaced()
			defer n.close(t)
			defer n.run(t, s)()
			synctest.Wait()
			if err := n.j.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			n.knows(t, s, "copied")
			o.fortune = nil
			n.drained(t)
			o.agree(t, s, "healed")
			if kept := n.j.Kept(); kept != 0 {
				t.Errorf("healed, and something is kept for %v", kept)
			}
		})
	}
}

// A study of five series of a hundred images each within a minute.
func TestAStudyCostsTheNetworkLittle(t *testing.T) {
	for _, c := range []struct {
		name string
		next func(image int) int // series of an image
	}{
		{"one series after another", func(image int) int { return image / 100 }},
		{"all series at once", func(image int) int { return image % 5 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrder(t)
				n, s := openNode(t, vfs.NewMem(), o), newSource()
				defer n.close(t)
				defer n.run(t, s)()
				s.scanner, o.delay = true, 100*time.Millisecond
				const study = "1.2.840.113619.2.55.3.604688119.971.1700000000.123"
				for image := range 500 {
					series := fmt.Sprintf("1.2.840.113619.2.55.3.604688119.971.1700000000.%d", 200+c.next(image))
					n.j.Dirty(s.store(study, series), study, series)
					if image%50 == 0 { // somebody asks now and then
						if err := n.j.Settle(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Minute / 500)
				}
				n.j.Ended(study)
				n.drained(t)
				o.agree(t, s, "at the end")
				t.Logf("%d batches, %d bytes", n.j.Status().Logged, o.bytes)
				if o.bytes > 3<<10 {
					t.Errorf("%d bytes in %d batches, want at most 3 KiB", o.bytes, n.j.Status().Logged)
				}
			})
		})
	}
}

// When the network is there again, what was cut off does not wait for the end of its
// longest pause.
func TestAfterACutTheJournalGoesOnAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		sign func(t *testing.T, n *node) // of the network's being there again
		soon bool
	}{
		{"somebody leads", func(_ *testing.T, n *node) { n.j.Retry() }, true},
		{"others' entries are applied", func(t *testing.T, n *node) {
			n.o.decide(t, catalogtest.Member("another", "s"))
			if err := n.o.bring(n.c); err != nil {
				t.Error(err)
			}
		}, true},
		{"nothing tells", func(*testing.T, *node) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrder(t)
				cut := false
				o.fortune = func() fortune {
					if cut {
						return refused
					}
					return committed
				}
				n, s := openNode(t, vfs.NewMem(), o), newSource()
				defer n.close(t)
				defer n.run(t, s)()
				n.told(t, s, "1", 1)
				o.mu.Lock()
				cut = true
				o.mu.Unlock()
				n.j.Dirty(s.store("2", "2.1"), "2", "2.1")
				time.Sleep(10 * time.Minute) // no short pause is left
				o.mu.Lock()
				before := o.proposals
				for { // a pause has just begun
					o.mu.Unlock()
					time.Sleep(time.Millisecond)
					o.mu.Lock()
					if o.proposals > before {
						break
					}
				}
				cut = false
				o.mu.Unlock()
				healed := time.Now()
				c.sign(t, n)
				for n.j.Pending() > 0 {
					time.Sleep(time.Millisecond)
				}
				took := time.Since(healed)
				if c.soon && took > 2*minPause || !c.soon && took < maxPause/2-time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// What the leader refuses before it is in the order is as good as what was committed
// and refused: this node's catalogue stands where the leader's stood.
func TestWhatIsRefusedBeforeTheOrderIsLearntLikeWhatIsRefusedInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		n, s := openNode(t, vfs.NewMem(), o), newSource()
		defer n.close(t)
		o.judge = n.c.Admit
		defer n.run(t, s)()
		n.told(t, s, "1", 3)
		// Answers are lost: what is proposed again is known by then.
		once := true
		o.fortune = func() fortune {
			if once {
				once = false
				return unheard
			}
			return committed
		}
		n.told(t, s, "2", 3)
		if st := n.j.Status(); st.Incarnation != 1 || st.Failing != nil || o.judged == 0 {
			t.Errorf("after lost answers: %+v, %d refused", st, o.judged)
		}
		o.agree(t, s, "known batches refused")

		o.decide(t, &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "n", Value: []byte("yes")})
		if err := o.bring(n.c); err != nil {
			t.Fatal(err)
		}
		before := o.proposals
		for i := range 10 {
			study := fmt.Sprint("3.", i)
			n.j.Dirty(s.store(study, study+".1"), study, study+".1")
			time.Sleep(time.Minute)
		}
		if st := n.j.Status(); o.proposals != before+1 || !fault.Is(st.Refused, fault.Denied) {
			t.Errorf("revoked, %d proposals: %+v", o.proposals-before, st)
		}
	})
}

// A new incarnation says again what the network has lacked for long: it has not lacked
// it for less because of that.
func TestANewIncarnationHasKeptWhatTheOneBeforeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrder(t)
		o.fortune = func() fortune { return lost }
		n, s := openNode(t, vfs.NewMem(), o), newSource()
		defer n.close(t)
		defer n.run(t, s)()
		n.j.Dirty(s.store("1.2", "1.2.3"), "1.2", "1.2.3")
		time.Sleep(time.Hour)
		f := &catalog.SeriesFact{Origin: "n", Site: "s", AsOf: 1, Study: "1.9", Series: "1.9.1", Instances: 1}
		entry, _, err := catalog.EncodeBatch(catalogtest.SignerOf("n"), catalog.Batch{
			Node: "n", Site: "s", Incarnation: 1, Number: 1, Facts: []*catalog.SeriesFact{f},
		}, [hashBytes]byte{})
		if err != nil {
			t.Fatal(err)
		}
		o.mu.Lock()
		o.entries = append(o.entries, entry)
		o.mu.Unlock()
		if err := o.bring(n.c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := n.j.Status(); st.Incarnation != 2 {
			t.Fatalf("%+v", st)
		}
		if kept := n.j.Kept(); kept < time.Hour || kept > time.Hour+time.Minute {
			t.Errorf("kept for %v", kept)
		}
	})
}
