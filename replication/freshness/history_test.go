package freshness_test

import (
	"testing"
	"time"

	"pelago/replication/freshness"
)

func TestLagIsTheTimeSinceTheFirstMissingEntryWasApplied(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var h freshness.History
	if _, ok := h.Behind(at(0), 0); ok {
		t.Error("an empty history knows something")
	}
	h.Note(at(0), 100)
	h.Note(at(10), 100) // nothing new
	h.Note(at(20), 110)
	h.Note(at(30), 105) // never goes back
	h.Note(at(40), 120)
	for _, test := range []struct {
		index uint64
		want  int // seconds before 50; -1: not known
	}{{99, -1}, {100, 30}, {109, 30}, {110, 10}, {119, 10}, {120, -1}, {500, -1}} {
		got, ok := h.Behind(at(50), test.index)
		if ok != (test.want >= 0) || ok && got != time.Duration(test.want)*time.Second {
			t.Errorf("behind since %d: %v, %v, want %d s", test.index, got, ok, test.want)
		}
	}
}

// Over a long time memory is bounded, and what is told is a few hundredths too
// little at most.
func TestALongHistoryIsCoarserTheOlderItIs(t *testing.T) {
	start := time.Now()
	var h freshness.History
	const total = 50_000
	for i := range total {
		h.Note(start.Add(time.Duration(i)*time.Second), uint64(i+1))
	}
	now := start.Add(total * time.Second)
	for missing := 1; missing < total-1; missing++ {
		got, ok := h.Behind(now, uint64(total-missing))
		want := time.Duration(missing) * time.Second
		if !ok || got > want || float64(got) < 0.95*float64(want)-float64(time.Second) {
			t.Fatalf("%d entries behind: %v, %v", missing, got, ok)
		}
	}
}
