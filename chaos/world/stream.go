package world

import (
	"errors"
	"io"
	"sync"
	"time"
)

// maxSegments is how many segments of a connection may be on their way in one
// direction, for senders whose writes are far smaller than a segment.
const maxSegments = 4096

// readBuffer is what the kernel may hold of a sender beside the model's queue:
// what 1 Gb/s needs while we sleep for a millisecond or two.
const readBuffer = 256 << 10

// segment is a piece of a stream on its way.
type segment struct {
	bytes []byte // of a pool of the world
	at    time.Time
	lost  bool
	end   end
}

// end says whether and how the sender has ended.
type end uint8

const (
	goesOn end = iota
	closed     // a FIN
	resets     // a RST
)

// stream is one direction of a connection.
//
// Two goroutines move it. send reads what the sender wrote when window and
// bottleneck have room; deliver waits until it has arrived and writes it.
type stream struct {
	c         *conn
	line      *line // the way there
	back      *line // the way of the acknowledgements
	src, dst  Conn
	launched  chan struct{} // holds one: there is more on its way
	delivered chan struct{} // holds one: there is less, and more acknowledgements

	mu     sync.Mutex
	window window
	onWay  []segment // at most maxSegments and an end
}

func newStream(c *conn, there, back *line, src, dst Conn) *stream {
	if b, ok := src.(interface{ SetReadBuffer(bytes int) error }); ok {
		// What the kernel holds for us is beyond the model: let it be little.
		_ = b.SetReadBuffer(readBuffer) // fails on a connection that is gone already
	}
	return &stream{
		c: c, line: there, back: back, src: src, dst: dst,
		launched: make(chan struct{}, 1), delivered: make(chan struct{}, 1),
	}
}

// A busy machine wakes us late, and a bottleneck that others wait for does not
// pause meanwhile: a segment that lay ready leaves when it could have left.
const (
	maxLate = 100 * time.Millisecond // that is made good
	noWait  = time.Millisecond       // of a read for which everything lay ready
)

// send reads the sender until it ends, not before the time given.
func (s *stream) send(from time.Time) {
	clock := newAlarm()
	defer clock.stop()
	if !clock.until(from, s.c.done) {
		return
	}
	ready, large := from, false
	for {
		room, opened, ok := s.room(clock)
		if !ok {
			return
		}
		if opened.After(ready) {
			ready = opened
		}
		want := min(room, smallBuffer)
		if large {
			want = room
		}
		buf := s.c.world.buffers.get(int(want))
		asked := time.Now()
		n, err := s.src.Read(buf[:want])
		now := time.Now()
		large = int64(n) == want
		if !large || now.Sub(asked) > noWait || now.Sub(ready) > maxLate {
			ready = now
		}
		piece := segment{bytes: s.c.world.buffers.fit(buf, n)}
		switch {
		case errors.Is(err, io.EOF):
			piece.end = closed
		case err != nil:
			piece.end = resets
		case n == 0:
			continue
		}
		s.launch(piece, ready)
		if piece.end != goesOn {
			return
		}
	}
}

// launch sends a segment on its way, as of the time given.
func (s *stream) launch(piece segment, now time.Time) {
	there, _ := s.line.now()
	back, _ := s.back.now()
	rto, _ := there.rto(back)
	piece.at, piece.lost = s.line.send(now, len(piece.bytes))
	s.mu.Lock()
	s.window.sent(now, int64(len(piece.bytes)), rto)
	if piece.lost {
		s.window.lost()
	}
	s.onWay = append(s.onWay, piece)
	s.mu.Unlock()
	signal(s.launched)
}

// next takes the first segment from those on their way, or waits for one. It is
// false when the connection has ended.
func (s *stream) next() (piece segment, ok bool) {
	for {
		s.mu.Lock()
		if len(s.onWay) > 0 {
			piece, s.onWay[0] = s.onWay[0], segment{}
			s.onWay = s.onWay[1:]
			s.mu.Unlock()
			return piece, true
		}
		s.onWay = nil // an idle connection holds nothing
		s.mu.Unlock()
		select {
		case <-s.launched:
		case <-s.c.done:
			return segment{}, false
		}
	}
}

