package recall

import (
	"math"
	"time"
)

// exchange is one request as [Peers] sees it.
type exchange struct {
	peers *Peers
	peer  *peer
	bytes int64
	left  int64 // of them, that have not come
	probe bool  // of a node that was not good

	started, first time.Time // first: of the body
	firstBytes     int64
	peerAt, linkAt int64 // what had come in all with the first byte
	patience       time.Duration
	look           time.Time // when to look whether it takes too long
	late           time.Time // when it may be taken for lost
	overdue        bool      // it did
	struck         bool      // and that counted against the node
}

// begin notes that a node is asked for bytes, and how it stood before that.
func (p *Peers) begin(w way, bytes int64, stood standing, now time.Time) *exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.atLocked(w, 0)
	one.tried = now
	if stood == due {
		one.tryAgain = now.Add(max(one.pause, minPause)) // others do not, meanwhile
	}
	one.asked += bytes
	p.link.asked += bytes
	x := &exchange{peers: p, peer: one, bytes: bytes, left: bytes, probe: stood != good, started: now}
	x.patience = min(max(one.p95(), one.first+minPatience), one.first+maxPatience)
	x.look, x.late = now.Add(x.patience), now.Add(late*x.patience)
	return x
}

// came notes that n more bytes are here.
func (x *exchange) came(n int64, now time.Time) {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	n = min(n, x.left) // what was not asked for
	x.left -= n
	for _, f := range [...]*flow{&x.peer.flow, &x.peers.link} {
		f.asked -= n
		f.came += n
	}
	if !x.first.IsZero() {
		return
	}
	x.first, x.firstBytes = now, n
	x.peerAt, x.linkAt = x.peer.came, x.peers.link.came
	// All that is on its way comes beside it.
	rest := max(transfer(x.peer.asked, x.peer.rate), transfer(x.peers.link.asked, x.peers.link.rate))
	x.look = now.Add(rest + minPatience)
	x.late = x.look.Add((late - 1) * x.patience)
}

// looks is when to judge it.
func (x *exchange) looks() time.Time {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	return x.look
}

// verdict is whether an answer takes too long.
type verdict int

const (
	inTime verdict = iota
	overdue
	lateNow
)

// judge looks at an answer. instead is what it would take to ask another way now;
// overdue is said once.
func (x *exchange) judge(instead time.Duration, now time.Time) verdict {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	if now.Before(x.look) {
		return inTime
	}
	lost := !now.Before(x.late)
	if x.first.IsZero() {
		x.look = x.late
	} else {
		rest := x.restLocked(now)
		x.look = now.Add(min(max(rest/2, minPatience), x.patience))
		if rest <= instead { // what is nearly here does not come sooner from another
			return inTime
		}
		lost = lost && rest > late*instead
	}
	was := x.overdue
	x.overdue = true
	switch {
	case lost:
		return lateNow
	case was:
		return inTime
	}
	return overdue
}

// restLocked is how long the rest of the body takes at its pace.
func (x *exchange) restLocked(now time.Time) time.Duration {
	pace := float64(x.bytes-x.left-x.firstBytes) / now.Sub(x.first).Seconds()
	switch {
	case x.left == 0:
		return 0
	case pace > 0:
		return transfer(x.left, pace)
	}
	return math.MaxInt64 / 4
}

// endLocked notes that no more will come.
func (x *exchange) endLocked() {
	x.peer.asked -= x.left
	x.peers.link.asked -= x.left
	x.left = 0
}

// answered notes that an answer came, whatever it was.
func (x *exchange) answered(now time.Time) {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	if x.first.IsZero() { // there was nothing to come
		x.first = now
	}
	x.learnLocked(now)
	x.endLocked()
	if !x.overdue {
		x.peer.strikes, x.peer.pause = 0, 0
	}
}

// learnLocked learns from an answer that began, as far as it came.
func (x *exchange) learnLocked(now time.Time) {
	one, began := x.peer, x.first.Sub(x.started)
	switch {
	case one.seen == 0:
		one.first = began
	case began < one.first:
		one.first += time.Duration(better * float64(began-one.first))
	default:
		one.first += time.Duration(worse * float64(min(began, surprise*one.first+time.Millisecond)-one.first))
	}
	x.rateLocked(now)
	one.noteLocked(began)
}

// rateLocked learns the rates of the peer and of our link from what came in all
// while the body did.
func (x *exchange) rateLocked(now time.Time) {
	body := now.Sub(x.first).Seconds()
	if body <= 0 || x.bytes-x.left-x.firstBytes < measured {
		return
	}
	// Our link is as fast as it was at best, lately: mostly it waits for a peer.
	one, link := x.peer, &x.peers.link
	all := float64(link.came-x.linkAt) / body
	link.rate = max(all, link.rate*math.Exp2(-now.Sub(x.peers.learned).Minutes()/halfLife))
	x.peers.learned = now
	rate := float64(one.came-x.peerAt) / body
	switch {
	case all > full*link.rate: // we took what we can, so that the peer may be faster
		one.rate = max(one.rate, rate)
	case one.seen == 0:
		one.rate = rate
	case rate > one.rate:
		one.rate += better * (rate - one.rate)
	default:
		one.rate += worse * (max(rate, one.rate/surprise) - one.rate)
	}
}

// broke notes that the node failed, at the moment.
func (x *exchange) broke(now time.Time) {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	x.endLocked()
	x.avoidLocked(now)
}

// avoidLocked leaves the node alone for twice as long as the last time. Of several
// requests that fail together only the first counts.
func (x *exchange) avoidLocked(now time.Time) {
	one := x.peer
	if one.pause > 0 && x.started.Before(one.tryAgain.Add(-one.pause)) {
		return
	}
	one.pause = min(max(2*one.pause, minPause), maxPause)
	one.tryAgain = now.Add(one.pause)
}

// lost notes that the answer is not wanted any more, as others were sooner. What came
// of it tells whether the node is slow.
func (x *exchange) lost(now time.Time) {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	defer x.endLocked()
	if x.first.IsZero() {
		if x.overdue || x.probe {
			x.peer.noteLocked(now.Sub(x.started)) // at least, lest the p95 forgets what is slow
			x.strikeLocked(now)
		}
		return
	}
	x.learnLocked(now)
	switch well := x.restLocked(now) <= x.patience; {
	case x.overdue, !well && x.probe:
		x.strikeLocked(now)
	case x.probe:
		x.peer.strikes, x.peer.pause = 0, 0
	}
}

// strike notes that the answer is taken for lost, though it may still come.
func (x *exchange) strike(now time.Time) {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	x.strikeLocked(now)
}

func (x *exchange) strikeLocked(now time.Time) {
	if x.struck {
		return
	}
	x.struck = true
	x.peer.strikes++
	if x.peer.strikes >= maxStrikes || x.probe {
		x.avoidLocked(now)
	}
}

// forget notes that nobody waits any more, or that the answer tells nothing of the
// node's speed.
func (x *exchange) forget() {
	x.peers.mu.Lock()
	defer x.peers.mu.Unlock()
	x.endLocked()
}
