package spread

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pelago/shard"
	"pelago/shard/pack"
)

// crashed runs a scenario with a crash at each of its steps, until it ends without
// one: whatever was cut short is finished by the next start, and says the same.
func crashed(t *testing.T, sites int, begin func(w *world) []pack.ID, finish func(w *world), end func(w *world, ids []pack.ID)) {
	t.Helper()
	every := 1
	if testing.Short() {
		every = 5
	}
	for at := 1; ; at += every {
		over := false
		inWorld(t, sites, func(t *testing.T, w *world) {
			w.start()
			ids := begin(w)
			w.mu.Lock()
			w.crashAt = w.steps + at
			w.mu.Unlock()
			finish(w)
			for range 600 {
				time.Sleep(time.Second)
				w.mu.Lock()
				crashed := w.steps >= w.crashAt
				w.mu.Unlock()
				if packs, _ := w.Waiting(); crashed || packs == 0 && w.all(ids) {
					over = !crashed
					break
				}
			}
			w.restart()
			end(w, ids)
			if t.Failed() {
				t.Fatalf("with a crash at step %d", at)
			}
		})
		if over {
			if at < 10 {
				t.Errorf("only %d steps", at)
			}
			return
		}
		if t.Failed() || at > 500 {
			t.Fatalf("it is not over after %d steps", at)
		}
	}
}

// all reports whether the network knows packs as they are to be.
func (w *world) all(ids []pack.ID) bool {
	for _, id := range ids {
		if !w.complete(id, w.place.State().Code.For(int64(len(w.packs.all[id].bytes)))) {
			return false
		}
	}
	return true
}

func TestACrashAnywhereIsFinishedByTheNextStart(t *testing.T) {
	var ids []pack.ID
	crashed(t, 5, func(w *world) []pack.ID { return nil },
		func(w *world) {
			ids = []pack.ID{w.pack(1, large), w.pack(2, 30_000), w.pack(3, 400_000), w.pack(14, 1000)}
		},
		func(w *world, _ []pack.ID) {
			for i, id := range ids {
				code := shard.Code{K: 2, M: 2}
				if i > 0 {
					code.K = 1
				}
				if f := w.settled(id, code); f.Stripe.Generation != 1 || f.Revision > 1 {
					w.t.Errorf("pack %d: %+v", i, f.SealFact)
				}
			}
			w.consistent()
		})
}

func TestACrashWhileItGrowsIsFinishedByTheNextStart(t *testing.T) {
	var ids []pack.ID
	crashed(t, 3, func(w *world) []pack.ID {
		ids = []pack.ID{w.pack(1, large), w.pack(2, 30_000)}
		for i, id := range ids {
			_ = i
			w.settled(id, shard.Code{K: 1, M: 2})
		}
		return ids
	}, func(w *world) { w.grow(6) },
		func(w *world, _ []pack.ID) {
			for i, id := range ids {
				code := shard.Code{K: 3, M: 3}
				if i > 0 {
					code.K = 1
				}
				if f := w.settled(id, code); f.Stripe.Generation != 2 || f.Withdrawn != 1 {
					w.t.Errorf("pack %d: %+v", i, f.SealFact)
				}
			}
			w.consistent()
		})
}

// consistent checks that rows and facts belong to each other.
func (w *world) consistent() {
	w.t.Helper()
	synctest.Wait() // a survey of the start before may be dropping rows
	facts := w.rows.keys(rowFact)
	for _, key := range facts {
		number, _ := numberOf(key)
		value, _, _ := w.rows.Get(key)
		of, ok := stripeOf(string(value))
		if !ok {
			if row, known, _ := w.rows.Get(string(value)); !known || fmt.Sprintf("%x", row) != fmt.Sprintf("%016x", number) {
				w.t.Errorf("key row %x of number %d", row, number)
			}
			continue
		}
		r, err := w.ledger.stripe(of)
		if err != nil || r == nil || r.number != number {
			w.t.Errorf("fact %d is of %v, which is told under another: %+v, %v", number, of, r, err)
		}
	}
	if keys, stripes := len(w.rows.keys(rowKey)), len(w.rows.keys(rowStripe)); len(facts) != keys+stripes {
		w.t.Errorf("%d facts, %d keys, %d stripes", len(facts), keys, stripes)
	}
}