// signal wakes who waits for a channel that holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// room waits until window and bottleneck have room and says how much, and when
// the window opened if it was shut. It is false when the connection has ended.
func (s *stream) room(clock *alarm) (bytes int64, opened time.Time, ok bool) {
	for {
		now := time.Now()
		there, changed := s.line.now()
		back, healed := s.back.now()
		s.mu.Lock()
		if back.Cut == Open { // else the acknowledgements are lost too
			s.window.settle(now, there)
		}
		window, next := s.window.room(there)
		if len(s.onWay) >= maxSegments {
			window, next = 0, time.Time{}
		}
		s.mu.Unlock()
		if window == 0 {
			var wake <-chan time.Time
			if back.Cut == Open && !next.IsZero() {
				wake = clock.at(next)
			}
			select {
			case <-wake:
				opened = next
				continue
			case <-s.delivered:
			case <-changed:
			case <-healed:
			case <-s.c.done:
				return 0, opened, false
			}
			opened = time.Now()
			continue
		}
		queue, wait := s.line.room(now)
		if queue > 0 {
			return min(window, queue), opened, true
		}
		select {
		case <-clock.at(now.Add(wait)):
		case <-changed:
		case <-s.c.done:
			return 0, opened, false
		}
	}
}

// deliver writes what arrives until the sender's end has arrived.
func (s *stream) deliver() {
	clock := newAlarm()
	defer clock.stop()
	for {
		piece, ok := s.next()
		if !ok || !s.arrive(piece, clock) {
			return
		}
		err := s.write(piece.bytes)
		switch {
		case err != nil: // the receiver is gone, of which the sender hears on the way back
			s.resetBack(clock)
			return
		case piece.end == closed:
			_ = s.dst.CloseWrite() // an error means that the receiver is gone, as it may be
			return
		case piece.end == resets:
			s.c.abort()
			return
		}
	}
}

// write gives the receiver what has arrived, which may take as long as it likes.
func (s *stream) write(arrived []byte) error {
	defer s.c.world.buffers.put(arrived)
	if len(arrived) == 0 {
		return nil
	}
	n, err := s.dst.Write(arrived)
	if n > 0 {
		s.take(int64(n))
	}
	return err
}

// arrive waits until the segment is there: for its time, and for as many
// retransmissions as are lost because the line is cut.
func (s *stream) arrive(piece segment, clock *alarm) bool {
	at, there := piece.at, Link{}
	if !clock.until(at, s.c.done) {
		return false
	}
	there, _ = s.line.now()
	back, _ := s.back.now()
	rto, most := there.rto(back)
	for lost := piece.lost || there.Cut != Open; lost; {
		at = at.Add(rto)
		rto = min(2*rto, most)
		if !clock.until(at, s.c.done) {
			return false
		}
		there, _ = s.line.now()
		lost = there.Cut != Open
	}
	return true
}

// take notes that the receiver has n bytes more.
func (s *stream) take(n int64) {
	s.line.count(func(t *Traffic) { t.Delivered += n })
	back, _ := s.back.now()
	s.mu.Lock()
	s.window.acknowledge(time.Now().Add(back.Delay), n)
	s.mu.Unlock()
	signal(s.delivered)
}

// resetBack ends the connection once the receiver's reset has come back to the
// sender.
func (s *stream) resetBack(clock *alarm) {
	piece := segment{}
	piece.at, piece.lost = s.back.send(time.Now(), 0)
	turned := stream{c: s.c, line: s.back, back: s.line}
	if turned.arrive(piece, clock) {
		s.c.abort()
	}
}

// alarm is a timer that is used again. It belongs to one goroutine.
type alarm struct{ timer *time.Timer }

func newAlarm() *alarm {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &alarm{t}
}

func (a *alarm) stop() { a.timer.Stop() }

// at returns a channel that gets a value at the time given.
func (a *alarm) at(t time.Time) <-chan time.Time {
	a.timer.Reset(time.Until(t))
	return a.timer.C
}

// until waits for the time given, or returns false once done is closed.
func (a *alarm) until(t time.Time, done <-chan struct{}) bool {
	if time.Until(t) <= 0 {
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
	select {
	case <-a.at(t):
		return true
	case <-done:
		return false
	}
}
