package spread

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/pack"
)

const large = 3 << 20

func TestAPackIsSealedWithAllItsShards(t *testing.T) {
	for sites := 2; sites <= 7; sites++ {
		code, _ := shard.Default(sites)
		inWorld(t, sites, func(t *testing.T, w *world) {
			w.start()
			var ids []pack.ID
			for n := range 6 {
				ids = append(ids, w.pack(n, large+n*100_000))
			}
			small := w.pack(7, 40_000)
			for _, id := range ids {
				f := w.settled(id, code)
				if f.Revision != 0 || len(f.Elsewhere) > 0 {
					t.Errorf("%v: told otherwise at first: %+v", code, f)
				}
				row := rowOf(w.place.State(), &f.SealFact)
				want := catalog.NoShard
				for i, n := range row[:code.N()] {
					if n.ID == self {
						want = i
					}
				}
				if f.Virtual != want {
					t.Errorf("%v: shard %d is virtual, not %d", code, f.Virtual, want)
				}
			}
			w.settled(small, shard.Code{K: 1, M: code.M})
		})
	}
}

func TestAHolderThatIsDownIsWaitedForAndThenStoodInFor(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) { // 2+2 of 5: one may stand in
		w.start()
		id := idOf(1)
		away := w.rowOf(id)[1]
		if away == self {
			id = idOf(2)
			away = w.rowOf(id)[1]
		}
		w.stores[away].fail(errDown)
		w.pack(map[pack.ID]int{idOf(1): 1, idOf(2): 2}[id], large)
		w.until("sealed", func() bool { return len(w.seals(id)) == 1 })
		first := w.check(id)
		if first.Receipts != 0b1101 || len(first.Elsewhere) != 0 {
			t.Errorf("at first: %+v", first.SealFact)
		}
		if packs, bytes := w.Waiting(); packs != 1 || bytes != first.Size {
			t.Errorf("%d packs, %d bytes wait", packs, bytes)
		}
		began := time.Now()
		f := w.settled(id, shard.Code{K: 2, M: 2})
		if len(f.Elsewhere) != 1 || f.Elsewhere[0].Shard != 1 || f.Elsewhere[0].Node == away {
			t.Errorf("elsewhere %+v", f.Elsewhere)
		}
		if f.Root != first.Root || f.Revision == 0 {
			t.Errorf("told as %+v", f.SealFact)
		}
		if took := time.Since(began); took < substituteAfter/2 || took > 5*time.Minute {
			t.Errorf("stood in for after %v", took)
		}
		if n := w.rows.commits; n > 6 {
			t.Errorf("%d commits", n)
		}
	})
}

func TestWhoWaitsIsNotHeldUpByAHolderThatIsDown(t *testing.T) {
	for _, how := range []string{"refuses", "hangs"} {
		inWorld(t, 5, func(t *testing.T, w *world) {
			w.start()
			row := w.rowOf(idOf(1))
			away := row[slices.IndexFunc(row, func(n string) bool { return n != self })]
			w.stores[away].set(func(h *holder) {
				if how == "hangs" {
					h.hangs = true
				} else {
					h.down = errDown
				}
			})
			began := time.Now()
			w.packs.put(makePack(t, 1, large))
			w.Hurry(idOf(1))
			f := w.settled(idOf(1), shard.Code{K: 2, M: 2})
			if took := time.Since(began); took > hurriedStall+5*time.Second {
				t.Errorf("it %s: after %v", how, took)
			}
			if len(f.Elsewhere) != 1 {
				t.Errorf("it %s: elsewhere %+v", how, f.Elsewhere)
			}
		})
	}
}

func TestWhereNobodyStandsInShardsWaitForTheirHolder(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.stores["n01"].fail(fault.New(fault.Full, "no room"))
		var ids []pack.ID
		for n := range 20 {
			ids = append(ids, w.pack(n, 20_000+n))
		}
		ids = append(ids, w.pack(30, large))
		w.until("sealed", func() bool {
			return !slices.ContainsFunc(ids, func(id pack.ID) bool { return len(w.seals(id)) == 0 })
		})
		for _, id := range ids {
			if f := w.check(id); f.Spare() != 1 {
				t.Errorf("%b", f.Receipts)
			}
		}
		time.Sleep(20 * time.Minute)
		facts := w.facts
		w.stores["n01"].fail(nil)
		began := time.Now()
		for _, id := range ids {
			w.settled(id, shard.Code{K: 1, M: 2})
		}
		if took := time.Since(began); took > maxBack+time.Minute {
			t.Errorf("%v after it was back", took)
		}
		if news := w.facts - facts; news != len(ids) {
			t.Errorf("%d facts of %d packs", news, len(ids))
		}
	})
}

