package recall

import (
	"slices"
	"sync"
	"time"
)

// Hints is what gossip says of a node. It may be wrong: who is thought to be down
// is asked last, and now and then. Calls are many and must be cheap.
type Hints interface {
	// Hint returns whether a node is thought to be up, and how far it is; 0: unknown.
	Hint(node string) (up bool, rtt time.Duration)
}

const (
	// unknownFirst and unknownRate are what is expected of a node of which nothing is
	// known: another hospital, over 400 Mb/s.
	unknownFirst = 50 * time.Millisecond
	unknownRate  = 50e6 // bytes a second
	// worse and better are what an answer weighs in an estimate: a fast one proves that
	// the node is, a slow one may have any reason, and counts for no more than surprise
	// times what was expected.
	worse, better, surprise = 0.25, 0.75, 3
	// measured is the least that tells a rate, full the part of what our link can carry
	// at which it is that which is measured.
	measured, full = 64 << 10, 0.8
	// halfLife, in minutes, is how soon the rate of our link is forgotten.
	halfLife = 10
	// enough answers tell a p95; until then one may take usual times as long as
	// expected to begin.
	enough, usual = 20, 3
	// minPatience and maxPatience bound how much later than expected an answer may
	// begin before another is asked for: what a busy processor costs, and what a
	// reader notices.
	minPatience, maxPatience = 5 * time.Millisecond, time.Second
	// late is how many times its patience an answer may take to begin before it is
	// taken for lost, and how many times what another way takes its rest may take.
	late = 3
	// maxStrikes is how many lost races make a node slow.
	maxStrikes = 2
	// minPause and maxPause are how long a node is avoided, doubling.
	minPause, maxPause = time.Second, time.Minute
	// retrySuspected and retryFar are how often a node is asked nevertheless that is
	// suspected by gossip, or that others are far cheaper than.
	retrySuspected, retryFar = 10 * time.Second, 30 * time.Second
	// maxPeers bounds what is remembered, above the ways in the largest network.
	maxPeers = 4096
)

// Peers remembers how soon nodes answer and which failed, for all readers of a
// node. Make it by [NewPeers].
type Peers struct {
	hints Hints

	mu      sync.Mutex // guards what follows
	of      map[way]*peer
	link    flow      // of all peers together: our own link
	learned time.Time // the link's rate
}

// way is how a node is asked; each has an estimate of its own.
type way struct{ node, via string }

func (p Place) way() way { return way{p.Node, p.Via} }

// flow is bytes on their way, and how many have come in all.
type flow struct {
	asked, came int64
	rate        float64 // bytes a second; 0: unknown
}

// peer is what is known of one way.
type peer struct {
	flow
	first    time.Duration     // to the first byte, smoothed
	began    [64]time.Duration // after which the last answers did
	seen     int               // answers
	strikes  int               // races lost since one was in time
	tried    time.Time         // the last time
	pause    time.Duration     // for which it is avoided; 0: it is not
	tryAgain time.Time         // then
}

// NewPeers returns what knows nothing yet. hints may be nil.
func NewPeers(hints Hints) *Peers { return &Peers{hints: hints, of: map[way]*peer{}} }

// atLocked returns what is known of a way; of a new one that it is so far.
func (p *Peers) atLocked(w way, rtt time.Duration) *peer {
	one := p.of[w]
	if one == nil {
		if len(p.of) >= maxPeers {
			p.forgetLocked()
		}
		one = &peer{first: unknownFirst, flow: flow{rate: unknownRate}}
		if rtt > 0 {
			one.first = rtt
		}
		p.of[w] = one
	}
	return one
}

// forgetLocked drops what is known of all that are not being asked.
func (p *Peers) forgetLocked() {
	for w, one := range p.of {
		if one.asked == 0 {
			delete(p.of, w)
		}
	}
}

func (p *Peers) hint(w way) (up bool, rtt time.Duration) {
	if p.hints == nil {
		return true, 0
	}
	up, rtt = p.hints.Hint(w.node)
	if w.via != "" {
		relay, more := p.hints.Hint(w.via)
		return up && relay, rtt + more
	}
	return up, rtt
}

// standing is what may be asked of a node.
type standing int

const (
	good    standing = iota
	due              // avoided, and to be tried again now
	avoided          // asked if nobody else is left
)

// standing returns a node's, what an answer of so many bytes takes that comes with
// others, total bytes in all, beside what is on its way over our link, and what it
// takes behind all else that the node was asked for.
func (p *Peers) standing(w way, bytes, total int64, now time.Time) (_ standing, cost, queued time.Duration) {
	up, rtt := p.hint(w)
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.atLocked(w, rtt)
	cost = one.first + max(transfer(bytes, one.rate), transfer(p.link.asked+total, p.link.rate))
	queued = one.first + transfer(one.asked+bytes, one.rate)
	switch {
	case one.pause == 0 && up:
		return good, cost, queued
	case now.Before(one.tryAgain), !up && now.Sub(one.tried) < retrySuspected:
		return avoided, cost, queued
	}
	return due, cost, queued
}

// rested reports whether a node was not asked for long.
func (p *Peers) rested(w way, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.atLocked(w, 0).tried) >= retryFar
}

func transfer(bytes int64, rate float64) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}

// noteLocked notes after which time an answer began.
func (p *peer) noteLocked(began time.Duration) {
	p.began[p.seen%len(p.began)] = began
	p.seen++
}

// p95 is the time within which 95 of 100 answers began.
func (p *peer) p95() time.Duration {
	if p.seen < enough {
		return usual * p.first
	}
	all := slices.Clone(p.began[:min(p.seen, len(p.began))])
	slices.Sort(all)
	return all[(len(all)*95+99)/100-1]
}
