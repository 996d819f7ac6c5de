package journal

import (
	"math/rand/v2"
	"time"
)

const (
	// Between the first and the last pause after failed proposals.
	minPause = 250 * time.Millisecond
	maxPause = 10 * time.Second
	// retryBudget is how many short pauses there are; each batch that is committed
	// gives one back. Without any left every pause is the longest: a network that
	// takes one batch of many is not to be burdened with attempts.
	retryBudget = 10
	// stillTime is for how long nothing must have been applied for the next entry to
	// mean that the network is there again.
	stillTime = maxPause / 2
)

// retry says how long to wait after a failed proposal. It is pure but for the
// jitter, which keeps nodes that lost the same leader from coming back at once.
type retry struct {
	spent  int // of the budget
	failed int // proposals since the last one that was committed

	applied uint64    // what the catalogue stood at when it was seen to move last
	moved   time.Time // when that was
}

func (r *retry) succeeded() {
	r.failed = 0
	r.spent = max(0, r.spent-1)
}

// pause returns how long to wait after one more failure: between a half and the
// whole of twice the pause before.
func (r *retry) pause() time.Duration {
	long := maxPause
	if r.spent < retryBudget {
		r.spent++
		long = min(minPause<<min(r.failed, 16), maxPause)
	}
	r.failed++
	return long/2 + rand.N(long/2)
}

// stirs reports whether a catalogue at an index moves after it has stood still.
func (r *retry) stirs(applied uint64, now time.Time) bool {
	if applied == r.applied {
		return false
	}
	still := !r.moved.IsZero() && now.Sub(r.moved) >= stillTime
	r.applied, r.moved = applied, now
	return still
}