func TestSmallPacksGoInBatches(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		const n = 1500
		for i := range n {
			w.packs.put(makePack(t, i, 2000+i))
		}
		w.start()
		w.until("sealed", func() bool { packs, _ := w.Waiting(); return packs == 0 && len(w.seals(idOf(0))) > 0 })
		for i := range n {
			if f := w.check(idOf(i)); f.Spare() != 2 || f.Code.K != 1 {
				t.Fatalf("%d: %b of %v", i, f.Receipts, f.Code)
			}
		}
		for node, h := range w.stores {
			if node != self && (h.uploads > 10 || h.shards != n) {
				t.Errorf("%s got %d shards in %d uploads", node, h.shards, h.uploads)
			}
		}
		if w.rows.commits > 10 {
			t.Errorf("%d commits", w.rows.commits)
		}
	})
}

func TestANetworkOfOneDoesNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.start()
		w.pack(1, large)
		w.Hurry(idOf(1))
		time.Sleep(7 * time.Hour)
		if packs, bytes := w.Waiting(); packs != 0 || bytes != 0 || w.Oldest() != 0 {
			t.Errorf("%d packs, %d bytes wait", packs, bytes)
		}
		if len(w.seals(idOf(1))) > 0 || w.rows.commits > 0 {
			t.Error("something was told")
		}
	})
}

// As sites join, packs are striped again, and earlier stripes go once the later ones
// survive as much.
func TestPacksGrowWithTheNetwork(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.start()
		a, b := w.pack(1, large), w.pack(2, 30_000)
		generation := uint32(0)
		for _, sites := range []int{2, 3, 5, 6} {
			w.grow(sites)
			code := w.place.State().Code
			f := w.settled(a, code)
			if f.Stripe.Generation <= generation || f.Withdrawn != f.Stripe.Generation-1 {
				t.Errorf("%d sites: generation %d, withdrawn %d", sites, f.Stripe.Generation, f.Withdrawn)
			}
			generation = f.Stripe.Generation
			w.settled(b, shard.Code{K: 1, M: code.M})
		}
		if generation != 4 {
			t.Errorf("generation %d", generation)
		}
		// Rows of what is withdrawn go; what the network has been told stays told.
		w.restart()
		w.until("surveyed", func() bool { return len(w.rows.keys(rowStripe)) == 2 })
		if n := len(w.rows.keys(rowFact)); n != 3 {
			t.Errorf("%d facts of two packs and a key", n)
		}
	})
}

func TestAnEarlierStripeStaysUntilTheLaterSurvivesAsMuch(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		id := w.pack(1, large)
		w.settled(id, shard.Code{K: 1, M: 2})
		row := func() []string { return w.rowOf(id) }
		w.grow(4)
		away := row()[slices.IndexFunc(row()[:4], func(n string) bool { return n != self })]
		w.stores[away].fail(errDown)
		w.until("two stripes", func() bool { return len(w.seals(id)) == 2 })
		time.Sleep(time.Hour)
		if seals := w.seals(id); len(seals) != 2 || seals[0].Withdrawn != 0 || seals[0].Spare() != 1 {
			t.Errorf("%+v", seals)
		}
		w.stores[away].fail(nil)
		w.settled(id, shard.Code{K: 2, M: 2})
	})
}

func TestACodeThatIsLoweredIsForNewPacks(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		w.start()
		id := w.pack(1, large)
		f := w.settled(id, shard.Code{K: 3, M: 3})
		w.grows(6, shard.Code{K: 4, M: 1}, 1)
		w.settled(w.pack(2, large), shard.Code{K: 4, M: 1})
		time.Sleep(7 * time.Hour)
		if now := w.seals(id); len(now) != 1 || now[0].Stripe != f.Stripe || now[0].Revision != f.Revision {
			t.Errorf("%+v", now)
		}
	})
}

func TestWhoSendsIsNotDisturbedForAMinute(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.packs.setBusy(true)
		began := time.Now()
		id, other := w.pack(1, large), w.pack(2, large)
		time.Sleep(busyPatience - 2*time.Second)
		if len(w.rows.keys(rowStripe)) > 0 {
			t.Error("it was begun while somebody sent")
		}
		w.Hurry(other)
		w.until("sealed", func() bool { return len(w.seals(other)) > 0 })
		if time.Since(began) > busyPatience || len(w.seals(id)) > 0 {
			t.Errorf("what somebody waits for, after %v", time.Since(began))
		}
		w.settled(id, shard.Code{K: 1, M: 2})
		if took := time.Since(began); took < busyPatience || took > busyPatience+15*time.Second {
			t.Errorf("the other after %v", took)
		}
		w.packs.setBusy(false)
		began = time.Now()
		w.settled(w.pack(3, large), shard.Code{K: 1, M: 2})
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("undisturbed it took %v", took)
		}
	})
}

