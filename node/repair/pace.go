package repair

import (
	"context"
	"math"
	"sync"
	"time"

	"pelago/shard"
)

const (
	// windowLeaves are read at once, about 1 MiB, and quietLeaves while others use the
	// node or its source: a reader waits behind one of them at most.
	windowLeaves = 64
	quietLeaves  = 16
	// windowsAhead is how many windows of a shard are on their way at a time.
	windowsAhead = 3

	// share is the part of the rate that was reached without others that repair takes
	// beside them at most, or highRate, in bytes a second, and lowRate what it takes at
	// least, where it begins: a network that is always read must come to an end with its
	// repairs.
	share    = 0.15
	highRate = 4 << 20
	lowRate  = 1 << 20
	// steps of a second lead from lowRate to the most: too much is found out a second
	// after, by readers, too.
	steps = 64
	// late is when a timer is that fires so long after its time: the processors have
	// others to serve, whom readers wait behind as repair does. When more than one of
	// tooLate timers is, repair halves its rate.
	late    = 3 * time.Millisecond
	tooLate = 10
	// besideOthers are brought at a time beside others: at most so many are decoded,
	// hashed and synced.
	besideOthers = 2
	// freeRate ends that repair holds back once others are gone: until then it doubles its
	// rate each second, for readers pause to look at what they read.
	freeRate = 64 << 20
)

// pacer lets readers and stores go first. Alone, repair is as fast as it can be; beside
// others it begins slowly, and is as fast as leaves the processors free.
type pacer struct {
	busy   func() bool            // here
	busyAt func(node string) bool // there

	mu     sync.Mutex
	next   time.Time // when the next bytes may go
	began  time.Time // of the second that is measured
	bytes  int64     // in it
	quiet  bool      // nobody else was there in it
	best   float64   // bytes a second that were reached alone, in the last minutes
	others bool      // were there when bytes were asked for last, or a moment before
	rate   float64   // bytes a second beside others; 0: none were there for a while
	timers int       // that fired in this second,
	slow   int       // of these, late
	inside int       // workers that bring shards
	freed  chan struct{}
}

// enter waits until another shard may be brought; leave must be called after it.
func (p *pacer) enter(ctx context.Context) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		here := p.busy()
		p.mu.Lock()
		if p.freed == nil {
			p.freed = make(chan struct{})
		}
		freed := p.freed
		if p.inside < besideOthers || !here && !p.others {
			p.inside++
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		select {
		case <-freed:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return false
}

func (p *pacer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inside--
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// window is how many leaves to ask for at once.
func (p *pacer) window() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.others {
		return quietLeaves
	}
	return windowLeaves
}

// beside reports whether there were others when bytes were asked for last.
func (p *pacer) beside() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.others
}

// take waits until so many bytes may come from a node.
func (p *pacer) take(ctx context.Context, node string, n int64) error {
	busy := func() bool { return p.busy() || p.busyAt(node) }
	until := p.turn(busy(), n, time.Now())
	for wait := time.Until(until); !until.IsZero() && wait > 0; wait = time.Until(until) {
		wait = min(wait, 250*time.Millisecond)
		due := time.Now().Add(wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			p.fired(time.Since(due))
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// fired notes how long after its time a timer fired.
func (p *pacer) fired(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timers++
	if after > late {
		p.slow++
	}
}

// turn says when the bytes may go; zero: now.
func (p *pacer) turn(busy bool, n int64, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measureLocked(n, busy, now)
	if busy && p.rate == 0 {
		p.rate = lowRate
	}
	if p.others = p.rate != 0; !p.others {
		p.next = time.Time{}
		return time.Time{}
	}
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	return at
}

// adaptLocked changes the rate after a second.
func (p *pacer) adaptLocked(took time.Duration) {
	slow, timers := p.slow, p.timers
	p.slow, p.timers = 0, 0
	most := max(highRate, share*p.best)
	switch {
	case p.rate == 0 || took > time.Minute:
		p.rate = 0 // what was reached then tells nothing now
	case p.quiet: // they are gone
		if p.rate *= math.Pow(2, min(took.Seconds(), 60)); p.rate >= min(freeRate, max(p.best/2, highRate)) {
			p.rate = 0
		}
	case slow*tooLate > timers:
		p.rate = max(lowRate, p.rate/2)
	default:
		p.rate = max(lowRate, min(most, p.rate+most/steps))
	}
}

// measureLocked counts bytes, and closes a second.
func (p *pacer) measureLocked(n int64, busy bool, now time.Time) {
	if p.began.IsZero() {
		p.began, p.quiet = now, true
	}
	if took := now.Sub(p.began); took >= time.Second {
		reached := float64(p.bytes) / took.Seconds()
		if p.quiet {
			p.best = max(reached, p.best*0.995)
		}
		p.adaptLocked(took)
		p.began, p.bytes, p.quiet = now, 0, true
	}
	p.bytes += n
	p.quiet = p.quiet && !busy
}

// meter tells how fast something is lately.
type meter struct {
	mu    sync.Mutex
	began time.Time // of the second that is measured
	bytes int64     // in it
	rate  float64   // of about the last ten seconds
}

func (m *meter) add(n int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeLocked(now)
	m.bytes += n
}

func (m *meter) perSecond(now time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeLocked(now)
	return m.rate
}

func (m *meter) closeLocked(now time.Time) {
	if m.began.IsZero() {
		m.began = now
	}
	if took := now.Sub(m.began).Seconds(); took >= 1 {
		m.rate += (float64(m.bytes)/took - m.rate) * min(1, took/10)
		m.began, m.bytes = now, 0
	}
}

// badNodes remembers for a while who did not answer, so that not every shard waits
// for him again.
type badNodes struct {
	mu    sync.Mutex
	until map[string]time.Time
}

const badTime = 20 * time.Second

func (b *badNodes) note(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until == nil || len(b.until) > 4096 { // members are fewer
		b.until = map[string]time.Time{}
	}
	b.until[node] = time.Now().Add(badTime)
}

func (b *badNodes) is(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.until[node]
	return ok && time.Now().Before(until)
}

// bytesOf is the length of a shard, about.
func bytesOf(g shard.Geometry, i int) int64 { return g.ShardBytes(i) + g.ShardBytes(i)/500 + 1024 }
