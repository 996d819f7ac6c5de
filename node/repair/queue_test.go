package repair

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pelago/shard"
	"pelago/shard/held"
)

func thing(i int) item {
	var it item
	binary.BigEndian.PutUint32(it.Pack[:], uint32(i))
	it.Generation, it.bytes = 1, 100
	return it
}

// whatever fits.
func whatever(item, int) bool { return true }

// What is most exposed comes first; what cannot be read by what is known comes last.
func TestTheMostExposedComesFirst(t *testing.T) {
	q, now := newQueue(), time.Now()
	for i, spare := range []int{3, -1, 0, 2, -2, 1} {
		q.put(thing(i), classOf(spare), now)
	}
	q.first(thing(9), now)
	for _, want := range []int{9, 2, 5, 3, 0, 1, 4} {
		if it, _, ok := q.take(whatever); !ok || it.Name != thing(want).Name {
			t.Fatalf("%v comes, not %d", it.Name, want)
		}
	}
	if _, _, ok := q.take(whatever); ok || q.bytes != 0 {
		t.Errorf("more comes, or %d bytes are left", q.bytes)
	}
}

// However many cannot be had, of whatever exposure, others come, and memory is bounded.
func TestWhatCannotBeHadStarvesNobody(t *testing.T) {
	q, now := newQueue(), time.Now()
	bad := 0
	for round := range 6 {
		for i := range 10 * perClass { // of the most exposed, which all fail
			q.put(thing(i), classOf(0), now)
		}
		q.put(thing(1<<30+round), classOf(3), now)
		if len(q.known) > perClass+1 || len(q.waits.all) > maxWaits || len(q.waits.of) != len(q.waits.all) {
			t.Fatalf("%d in lists, %d wait", len(q.known), len(q.waits.all))
		}
		if !q.left {
			t.Error("another walk is not asked for")
		}
		came := false
		for {
			it, class, ok := q.take(whatever)
			if !ok {
				break
			}
			if it.Name == thing(1<<30+round).Name {
				came = true
				q.done(it.Name)
				continue
			}
			bad++
			q.failed(it, class, now, false)
		}
		if !came {
			t.Errorf("round %d: what can be had does not come", round)
		}
	}
	if bad < 5*perClass {
		t.Errorf("only %d were tried", bad)
	}
}

// What failed is tried later and later, and put in line when it is due.
func TestWhatFailedIsTriedLaterAndLater(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.put(thing(1), classOf(1), now)
	var before time.Duration
	for i := range 12 {
		it, class, ok := q.take(whatever)
		if !ok || class != classOf(1) {
			t.Fatalf("try %d: %t in class %d", i, ok, class)
		}
		q.failed(it, class, now, false)
		q.put(it, class, now)
		if _, _, ok := q.take(whatever); ok {
			t.Fatal("it is tried at once")
		}
		pause := q.waits.all[0].until.Sub(now)
		if pause < before || pause > lastWait || pause < firstWait {
			t.Errorf("a pause of %v after one of %v", pause, before)
		}
		before = pause
		now = now.Add(pause)
		q.due(now)
	}
	if before != lastWait {
		t.Errorf("the last pause is %v", before)
	}
}

// A shard that is found to be more exposed moves up, and is brought once.
func TestAShardMovesToAnotherClass(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.put(thing(1), classOf(3), now)
	q.put(thing(2), classOf(2), now)
	q.put(thing(1), classOf(0), now)
	for _, want := range []int{1, 2} {
		if it, _, ok := q.take(whatever); !ok || it.Name != thing(want).Name {
			t.Fatalf("%v, not %d", it.Name, want)
		}
	}
	q.put(thing(1), classOf(0), now)
	if it, _, ok := q.take(whatever); ok {
		t.Errorf("%v comes again while it is worked on", it.Name)
	}
}

