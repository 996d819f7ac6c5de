package group

import (
	"context"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

// What one member may put into the order, however good its signature is: every site
// stores it, and the log keeps it for two weeks.
const (
	// entryCost is the least that an entry counts: its round costs every voter a sync.
	entryCost = 4 << 10
	// shareRate is how many bytes of entries a second, and shareBurst how many at once:
	// some thousand series a second, of a journal that was cut off for long.
	shareRate, shareBurst = 8 << 20, 64 << 20
	// shareWait is how long a proposal is held back so that its node keeps to its
	// share, before it is refused.
	shareWait = 5 * time.Second
	// vainRate and vainBurst are the same for entries of which nothing was taken. An
	// honest node proposes them by mischance: what it decides on has changed meanwhile,
	// or an answer was lost.
	vainRate, vainBurst = 16 << 10, 4 << 20
	// maxShares bounds the nodes that are remembered; those that have not proposed for
	// the longest time have all of their share again, and are forgotten first.
	maxShares = 4096
)

// shares is what the members have left of what they may put into the order here.
type shares struct {
	mu sync.Mutex
	of map[string]*share
}

type share struct{ all, vain bucket }

// bucket fills by rate bytes a second, up to burst.
type bucket struct {
	used float64 // of burst, at the time
	at   time.Time
}

// drain brings the bucket to a time.
func (b *bucket) drain(rate float64, now time.Time) {
	b.used = max(0, b.used-rate*now.Sub(b.at).Seconds())
	b.at = now
}

// take returns once a node may propose an entry of so many bytes, of which it was
// found that it may. fault.Full when it has used up its share.
func (s *shares) take(ctx context.Context, node string, size int) error {
	rest, err := s.reserve(node, size, time.Now())
	if err != nil {
		return err
	}
	if !pause.For(ctx, rest) {
		return fault.New(fault.KindOf(ctx.Err()), "group: a proposal is held back: %w", ctx.Err())
	}
	return nil
}

// reserve takes an entry's bytes and returns how long the entry is to be held back.
func (s *shares) reserve(node string, size int, now time.Time) (time.Duration, error) {
	cost := float64(max(size, entryCost))
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.shareLocked(node, now)
	if h.vain.used >= vainBurst {
		return 0, fault.New(fault.Full, "group: node %s has proposed too much that was refused: it may go on by %d bytes a second", node, vainRate)
	}
	rest := time.Duration((h.all.used + cost - shareBurst) / shareRate * float64(time.Second))
	if rest > shareWait {
		return 0, fault.New(fault.Full, "group: node %s proposes more than %d bytes a second", node, shareRate)
	}
	h.all.used += cost
	return rest, nil
}

// charge counts an entry of which nothing was taken.
func (s *shares) charge(node string, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shareLocked(node, time.Now()).vain.used += float64(max(size, entryCost))
}

func (s *shares) shareLocked(node string, now time.Time) *share {
	h := s.of[node]
	if h == nil {
		if s.of == nil {
			s.of = map[string]*share{}
		}
		if len(s.of) >= maxShares {
			s.forgetLocked()
		}
		h = &share{all: bucket{at: now}, vain: bucket{at: now}}
		s.of[node] = h
	}
	h.all.drain(shareRate, now)
	h.vain.drain(vainRate, now)
	return h
}

// forgetLocked drops who has been quiet for the longest time.
func (s *shares) forgetLocked() {
	quietest := ""
	for node, h := range s.of {
		if quietest == "" || h.all.at.Before(s.of[quietest].all.at) {
			quietest = node
		}
	}
	delete(s.of, quietest)
}
