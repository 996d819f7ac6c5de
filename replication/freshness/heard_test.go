package freshness_test

import (
	"maps"
	"testing"
	"time"

	"pelago/replication/freshness"
)

const limit = 10 * time.Second

func TestALeaderTellsWhomItHasNotHeard(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var h freshness.Heard
	late := func(now int, term uint64) map[string]time.Duration {
		return h.Late(at(now), term, limit, []string{"a", "b"})
	}
	want := func(name string, got, want map[string]time.Duration) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	want("just begun", late(0, 1), map[string]time.Duration{"a": freshness.NotYet, "b": freshness.NotYet})
	h.Note(at(1), 1, "a", at(1))
	want("one heard", late(5, 1), map[string]time.Duration{"b": freshness.NotYet})
	h.Note(at(6), 1, "b", at(2)) // it has kept something since
	h.Note(at(7), 1, "b", at(1)) // an answer that was overtaken
	want("both heard", late(11, 1), map[string]time.Duration{})
	want("one is late", late(12, 1), map[string]time.Duration{"a": 11 * time.Second})
	want("both are", late(20, 1), map[string]time.Duration{"a": 19 * time.Second, "b": 18 * time.Second})
	want("another term", late(30, 2), map[string]time.Duration{"a": freshness.NotYet, "b": freshness.NotYet})
	want("never heard in it", late(41, 2), map[string]time.Duration{"a": 11 * time.Second, "b": 11 * time.Second})
}

func TestWhoIsUnheardStaysSoUntilALeaderHasHeardOfIt(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var s freshness.Silence
	want := func(name string, now int, a, b bool) {
		t.Helper()
		if gotA, gotB := s.Unheard(at(now), limit, "a"), s.Unheard(at(now), limit, "b"); gotA != a || gotB != b {
			t.Errorf("%s: a %v, b %v, want %v, %v", name, gotA, gotB, a, b)
		}
	}
	want("nothing is known", 0, true, true)
	s.Told(at(0), map[string]time.Duration{"b": freshness.NotYet})
	want("a new leader, nothing known before", 1, false, true)
	s.Told(at(2), map[string]time.Duration{"a": freshness.NotYet})
	want("b was heard, and a was before", 3, false, false)
	s.Told(at(5), map[string]time.Duration{"b": 11 * time.Second})
	want("b is late", 6, false, true)
	s.Told(at(4), nil) // overtaken
	want("an older answer", 6, false, true)
	s.Told(at(7), map[string]time.Duration{"a": freshness.NotYet, "b": freshness.NotYet})
	want("a new leader knows no better", 8, false, true)
	s.Told(at(9), nil)
	want("b was heard", 10, false, false)
	want("no leader for long", 20, true, true)
}
