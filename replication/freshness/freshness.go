// Package freshness tells how stale a node's catalogue is at most, without a
// word about the clocks of others (DESIGN §6).
//
// A node asks the leader for its commit index, which the leader gives once a
// majority of the voters have confirmed it since it was asked. What was committed
// anywhere before the request was sent lies at or below that index. So once the
// node has applied it, the node knew, at the latest then, all that anybody had
// been told before the request was sent: its staleness is its own monotonic time
// since. The time on the way and in the queue counts against it, and is never
// left out.
//
// The package is pure but for its lock: times are the caller's, and must carry a
// monotonic reading, as those of [time.Now] do.
package freshness

import (
	"sync"
	"time"
)

// maxPending bounds the answers that are not applied yet. With one request a
// second a node that is further behind than this is stale by its oldest.
const maxPending = 64

// Tracker is what a node knows of its staleness. The zero value knows nothing.
type Tracker struct {
	mu      sync.Mutex
	asOf    time.Time // everything committed before is applied; zero: not known
	pending []answer  // ascending in both
}

type answer struct {
	sent   time.Time
	commit uint64
}

// Answered takes the leader's commit index and when the request for it was
// sent: before the first byte of it left.
func (t *Tracker) Answered(sent time.Time, commit uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Answers overtake each other. One that was sent later with a lower index, by
	// a leader that cannot be behind, makes those that were sent earlier useless;
	// one that was sent earlier with a higher index is useless itself.
	kept := t.pending[:0]
	for _, a := range t.pending {
		if !sent.After(a.sent) && commit >= a.commit {
			return
		}
		if sent.Before(a.sent) || commit > a.commit {
			kept = append(kept, a)
		}
	}
	t.pending = kept
	i := len(t.pending)
	for i > 0 && t.pending[i-1].sent.After(sent) {
		i--
	}
	t.pending = append(t.pending, answer{})
	copy(t.pending[i+1:], t.pending[i:])
	t.pending[i] = answer{sent, commit}
	if len(t.pending) > maxPending {
		// The second newest goes: the oldest is applied first, and the newest says
		// most once it is.
		t.pending = append(t.pending[:maxPending-1], t.pending[maxPending])
	}
}

// Applied takes the index up to which everything is applied here.
func (t *Tracker) Applied(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, a := range t.pending {
		if a.commit > index {
			break
		}
		if a.sent.After(t.asOf) {
			t.asOf = a.sent
		}
		n++
	}
	t.pending = append(t.pending[:0], t.pending[n:]...)
}

// Staleness returns how stale the catalogue is at most at a time, false when
// nothing has been confirmed yet.
func (t *Tracker) Staleness(now time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asOf.IsZero() {
		return 0, false
	}
	return max(0, now.Sub(t.asOf)), true
}

// Reset forgets everything: after the catalogue was replaced by an older one,
// or the network's generation has changed.
func (t *Tracker) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asOf, t.pending = time.Time{}, nil
}
