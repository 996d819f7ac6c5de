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
//
// Its bottlenecks, its own and those of the sites that it shares with other
// lines, serve a segment side by side: it leaves when the slowest has served it.
type line struct {
	bottlenecks []*bottleneck // its own first

	mu      sync.Mutex
	link    Link
	dice    *rand.Rand    // jitter and loss
	changed chan struct{} // closed when link changes
	traffic Traffic
}

// newLine returns a line of which some bottlenecks belong to others.
func newLine(l Link, dice *rand.Rand, shared ...*bottleneck) *line {
	own := &bottleneck{rate: l.Rate, queue: l.Queue}
	return &line{bottlenecks: append([]*bottleneck{own}, shared...), link: l, dice: dice, changed: make(chan struct{})}
}

// change edits what the line is like. What waits for its bottleneck takes its
// time again at the new rate, as far as later segments notice it; segments that
// were sent keep the time of their arrival, unless the line is cut.
func (l *line) change(now time.Time, edit func(*Link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	edit(&l.link)
	l.bottlenecks[0].set(now, l.link.Rate, l.link.Queue)
	l.wakeLocked()
}

// wake makes those who wait for room look again.
func (l *line) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

func (l *line) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// now returns what the line is like, and a channel that is closed when that changes.
func (l *line) now() (Link, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.link, l.changed
}

// room says how many bytes the bottlenecks take, or how long to wait until they
// take some: the back-pressure of a full queue.
func (l *line) room(now time.Time) (bytes int64, wait time.Duration) {
	link, _ := l.now()
	bytes = maxSegment
	if link.SlowStart {
		bytes = initialWindow // of which one leaves after an idle while
	}
	for _, b := range l.bottlenecks {
		bytes = min(bytes, b.segment())
	}
	for _, b := range l.bottlenecks {
		wait = max(wait, b.wait(now, bytes))
	}
	if wait > 0 {
		return 0, wait
	}
	return bytes, 0
}

// send puts n bytes into the bottlenecks and says when the last of them arrives
// if nothing happens to it, and whether something does. 0 bytes are a packet
// without payload: an opening or an end.
func (l *line) send(now time.Time, n int) (arrives time.Time, lost bool) {
	sent := now
	for _, b := range l.bottlenecks {
		if served := b.pass(now, int64(n)); served.After(sent) {
			sent = served
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
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
