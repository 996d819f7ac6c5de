package archive

import (
	"sync/atomic"
	"time"
)

// busyFor is how long after an arrival others still hold back: modalities send the
// next image within it.
const busyFor = 2 * time.Second

// taking is how many arrivals are on their way in, and when the last one ended.
type taking struct {
	now  atomic.Int64
	last atomic.Int64 // Unix nanoseconds; 0: there was none
}

// begin counts an arrival, until what it returns is called.
func (t *taking) begin() (end func()) {
	t.now.Add(1)
	return func() {
		t.last.Store(time.Now().UnixNano())
		t.now.Add(-1)
	}
}

// Busy reports whether an instance is on its way in, or one was within the last two
// seconds: work that can wait leaves the processors and the disk to who sends.
func (a *Archive) Busy() bool {
	if a.taking.now.Load() > 0 {
		return true
	}
	last := a.taking.last.Load()
	if last == 0 {
		return false
	}
	passed := time.Since(time.Unix(0, last))
	return passed >= 0 && passed < busyFor // below 0: the clock was set back
}
