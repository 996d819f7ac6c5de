package journal

import (
	"cmp"
	"slices"
	"time"

	"pelago/replication/catalog"
)

const (
	// gather is how long the first of a group of facts waits for others to share its
	// sync, its signature and its entry (DESIGN §6: a batch every 250 ms).
	gather = 250 * time.Millisecond
	// The interval between logged facts of a series that keeps growing, which
	// doubles: each costs bytes at every site (decision 0026).
	minInterval = 15 * time.Second
	maxInterval = 30 * time.Second
	// quiet is how long a series rests until it is logged nevertheless: perhaps it
	// has ended. Those that rest again and again, as each image is awaited, are
	// logged ever more rarely: at first minGap after the last time, which doubles.
	quiet = time.Second
	// minGap is the least time between two logged facts of a series, also when its
	// arrivals have ended: an association an image would be a fact an image otherwise.
	minGap = time.Second
	// minRetry is after what time a fact that could not be made is tried again.
	minRetry = time.Second
)

// noNumber is the local number of changes that no instance made.
const noNumber = ^uint64(0)

// seriesName names a series.
type seriesName struct{ study, series string }

// pending is a series of which something is not logged, or was not until lately.
type pending struct {
	name   seriesName
	untold uint64              // sequence of the first change that the catalogue here does not know; 0: it knows all
	lowest uint64              // least local number that no logged fact covers
	bound  bool                // it is not told before it is logged
	asOf   uint64              // local number up to which the last fact covers the series
	fact   *catalog.SeriesFact // told and not logged; nil: to be made
	since  time.Time           // when the log began to lack it, which is announced again; zero: it waits for its turn

	changed  time.Time     // last
	due      time.Time     // when it is to be logged, if it goes on changing
	sent     time.Time     // when it was logged last
	interval time.Duration // to the next time after sent, while it changes
	calm     time.Duration // the same, when it rests

	fate   fate
	failed error // of the last attempt
}

// fate is what became of a series that was taken.
type fate uint8

const (
	failed fate = iota // nothing could be told
	told               // to the catalogue here; still to be logged
	logged             // and told
	left               // told; to be logged when there is room, by whoever remembers its lowest number
)

// coalescer decides when facts go out. It is pure: time is given.
type coalescer struct {
	sequence uint64 // counts changes
	forced   uint64 // changes up to here are told now
	dirty    map[seriesName]*pending
	flying   []*pending // taken, not yet landed
	recent   map[seriesName]*pending
	swept    time.Time
	group    time.Time // when the facts are logged that have been gathered since gather before it
}

func newCoalescer() coalescer {
	return coalescer{dirty: map[seriesName]*pending{}, recent: map[seriesName]*pending{}}
}

// mark notes a change of a series and returns what waits, and whether it is the
// first: no fact of the series waits or has gone out lately.
func (c *coalescer) mark(name seriesName, number uint64, now time.Time) (p *pending, first bool) {
	c.sequence++
	p = c.dirty[name]
	if p == nil {
		p = c.recent[name]
		delete(c.recent, name)
		if p == nil || now.Sub(p.sent) >= 2*maxInterval {
			p, first = &pending{name: name}, true
		}
		p.lowest, p.failed = noNumber, nil
		p.due = later(c.together(now), p.sent.Add(p.interval))
		c.dirty[name] = p
	}
	p.lowest, p.fact, p.changed = min(p.lowest, number), nil, now
	if p.untold == 0 {
		p.untold = c.sequence
	}
	return p, first
}

// bind makes a change count as told only once it is logged, which is at once.
func (c *coalescer) bind(name seriesName, now time.Time) *pending {
	p, _ := c.mark(name, noNumber, now)
	p.bound = true
	return p
}

// when returns when a series is to be logged.
func (p *pending) when() time.Time {
	if p.sent.IsZero() || p.failed != nil {
		return p.due
	}
	if rests := later(p.changed.Add(quiet), p.sent.Add(p.calm)); rests.Before(p.due) {
		return rests
	}
	return p.due
}

// rides reports whether a series may as well be logged in a batch that goes out
// anyway: it has not been for half of its interval.
func (p *pending) rides(now time.Time) bool {
	return p.failed == nil && !now.Before(p.sent.Add(p.interval/2))
}