// Beside readers it begins slowly, and rises to a share of what it reached alone as long
// as the processors are free; if they are not, it falls to the least. Alone it is not
// held, and comes back to that by doubling.
func TestRepairHoldsBackForReaders(t *testing.T) {
	const n = 1 << 20
	for _, one := range []struct {
		alone float64 // bytes a second
		most  float64 // beside readers
	}{
		{200 << 20, share * (200 << 20)},
		{8 << 20, highRate},
	} {
		synctest.Test(t, func(t *testing.T) {
			busy := false
			p := pacer{busy: func() bool { return busy }, busyAt: func(node string) bool { return node == "busy" }}
			take := func(node string, pause time.Duration, d time.Duration) float64 {
				began, bytes := time.Now(), 0
				for time.Since(began) < d {
					if err := p.take(context.Background(), node, n); err != nil {
						t.Fatal(err)
					}
					bytes += n
					time.Sleep(pause)
				}
				return float64(bytes) / time.Since(began).Seconds()
			}
			is := func(what string, got, from, to float64) {
				t.Helper()
				if got < from || got > to {
					t.Errorf("%s: %.0f bytes a second, not %.0f to %.0f", what, got, from, to)
				}
			}
			link := time.Duration(n * float64(time.Second) / one.alone)
			is("alone", take("a", link, 20*time.Second), 0.99*one.alone, 1.01*one.alone)
			if p.window() != windowLeaves {
				t.Error("small windows without readers")
			}
			busy = true
			is("at first", take("a", 0, 2*time.Second), 0.9*lowRate, lowRate+0.3*one.most)
			take("a", 0, 80*time.Second)
			is("beside readers", take("a", 0, 20*time.Second), 0.9*one.most, 1.1*one.most)
			if p.window() != quietLeaves {
				t.Error("large windows beside readers")
			}
			rising := p.rate
			for range 6 { // of ten timers two are late
				for i := range 10 {
					p.fired(time.Duration(i/8) * 2 * late)
				}
				p.adaptLocked(time.Second)
			}
			is("on busy processors", p.rate, lowRate, max(lowRate, rising/32))
			for range 24 {
				for i := range 100 { // of a hundred five
					p.fired(time.Duration(i/95) * 2 * late)
				}
				p.adaptLocked(time.Second)
			}
			is("on free ones again", p.rate, 0.3*one.most, one.most)
			take("a", 0, 80*time.Second)
			busy = false
			is("from a node with readers", take("busy", 0, 20*time.Second), 0.9*one.most, 1.1*one.most)
			is("a moment after", take("a", link, 1200*time.Millisecond), 0, 2.5*one.most)
			take("a", link, 8*time.Second)
			is("alone again", take("a", link, 5*time.Second), 0.95*one.alone, 1.01*one.alone)
			busy = true
			take("a", 0, 5*time.Second)
			time.Sleep(2 * time.Minute)
			take("a", 0, 100*time.Millisecond)
			is("after a pause", p.rate, lowRate, lowRate)
		})
	}
}

// Beside others shards are brought two at a time; alone all workers work.
func TestFewShardsAreBroughtAtATimeBesideReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		busy.Store(true)
		p := pacer{busy: busy.Load, busyAt: func(string) bool { return false }}
		ctx, cancel := context.WithCancel(t.Context())
		var inside atomic.Int64
		end := make(chan struct{})
		crew := newCrew(8, func() {
			for p.enter(ctx) {
				inside.Add(1)
				select {
				case <-end:
				case <-ctx.Done():
				}
				inside.Add(-1)
				p.leave()
			}
		})
		for range 5 {
			passes(10 * time.Second)
			if got := inside.Load(); got != besideOthers {
				t.Errorf("%d are brought beside readers", got)
			}
			end <- struct{}{} // another takes its place
		}
		busy.Store(false)
		passes(2 * time.Second)
		if got := inside.Load(); got != 8 {
			t.Errorf("%d are brought alone", got)
		}
		cancel()
		crew.Wait()
	})
}

// Names travel as they are, and others are refused.
func TestNamesOfDoubts(t *testing.T) {
	n := held.Name{Stripe: shard.Stripe{Pack: [16]byte{1, 2}, Generation: 7}, Index: 15}
	if got, err := parseName(appendName(nil, n)); err != nil || got != n {
		t.Errorf("%v, %v", got, err)
	}
	for _, b := range [][]byte{nil, make([]byte, nameBytes), make([]byte, nameBytes+1), append(appendName(nil, n)[:20], 16)} {
		if _, err := parseName(b); err == nil {
			t.Errorf("%x is taken", b)
		}
	}
}
