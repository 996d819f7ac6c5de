package capacity

import (
	"context"
	"sync/atomic"
	"time"

	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
)

// Sums are what the seals add up to; *catalog.Catalog has them.
type Sums interface {
	// CountSlots returns once EachSlot knows them.
	CountSlots(ctx context.Context) error
	EachSlot(visit func(at catalog.Slot, bytes int64)) bool
}

// Places says where shards belong; *placement.Placement is one.
type Places interface {
	State() *placement.State
	// Changed is closed at the next change.
	Changed() <-chan struct{}
}

// Capacity keeps a report. Make it by New.
type Capacity struct {
	sums   Sums
	places Places
	now    atomic.Pointer[Report]
}

// New returns a Capacity; its task does the work.
func New(sums Sums, places Places) *Capacity { return &Capacity{sums: sums, places: places} }

// Report is what is owed, of a few seconds ago; nil: it is not known yet.
func (c *Capacity) Report() *Report { return c.now.Load() }

// Task is the work in the background.
func (c *Capacity) Task() work.Task {
	return work.Task{Name: "capacity", Run: c.run, Restart: &work.Restart{}}
}

const (
	// every is how often it is counted, at most: counting takes milliseconds.
	every = 10 * time.Second
	// leastPause lies between two counts, however often the layout changes; and between
	// what the losses of two sites ask, of which each is a layout to compute.
	leastPause = time.Second
)

func (c *Capacity) run(ctx context.Context, progress *work.Progress) error {
	var losses rebuild
	for {
		changed := c.places.Changed()
		err := c.sums.CountSlots(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was cut short
		}
		progress.Note(err)
		more := false
		if err == nil {
			state := c.places.State()
			more = losses.next(state)
			if r := Count(state, c.sums.EachSlot); r != nil {
				losses.tell(r, c.sums.EachSlot)
				c.now.Store(r)
			}
		}
		if !rest(ctx, changed, more) {
			return nil
		}
	}
}

// rest waits until it is time to count again, at once after the least pause if there is
// more to do; false when ctx ends.
func rest(ctx context.Context, changed <-chan struct{}, more bool) bool {
	least, next := time.NewTimer(leastPause), time.NewTimer(every)
	defer least.Stop()
	defer next.Stop()
	select {
	case <-least.C:
	case <-ctx.Done():
		return false
	}
	if more {
		return true
	}
	select {
	case <-changed:
	case <-next.C:
	case <-ctx.Done():
		return false
	}
	return true
}
