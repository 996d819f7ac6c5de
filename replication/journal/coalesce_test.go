package journal

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestSeriesThatGrowsIsAnnouncedLessAndLess(t *testing.T) {
	c := newCoalescer()
	name := seriesName{"1", "2"}
	began := time.Unix(1000, 0)
	var sent []time.Duration
	number := uint64(0)
	for at := time.Duration(0); at < 3*time.Minute; at += 10 * time.Millisecond {
		now := began.Add(at)
		number++
		c.mark(name, number, now)
		if len(c.take(now, 10)) > 0 {
			c.land(now)
			sent = append(sent, at)
		}
	}
	want := []time.Duration{gather, 1, 2, 4, 8, 16, 30, 30, 30, 30}
	if len(sent) != len(want) {
		t.Fatalf("sent at %v", sent)
	}
	if sent[0] != gather {
		t.Errorf("first fact after %v, want %v", sent[0], gather)
	}
	for i := 1; i < len(sent); i++ {
		if gap := (sent[i] - sent[i-1]).Round(time.Second) / time.Second; gap != want[i] {
			t.Errorf("fact %d after %v, want %d s", i, sent[i]-sent[i-1], want[i])
		}
	}
}

func TestMarkTellsTheFirstOfASeries(t *testing.T) {
	c := newCoalescer()
	name, now := seriesName{"1", "2"}, time.Unix(1000, 0)
	mark := func(want bool, when string) {
		t.Helper()
		if _, first := c.mark(name, 1, now); first != want {
			t.Errorf("%s: first %t, want %t", when, first, want)
		}
	}
	mark(true, "unknown")
	mark(false, "waiting")
	now = now.Add(gather)
	c.take(now, 10)
	c.land(now)
	mark(false, "announced lately")
	now = now.Add(2 * minInterval)
	c.take(now, 10)
	c.land(now)
	now = now.Add(time.Hour)
	mark(true, "announced long ago")
}

func TestForceLetsOutWhatWasDirtyAndNoMore(t *testing.T) {
	c := newCoalescer()
	now := time.Unix(1000, 0)
	c.mark(seriesName{"1", "1"}, 1, now)
	sequence := c.force()
	c.mark(seriesName{"1", "2"}, 2, now)
	if got := c.take(now, 10); len(got) != 1 || got[0].name.series != "1" {
		t.Fatalf("took %v", got)
	}
	if ok, _ := c.settled(sequence); ok {
		t.Error("settled while the fact flies")
	}
	c.land(now)
	if ok, err := c.settled(sequence); !ok || err != nil {
		t.Errorf("settled: %v, %v", ok, err)
	}
}

func TestFailureIsToldAndTriedAgain(t *testing.T) {
	c := newCoalescer()
	now := time.Unix(1000, 0)
	c.mark(seriesName{"1", "1"}, 7, now)
	sequence := c.force()
	c.take(now, 10)[0].failed = errors.New("unreadable")
	c.land(now)
	if ok, err := c.settled(sequence); !ok || err == nil {
		t.Errorf("settled: %v, %v; want an error", ok, err)
	}
	if lowest, ok := c.lowest(); !ok || lowest != 7 {
		t.Errorf("lowest %d, %v; want 7", lowest, ok)
	}
	if got := c.take(now.Add(minInterval/2), 10); len(got) != 0 {
		t.Error("tried again at once")
	}
	if got := c.take(now.Add(minInterval), 10); len(got) != 1 {
		t.Error("not tried again")
	}
}

func TestCursorStopsBeforeAGapUntilItIsOld(t *testing.T) {
	var c cursor
	now := time.Unix(1000, 0)
	for _, n := range []uint64{1, 2, 4, 5} {
		c.come(n, now)
	}
	if c.base != 2 {
		t.Errorf("base %d, want 2", c.base)
	}
	if c.advance(now.Add(gapGrace / 2)); c.base != 2 {
		t.Errorf("base %d before the grace, want 2", c.base)
	}
	late := c
	late.ahead = append(arrivals(nil), c.ahead...)
	if late.come(3, now); late.base != 5 {
		t.Errorf("base %d after the late number, want 5", late.base)
	}
	if c.advance(now.Add(gapGrace + time.Second)); c.base != 5 {
		t.Errorf("base %d after the grace, want 5", c.base)
	}
}

func TestFactsThatComeOneAfterAnotherGoOutTogether(t *testing.T) {
	c := newCoalescer()
	began := time.Unix(1000, 0)
	marked := map[seriesName]time.Time{}
	var groups []int
	for at := time.Duration(0); at < 4*gather; at += time.Millisecond {
		now := began.Add(at)
		name := seriesName{"1", at.String()}
		marked[name] = now
		due, _ := c.mark(name, uint64(at/time.Millisecond)+1, now)
		if wait := due.Sub(now); wait <= 0 || wait > gather {
			t.Fatalf("a fact that comes after %v waits for %v, at most %v", at, wait, gather)
		}
		taken := c.take(now, math.MaxInt)
		for _, p := range taken {
			if wait := now.Sub(marked[p.name]); wait > gather {
				t.Errorf("a fact went out after %v, at most %v", wait, gather)
			}
		}
		if len(taken) > 0 {
			groups = append(groups, len(taken))
			c.land(now)
		}
	}
	if len(groups) != 3 {
		t.Errorf("facts that came within four times %v went out in groups of %v, want three", gather, groups)
	}
}