// together returns when a fact that is named now goes out: with all others of
// its group, which begins with its first and not with each of them anew.
func (c *coalescer) together(now time.Time) time.Time {
	if !now.Before(c.group) {
		c.group = now.Add(gather)
	}
	return c.group
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// end has what is dirty of studies logged soon: no more of them is on its way.
func (c *coalescer) end(studies []string, now time.Time) {
	for name, p := range c.dirty {
		if !slices.Contains(studies, name.study) {
			continue
		}
		if soon := later(now, p.sent.Add(minGap)); p.failed == nil && soon.Before(p.due) {
			p.due = soon
		}
	}
}

// force lets the catalogue here know all that is dirty, and returns the sequence
// that is settled when it does.
func (c *coalescer) force() uint64 {
	c.forced = c.sequence
	return c.sequence
}

// take returns the series that must go out now, at most limit, longest waiting
// first; they are flying until landed. With those that are due go others to which
// that is worth it. The rest is not to be logged yet, unless it is bound.
func (c *coalescer) take(now time.Time, limit int) []*pending {
	var taken []*pending
	batch := false
	for _, p := range c.dirty {
		batch = batch || p.isDue(now)
	}
	for _, p := range c.dirty {
		if batch && p.rides(now) && !p.isDue(now) {
			p.due = now
		}
		if p.isDue(now) || c.isForced(p) {
			taken = append(taken, p)
		}
	}
	slices.SortFunc(taken, func(a, b *pending) int {
		return cmp.Or(cmp.Compare(a.untold, b.untold), cmp.Compare(a.lowest, b.lowest), cmp.Compare(a.name.series, b.name.series))
	})
	taken = taken[:min(limit, len(taken))]
	for _, p := range taken {
		delete(c.dirty, p.name)
		p.fate, p.failed = failed, nil
	}
	c.flying = taken
	return taken
}

func (p *pending) isDue(now time.Time) bool { return !p.when().After(now) }

func (c *coalescer) isForced(p *pending) bool {
	return p.failed == nil && p.untold != 0 && p.untold <= c.forced
}

// land ends the flight: what was logged is recent, what was told waits to be
// logged, what failed is tried again later.
func (c *coalescer) land(now time.Time) {
	for _, p := range c.flying {
		again := c.dirty[p.name] // marked while it flew
		if again != nil {
			p.fact = nil
		}
		switch p.fate {
		case failed:
			p.due = now.Add(max(p.interval, minRetry))
			p.interval = min(2*max(p.interval, minRetry), maxInterval)
		case told:
			p.untold = 0
		case logged, left:
			p.sent, p.untold, p.bound, p.fact, p.since = now, 0, false, nil, time.Time{}
			p.interval = min(max(2*p.interval, minInterval), maxInterval)
			p.calm = min(max(2*p.calm, minGap), maxInterval)
			p.lowest = noNumber
			p.due = now.Add(p.interval)
			if again == nil {
				c.recent[p.name] = p
				continue
			}
		}
		if again != nil {
			if p.untold == 0 {
				p.untold = again.untold
			}
			p.lowest, p.bound, p.changed = min(p.lowest, again.lowest), p.bound || again.bound, again.changed
		}
		c.dirty[p.name] = p
	}
	c.flying = nil
	c.sweep(now)
}

// sweep forgets the series that have not grown for long.
func (c *coalescer) sweep(now time.Time) {
	if now.Sub(c.swept) < minGap {
		return
	}
	c.swept = now
	for name, p := range c.recent {
		if now.Sub(p.sent) > 2*p.interval {
			delete(c.recent, name)
		}
	}
}

// forget drops what is remembered of series that were logged or told: the log is
// void, and facts of its incarnation are.
func (c *coalescer) forget() {
	clear(c.recent)
	c.untell()
}

// untell has everything told again that is not logged.
func (c *coalescer) untell() {
	c.sequence++
	for _, p := range c.dirty {
		p.fact = nil
		if p.untold == 0 {
			p.untold = c.sequence
		}
	}
}

// covers reports whether a fact that went out lately, and nothing after it,
// covers a local number of a series.
func (c *coalescer) covers(name seriesName, number uint64, leftToo bool) bool {
	p := c.recent[name]
	return p != nil && p.asOf >= number && (leftToo || p.fate == logged)
}

// next returns when something is due; false when nothing is dirty.
func (c *coalescer) next(now time.Time) (time.Time, bool) {
	var least time.Time
	for _, p := range c.dirty {
		if c.isForced(p) {
			return now, true
		}
		if due := p.when(); least.IsZero() || due.Before(least) {
			least = due
		}
	}
	return least, !least.IsZero()
}

// settled reports whether the catalogue here knows all that was dirty up to a
// sequence or, with an error, cannot for now.
func (c *coalescer) settled(sequence uint64) (bool, error) {
	for _, p := range c.flying {
		if p.untold != 0 && p.untold <= sequence {
			return false, nil
		}
	}
	var failed error
	for _, p := range c.dirty {
		switch {
		case p.untold == 0 || p.untold > sequence:
		case p.failed == nil:
			return false, nil
		default:
			failed = p.failed
		}
	}
	return true, failed
}

// hasten has what is not logged of the numbers up to one logged soon, and reports
// whether anything would have been later.
func (c *coalescer) hasten(to uint64, now time.Time) (any bool) {
	for _, p := range c.dirty {
		if soon := later(now, p.sent.Add(minGap)); p.lowest <= to && p.failed == nil && soon.Before(p.due) {
			p.due, any = soon, true
		}
	}
	return any
}

// logged reports whether logged facts cover all numbers up to one or, with an
// error, cannot for now. What is left out of the log is not its to know.
func (c *coalescer) logged(to uint64) (bool, error) {
	for _, p := range c.flying {
		if p.lowest <= to {
			return false, nil
		}
	}
	done := true
	for _, p := range c.dirty {
		if p.lowest > to {
			continue
		}
		done = false
		if p.failed != nil {
			return false, p.failed
		}
	}
	return done, nil
}

// lowest returns the least local number that no logged fact covers, of what is
// not flying; noNumber when all are.
func (c *coalescer) lowest() uint64 {
	least := noNumber
	for _, p := range c.dirty {
		least = min(least, p.lowest)
	}
	return least
}
