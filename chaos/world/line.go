package world

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Traffic is what one direction between two sites carried.
type Traffic struct {
	Sent      int64 // bytes that senders gave to it, each once, however often it was lost
	Delivered int64 // bytes that receivers took
	Segments  int64 // pieces that were sent, of at most 64 KiB: 0 means that nobody said anything
	Lost      int64 // segments, handshakes and ends that came late because a packet was lost
	Opened    int64 // connections dialled in this direction that reached a node
	Refused   int64 // connections dialled in this direction that were not
}

// Sub returns what came since an earlier reading.
func (t Traffic) Sub(earlier Traffic) Traffic {
	t.Sent -= earlier.Sent
	t.Delivered -= earlier.Delivered
	t.Segments -= earlier.Segments
	t.Lost -= earlier.Lost
	t.Opened -= earlier.Opened
	t.Refused -= earlier.Refused
	return t
}

// line is one direction between two sites: the model. It has no clock of its
// own and starts nothing; now never runs backwards.
type line struct {
	mu      sync.Mutex
	link    Link
	free    time.Time     // when the bottleneck will have sent all it was given
	dice    *rand.Rand    // jitter and loss
	changed chan struct{} // closed when link changes
	traffic Traffic
}

func newLine(l Link, dice *rand.Rand) *line {
	return &line{link: l, dice: dice, changed: make(chan struct{})}
}

// set changes what the line is like. What waits for the bottleneck takes its
// time again at the new rate, as far as later segments notice it; segments that
// were sent keep the time of their arrival, unless the line is cut.
func (l *line) set(now time.Time, link Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.free.Sub(now); wait > 0 && l.link.Rate > 0 {
		l.free = now
		if link.Rate > 0 {
			l.free = now.Add(link.Rate.Time(l.link.Rate.Bytes(wait)))
		}
	}
	l.link = link
	close(l.changed)
	l.changed = make(chan struct{})
}

// now returns what the line is like, and a channel that is closed when that changes.
func (l *line) now() (Link, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.link, l.changed
}

// room says how many bytes the bottleneck takes, or how long to wait until it
// takes some: the back-pressure of a full queue.
func (l *line) room(now time.Time) (bytes int64, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.link.segment()
	if l.link.Rate == 0 {
		return n, 0
	}
	if over := l.link.Rate.Bytes(max(0, l.free.Sub(now))) + n - l.link.queue(); over > 0 {
		return 0, l.link.Rate.Time(over)
	}
	return n, 0
}

// send puts n bytes into the bottleneck and says when the last of them arrives
// if nothing happens to it, and whether something does. 0 bytes are a packet
// without payload: an opening or an end.
func (l *line) send(now time.Time, n int) (arrives time.Time, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := now
	if l.link.Rate > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(l.link.Rate.Time(int64(n)))
		sent = l.free
	}
	delay := l.link.Delay
	if l.link.Jitter > 0 {
		delay += time.Duration(l.dice.Int64N(int64(l.link.Jitter) + 1))
	}
	if l.link.Loss > 0 {
		packets := max(1, (n+packet-1)/packet)
		lost = l.dice.Float64() >= math.Pow(1-l.link.Loss, float64(packets))
	}
	if n > 0 {
		l.traffic.Sent += int64(n)
		l.traffic.Segments++
	}
	if lost {
		l.traffic.Lost++
	}
	return sent.Add(delay), lost
}

// count changes the traffic.
func (l *line) count(change func(*Traffic)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.traffic)
}

// read returns the traffic until now.
func (l *line) read() Traffic {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.traffic
}