// Packs from before, one a minute while somebody sends, keep no new one waiting.
func TestWhatIsNewDoesNotWaitBehindWhatIsOld(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		for n := range 10 {
			w.pack(n, large)
		}
		w.packs.setBusy(true)
		w.start()
		time.Sleep(5 * time.Second) // the old ones are in line
		began := time.Now()
		id := w.pack(10, large)
		w.until("complete", func() bool { return w.complete(id, shard.Code{K: 1, M: 2}) })
		if took := time.Since(began); took < busyPatience || took > busyPatience+30*time.Second {
			t.Errorf("the new one took %v", took)
		}
		for n := range 10 {
			w.settled(idOf(n), shard.Code{K: 1, M: 2})
		}
		if took := time.Since(began); took < 8*busyPatience {
			t.Errorf("all of the old ones took %v", took)
		}
	})
}

func TestASlowHolderHoldsUpNeitherTheSealNorOthers(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.stores["n01"].set(func(h *holder) { h.slow = 19 * time.Second })
		began := time.Now()
		id := w.pack(1, large)
		w.until("sealed", func() bool { return len(w.seals(id)) == 1 })
		if took := time.Since(began); took > sealAfter+3*time.Second {
			t.Errorf("sealed after %v", took)
		}
		if f := w.check(id); f.Spare() != 1 {
			t.Errorf("%b", f.Receipts)
		}
		w.settled(id, shard.Code{K: 1, M: 2})
		if w.facts != 3 {
			t.Errorf("%d facts: a key, a seal, its news", w.facts)
		}
	})
}

// Where a change of the layout is over, shards are where the new one has them.
func TestWhatIsToldLaterIsOfTheLayoutThatIsThen(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.stores[nodeOf(5)] = openHolder(t, nodeOf(5))
		w.start()
		var id pack.ID
		n := 0
		w.grows(5, shard.Code{K: 2, M: 2}, 2)
		next := w.placedFor(6)
		for ; ; n++ { // one whose row changes at a position that is neither ours nor the one that lacks
			id = idOf(n)
			before, after := w.rowOf(id), rowIn(next, id)
			if before[0] != self && before[1] != self && before[0] == after[0] && before[1] != after[1] && after[1] != self {
				break
			}
		}
		away := w.stores[w.rowOf(id)[0]]
		away.fail(fault.New(fault.Unavailable, "away"))
		w.stores[w.rowOf(id)[4]].fail(fault.New(fault.Full, "no room")) // nobody stands in
		w.pack(n, large)
		w.until("sealed", func() bool { return len(w.seals(id)) == 1 })
		time.Sleep(time.Minute)
		// The layout changes, what is here moves, and the change is over.
		w.place.set(&placement.State{View: next.View, Code: shard.Code{K: 2, M: 2}, Survives: 2})
		away.fail(nil)
		w.until("complete", func() bool { return w.complete(id, shard.Code{K: 2, M: 2}) })
		f := w.seals(id)[0]
		if f.Layout != next.View.New.Version || len(f.Elsewhere) > 0 {
			t.Errorf("%+v", f.SealFact)
		}
	})
}

func TestWhoAsksAgainAndAgainGetsTheSameAnswerSlowly(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.start()
		w.stores["n01"].fail(errDown)
		w.packs.put(makePack(t, 1, large))
		w.Hurry(idOf(1))
		w.until("sealed", func() bool { return len(w.seals(idOf(1))) == 1 })
		w.mu.Lock()
		steps := w.steps
		w.mu.Unlock()
		end := time.Now().Add(10 * time.Minute)
		for time.Now().Before(end) { // as who waits does: at each change, and each second
			w.Hurry(idOf(1))
			select {
			case <-w.Changed():
			case <-time.After(time.Second):
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.steps-steps > 30 {
			t.Errorf("%d steps in 10 minutes in which nothing changed", w.steps-steps)
		}
	})
}

// A site has one shard of a stripe: if the row has another node of this site, that one
// has it, and none is virtual.
func TestAnotherNodeOfThisSiteHasItsShard(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		const other = "n50"
		w.stores[other] = openHolder(t, other)
		all := []layout.Holder{{Node: layout.Node{ID: other, Site: "s00", Pledge: 1 << 40}}}
		for i := range 3 {
			all = append(all, layout.Holder{Node: layout.Node{ID: nodeOf(i), Site: fmt.Sprintf("s%02d", i), Pledge: 1 << 40}})
		}
		l, err := layout.Compute(w.place.State().View.New, all, 3)
		if err != nil {
			t.Fatal(err)
		}
		code := shard.Code{K: 1, M: 2}
		w.place.set(&placement.State{View: layout.View{New: l}, Code: code, Survives: 1})
		w.start()
		virtual := 0
		for n := range 12 {
			w.pack(n, large)
		}
		for n := range 12 {
			f := w.settled(idOf(n), code)
			if slices.Contains(w.rowOf(idOf(n)), other) != (f.Virtual == catalog.NoShard) || len(f.Elsewhere) > 0 {
				t.Errorf("row %v: %+v", w.rowOf(idOf(n)), f.SealFact)
			}
			if f.Virtual != catalog.NoShard {
				virtual++
			}
		}
		if virtual == 0 || virtual == 12 {
			t.Errorf("%d of 12 are virtual", virtual)
		}
	})
}
