package journal

import (
	"cmp"
	"slices"
	"time"
)

const (
	// gather is how long the first of a group of facts waits for others to share its
	// sync and its apply, of which a fact costs the less the more there are (DESIGN
	// §6: a batch every 250 ms). Queries do not wait for it: Settle lets everything
	// out.
	gather = 250 * time.Millisecond
	// The interval between facts of a series that keeps growing.
	minInterval = time.Second
	maxInterval = 30 * time.Second
)

// seriesName names a series.
type seriesName struct{ study, series string }

// pending is a series that was announced or must be.
type pending struct {
	name     seriesName
	since    uint64    // sequence of the first Dirty that no fact covers
	lowest   uint64    // least local number that no fact covers
	due      time.Time // when it goes out by itself
	sent     time.Time
	interval time.Duration
	failed   error // of the last attempt
}

// coalescer decides when facts go out. It is pure: time is given.
type coalescer struct {
	sequence uint64 // counts Dirty calls
	forced   uint64 // what was dirty up to here goes out now
	dirty    map[seriesName]*pending
	flying   []*pending // taken, not yet applied
	recent   map[seriesName]*pending
	swept    time.Time
	group    time.Time // when the facts go out that have been gathered since gather before it
}

func newCoalescer() coalescer {
	return coalescer{dirty: map[seriesName]*pending{}, recent: map[seriesName]*pending{}}
}

// mark notes a change of a series and returns when it goes out, and whether it
// is the first one: no fact of the series waits or has gone out lately.
func (c *coalescer) mark(name seriesName, number uint64, now time.Time) (due time.Time, first bool) {
	c.sequence++
	if p := c.dirty[name]; p != nil {
		p.lowest = min(p.lowest, number)
		return p.due, false
	}
	p := c.recent[name]
	delete(c.recent, name)
	if p == nil || now.Sub(p.sent) >= 2*maxInterval {
		p, first = &pending{name: name}, true
	}
	p.since, p.lowest, p.failed = c.sequence, number, nil
	p.due = c.together(now)
	if next := p.sent.Add(p.interval); next.After(p.due) {
		p.due = next
	}
	c.dirty[name] = p
	return p.due, first
}

// together returns when a fact that is named now goes out: with all others of
// its group, which begins with its first and not with each of them anew.
func (c *coalescer) together(now time.Time) time.Time {
	if !now.Before(c.group) {
		c.group = now.Add(gather)
	}
	return c.group
}

// force lets out all that is dirty and returns the sequence that will be
// settled when it is.
func (c *coalescer) force() uint64 {
	c.forced = c.sequence
	return c.sequence
}

// take returns the series that must go out now, at most limit, longest waiting
// first; they are flying until landed.
func (c *coalescer) take(now time.Time, limit int) []*pending {
	var taken []*pending
	for _, p := range c.dirty {
		if c.isDue(p, now) {
			taken = append(taken, p)
		}
	}
	slices.SortFunc(taken, func(a, b *pending) int { return cmp.Compare(a.since, b.since) })
	taken = taken[:min(limit, len(taken))]
	for _, p := range taken {
		delete(c.dirty, p.name)
		p.failed = nil
	}
	c.flying = taken
	return taken
}

func (c *coalescer) isDue(p *pending, now time.Time) bool {
	return p.failed == nil && p.since <= c.forced || !p.due.After(now)
}

// land ends the flight: what went out is recent, what failed is dirty again
// and tried later.
func (c *coalescer) land(now time.Time) {
	for _, p := range c.flying {
		p.sent = now
		p.interval = min(max(2*p.interval, minInterval), maxInterval)
		again := c.dirty[p.name] // marked while it flew
		switch {
		case again == nil && p.failed == nil:
			c.recent[p.name] = p
		case again == nil:
			p.due = now.Add(p.interval)
			c.dirty[p.name] = p
		default:
			if p.failed != nil {
				again.since, again.lowest = p.since, min(p.lowest, again.lowest)
			}
			again.sent, again.interval, again.failed = p.sent, p.interval, p.failed
			again.due = now.Add(p.interval)
		}
	}
	c.flying = nil
	if now.Sub(c.swept) < minInterval {
		return
	}
	c.swept = now
	for name, p := range c.recent {
		if now.Sub(p.sent) > 2*p.interval {
			delete(c.recent, name)
		}
	}
}

// next returns when something is due; false when nothing is dirty.
func (c *coalescer) next(now time.Time) (time.Time, bool) {
	var least time.Time
	for _, p := range c.dirty {
		if c.isDue(p, now) {
			return now, true
		}
		if least.IsZero() || p.due.Before(least) {
			least = p.due
		}
	}
	return least, !least.IsZero()
}

// settled reports whether all that was dirty up to a sequence has been applied
// or, with an error, cannot be for now.
func (c *coalescer) settled(sequence uint64) (bool, error) {
	for _, p := range c.flying {
		if p.since <= sequence {
			return false, nil
		}
	}
	var failed error
	for _, p := range c.dirty {
		if p.since > sequence {
			continue
		}
		if p.failed == nil {
			return false, nil
		}
		failed = p.failed
	}
	return true, failed
}

// lowest returns the least local number that no applied fact covers.
func (c *coalescer) lowest() (uint64, bool) {
	var least uint64
	found := false
	each := func(p *pending) {
		if !found || p.lowest < least {
			least, found = p.lowest, true
		}
	}
	for _, p := range c.dirty {
		each(p)
	}
	return least, found
}
