package repair

import (
	"context"
	"math"
	"sync"
	"time"

	"pelago/shard"
)

const (
	// leastFlight is what may always be on its way from a node: one window beside
	// readers. firstFlight is what may be before anything is known of the way to it.
	leastFlight = 256 << 10
	firstFlight = 2 << 20
	// longFlight is how long a window may take on its way, after which less is asked for
	// at a time: what is asked for waits at the narrowest link, in front of readers, and
	// nothing comes of it for so long. Beside readers that is briefFlight.
	longFlight  = 2 * time.Second
	briefFlight = 500 * time.Millisecond

	// forgetFlights is how many nodes are remembered, who are members.
	forgetFlights = 4096
)

// flights bound what repair has on its way from each node: as much as the way carries
// without a queue that lasts longer than a moment. A node at a narrow link is asked for
// one window at a time.
type flights struct {
	mu sync.Mutex
	of map[string]*flight
}

// flight is what is on its way from a node.
type flight struct {
	limit int64 // bytes
	bytes int64
	full  bool      // the limit was reached since it was changed last
	cut   time.Time // when it was lowered last
	last  time.Time // when something came last
	waits []*seat   // in order
}

// seat is a place in the line.
type seat struct {
	bytes int64
	turn  chan struct{} // closed when it comes
}

// begin waits until so many bytes may be asked of a node; end is to be called when they
// are here, or failed, which lowers what may be on its way.
func (f *flights) begin(ctx context.Context, node string, n int64) (end func(brief bool, err error), err error) {
	f.mu.Lock()
	if f.of == nil || len(f.of) > forgetFlights {
		f.of = map[string]*flight{} // who has a place in the old one ends there
	}
	one := f.of[node]
	if one == nil {
		one = &flight{limit: firstFlight}
		f.of[node] = one
	}
	mine := &seat{n, make(chan struct{})}
	one.waits = append(one.waits, mine)
	one.admit()
	f.mu.Unlock()
	select {
	case <-mine.turn:
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		one.leave(mine)
		return nil, ctx.Err()
	}
	began := time.Now()
	return func(brief bool, err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		one.landed(n, began, time.Now(), brief, err)
	}, nil
}

// admit lets those go whose turn it is.
func (f *flight) admit() {
	for len(f.waits) > 0 && (f.bytes == 0 || f.bytes+f.waits[0].bytes <= f.limit) {
		f.bytes += f.waits[0].bytes
		close(f.waits[0].turn)
		f.waits = f.waits[1:]
	}
	f.full = f.full || len(f.waits) > 0
}

// leave takes back a place, of whom was let go already, too.
func (f *flight) leave(s *seat) {
	for i, other := range f.waits {
		if other == s {
			f.waits = append(f.waits[:i:i], f.waits[i+1:]...)
			return
		}
	}
	f.bytes -= s.bytes
	f.admit()
}

// landed learns from what is here.
func (f *flight) landed(n int64, began, now time.Time, brief bool, err error) {
	f.bytes -= n
	f.last = now
	long := longFlight
	if brief {
		long = briefFlight
	}
	switch took := now.Sub(began); {
	case err != nil || took > long:
		// Those that were asked for before the last time tell nothing new.
		if began.After(f.cut) || f.cut.IsZero() {
			f.limit, f.cut, f.full = max(leastFlight, f.limit/2), now, false
		}
	case f.full && took < long/2:
		f.limit, f.full = min(f.limit+n, math.MaxInt32), false
	}
	f.admit()
}

// narrowFor is how long a way that is not used counts.
const narrowFor = time.Minute

// narrow reports whether somebody lies behind a link that carries less than two windows
// at a time.
func (f *flights) narrow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.of {
		if one.limit < 2*windowLeaves*shard.LeafBytes && time.Since(one.last) < narrowFor {
			return true
		}
	}
	return false
}

// window is how many leaves to ask for at once: what is cut off comes again.
func (r *Repair) window() int64 {
	if r.ways.narrow() {
		return quietLeaves
	}
	return r.pace.window()
}

// turns are those of shards that have a table of their own: as many at a time as are
// done within moments at the rate that is reached, so that what is cut off over a
// narrow link is one of them.
type turns struct {
	mu      sync.Mutex
	running int
	changed chan struct{} // closed when one ends
}

const (
	maxTurns = 8
	// turnTime is how long those that are worked on may take together.
	turnTime = 20 * time.Second
)

// take waits for a turn of a shard of so many bytes.
func (t *turns) take(ctx context.Context, bytes int64, rate func() float64) (done func(), err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		t.mu.Lock()
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed := t.changed
		if t.running == 0 || t.running < maxTurns && float64(t.running+1)*float64(bytes) < rate()*turnTime.Seconds() {
			t.running++
			t.mu.Unlock()
			return t.done, nil
		}
		t.mu.Unlock()
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *turns) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}
