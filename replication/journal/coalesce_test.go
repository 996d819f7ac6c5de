package journal

import (
	"errors"
	"math"
	"testing"
	"time"
)

// land gives everything that flies one fate.
func (c *coalescer) landAll(now time.Time, f fate) {
	for _, p := range c.flying {
		p.fate = f
	}
	c.land(now)
}

func TestSeriesThatGrowsIsLoggedLessAndLess(t *testing.T) {
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
			c.landAll(now, logged)
			sent = append(sent, at)
		}
	}
	want := []time.Duration{gather, 15, 30, 30, 30, 30, 30}
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

func TestSeriesWhoseArrivalsHaveEndedIsLoggedAtMostASecondAfterItsLastFact(t *testing.T) {
	c := newCoalescer()
	name, now := seriesName{"1", "2"}, time.Unix(1000, 0)
	taken := func(at time.Time, want int, when string) {
		t.Helper()
		if got := c.take(at, 10); len(got) != want {
			t.Errorf("%s: took %d, want %d", when, len(got), want)
		}
		c.landAll(at, logged)
	}
	c.mark(name, 1, now)
	c.end([]string{"9"}, now)
	taken(now, 0, "another study has ended")
	c.end([]string{"1"}, now)
	taken(now, 1, "the first association has ended")
	c.mark(name, 2, now)
	c.end([]string{"1"}, now)
	taken(now.Add(minGap-1), 0, "too soon after the last fact")
	taken(now.Add(minGap), 1, "a second after the last fact")
}

func TestSeriesThatRestsIsLoggedSoonAtFirst(t *testing.T) {
	c := newCoalescer()
	name := seriesName{"1", "2"}
	began := time.Unix(1000, 0)
	var sent []time.Duration
	for at := time.Duration(0); at < 2*time.Minute; at += 10 * time.Millisecond {
		now := began.Add(at)
		if at%(3*time.Second) == 0 { // an image every 3 s
			c.mark(name, uint64(at/time.Second)+1, now)
		}
		if len(c.take(now, 10)) > 0 {
			c.landAll(now, logged)
			sent = append(sent, at)
		}
	}
	for i, want := range []time.Duration{gather, 4 * time.Second, 7 * time.Second} {
		if i >= len(sent) || sent[i] != want {
			t.Fatalf("sent at %v, want the fact %d after %v", sent, i, want)
		}
	}
	if len(sent) > 9 {
		t.Errorf("%d facts of 40 images: %v", len(sent), sent)
	}
}

func TestSeriesRideAlongOnceHalfTheirTimeIsOver(t *testing.T) {
	c := newCoalescer()
	now := time.Unix(1000, 0)
	one, other := seriesName{"1", "1"}, seriesName{"1", "2"}
	c.mark(one, 1, now)
	now = now.Add(gather)
	c.take(now, 10)
	c.landAll(now, logged)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{minInterval/2 - 10*time.Millisecond, 1}, {minInterval / 2, 2}} {
		at := now.Add(step.after)
		c.mark(other, 3, at.Add(-gather))
		c.mark(one, 2, at)
		if got := c.take(at, 10); len(got) != step.want {
			t.Errorf("after %v of %v %d series are taken, want %d", step.after, minInterval, len(got), step.want)
		}
		for _, p := range c.flying {
			p.fate = told
		}
		c.land(at)
		delete(c.dirty, other)
		c.group = time.Time{}
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
	c.landAll(now, logged)
	mark(false, "logged lately")
	now = now.Add(2 * minInterval)
	c.take(now, 10)
	c.landAll(now, logged)
	now = now.Add(time.Hour)
	mark(true, "logged long ago")
}

func TestForceTellsWhatWasDirtyAndNoMore(t *testing.T) {
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
	c.landAll(now, told)
	if ok, err := c.settled(sequence); !ok || err != nil {
		t.Errorf("settled: %v, %v", ok, err)
	}
	if c.lowest() != 1 {
		t.Errorf("lowest %d: what is told is not logged", c.lowest())
	}
	if got := c.take(now.Add(gather), 10); len(got) != 2 {
		t.Errorf("%d series are logged in their time, want 2", len(got))
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
	if c.lowest() != 7 {
		t.Errorf("lowest %d; want 7", c.lowest())
	}
	if got := c.take(now.Add(minRetry/2), 10); len(got) != 0 {
		t.Error("tried again at once")
	}
	if got := c.take(now.Add(minRetry), 10); len(got) != 1 {
		t.Error("not tried again")
	}
}

func TestChangeDuringAFlightIsNotLost(t *testing.T) {
	for _, f := range []fate{failed, told, logged, left} {
		c := newCoalescer()
		now := time.Unix(1000, 0)
		name := seriesName{"1", "1"}
		c.mark(name, 3, now)
		c.force()
		c.take(now, 10)
		c.mark(name, 4, now)
		sequence := c.sequence
		c.landAll(now, f)
		if ok, _ := c.settled(sequence); ok {
			t.Errorf("fate %d: settled, and nobody knows of the change", f)
		}
		want := uint64(4)
		if f == failed || f == told {
			want = 3
		}
		if c.lowest() != want {
			t.Errorf("fate %d: lowest %d, want %d", f, c.lowest(), want)
		}
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
		p, _ := c.mark(name, uint64(at/time.Millisecond)+1, now)
		if wait := p.when().Sub(now); wait <= 0 || wait > gather {
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
			c.landAll(now, logged)
		}
	}
	if len(groups) != 3 {
		t.Errorf("facts that came within four times %v went out in groups of %v, want three", gather, groups)
	}
}
