package journal

import (
	"testing"
	"time"

	"pelago/replication/catalog"
)

func TestTheCursorTellsWhatTheNetworkLacks(t *testing.T) {
	h := func(n byte) [hashBytes]byte { return [hashBytes]byte{n} }
	// Incarnation 2, batches 4 to 6 are kept of 1 to 6.
	s := state{incarnation: 2, oldest: 4, next: 7, last: h(6)}
	rows := []kept{{number: 4, previous: h(3), hash: h(4)}, {number: 5, previous: h(4), hash: h(5)}, {number: 6, previous: h(5), hash: h(6)}}
	at := func(incarnation, number uint64, hash byte) catalog.Cursor {
		return catalog.Cursor{Incarnation: incarnation, Number: number, Hash: h(hash)}
	}
	for _, c := range []struct {
		name  string
		at    catalog.Cursor
		known bool
		s     state
		rows  []kept
		next  uint64
		v     verdict
	}{
		{"nothing was ever logged", at(0, 0, 0), false, newState(), nil, 1, fits},
		{"nothing is known, all is kept", at(0, 0, 0), false, state{incarnation: 1, oldest: 1, next: 2, last: h(1)}, []kept{{number: 1, previous: h(0), hash: h(1)}}, 1, fits},
		{"nothing is known, not all is kept", at(0, 0, 0), false, s, rows, 4, behind},
		{"an earlier incarnation is known, not all of this is kept", at(1, 90, 90), true, s, rows, 4, behind},
		{"an earlier incarnation is known, all of this is kept", at(1, 90, 90), true, state{incarnation: 2, oldest: 1, next: 1}, nil, 1, fits},
		{"a later incarnation is known", at(3, 1, 1), true, s, rows, 0, foreign},
		{"more is known than was logged", at(2, 7, 7), true, s, rows, 0, foreign},
		{"all is known", at(2, 6, 6), true, s, rows, 7, fits},
		{"another last batch is known", at(2, 6, 9), true, s, rows, 0, foreign},
		{"some is known", at(2, 4, 4), true, s, rows, 5, fits},
		{"another batch in the middle is known", at(2, 5, 9), true, s, rows, 0, foreign},
		{"all is known that is not kept", at(2, 3, 3), true, s, rows, 4, fits},
		{"another batch than the last that is not kept", at(2, 3, 9), true, s, rows, 0, foreign},
		{"less is known than what is not kept", at(2, 2, 2), true, s, rows, 4, behind},
	} {
		if next, v := judge(c.at, c.known, c.s, c.rows); next != c.next || v != c.v {
			t.Errorf("%s: %d, verdict %d; want %d, %d", c.name, next, v, c.next, c.v)
		}
	}
}

func TestPausesGrowWithJitterUntilTheBudgetIsSpent(t *testing.T) {
	var r retry
	for i := range retryBudget {
		long := min(minPause<<i, maxPause)
		p := r.pause()
		if p < long/2 || p > long {
			t.Errorf("pause %d is %v, want between %v and %v", i, p, long/2, long)
		}
	}
	r.succeeded()
	if p := r.pause(); p > minPause {
		t.Errorf("after a success the pause is %v, want at most %v", p, minPause)
	}
	// It has given back one short pause, and that is used.
	for range 3 {
		if p := r.pause(); p < maxPause/2 || p > maxPause {
			t.Errorf("without a budget the pause is %v", p)
		}
	}
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[r.pause()] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 pauses take %d values: there is no jitter", len(seen))
	}
}
