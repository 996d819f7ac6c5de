package porttest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// buffer is what a connection holds in one direction before writes wait.
const buffer = 256 << 10

// half is one direction of a connection.
type half struct {
	network *Network
	path    path

	mu       sync.Mutex
	chunks   []chunk
	size     int
	finished bool  // the writer has closed: after the chunks comes the end
	err      error // of both sides: reset, or closed by the reader
	wake     chan struct{}
	readBy   time.Time
	writeBy  time.Time
}

type chunk struct {
	at    time.Time // when it arrives
	bytes []byte
}

func newHalf(n *Network, p path) *half {
	h := &half{network: n, path: p, wake: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.halves[h] = true
	return h
}

func (h *half) wakeLocked() {
	close(h.wake)
	h.wake = make(chan struct{})
}

// end breaks the direction.
func (h *half) end(err error) {
	h.mu.Lock()
	if h.err == nil {
		h.err = err
		h.wakeLocked()
	}
	h.mu.Unlock()
	h.network.mu.Lock()
	delete(h.network.halves, h)
	h.network.mu.Unlock()
}

// finish is the writer's closing.
func (h *half) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished = true
	h.wakeLocked()
}

func (h *half) read(b []byte) (int, error) {
	for {
		now := time.Now()
		way := h.network.state(h.path)
		h.mu.Lock()
		n, wait, err := h.readLocked(b, now, way.cut)
		wake := h.wake
		h.mu.Unlock()
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		pause(wake, wait)
	}
}

// readLocked takes what has arrived, or says how long to wait for more; 0 is
// without end.
func (h *half) readLocked(b []byte, now time.Time, cut bool) (int, time.Duration, error) {
	if h.err != nil {
		return 0, 0, h.err
	}
	if passed(h.readBy, now) {
		return 0, 0, os.ErrDeadlineExceeded
	}
	wait := until(h.readBy, now)
	if cut {
		return 0, wait, nil
	}
	if len(h.chunks) == 0 {
		if h.finished {
			return 0, 0, io.EOF
		}
		return 0, wait, nil
	}
	first := &h.chunks[0]
	if first.at.After(now) {
		if d := first.at.Sub(now); wait == 0 || d < wait {
			wait = d
		}
		return 0, wait, nil
	}
	n := copy(b, first.bytes)
	first.bytes = first.bytes[n:]
	if len(first.bytes) == 0 {
		h.chunks = h.chunks[1:]
	}
	h.size -= n
	h.wakeLocked()
	return n, 0, nil
}

func (h *half) write(b []byte) (int, error) {
	written := 0
	for {
		now := time.Now()
		way := h.network.state(h.path)
		h.mu.Lock()
		var err error
		switch {
		case h.err != nil:
			err = syscall.EPIPE
		case h.finished:
			err = net.ErrClosed
		case passed(h.writeBy, now):
			err = os.ErrDeadlineExceeded
		}
		if n := min(len(b)-written, buffer-h.size); err == nil && n > 0 {
			h.chunks = append(h.chunks, chunk{at: now.Add(way.delay), bytes: append([]byte(nil), b[written:written+n]...)})
			h.size += n
			written += n
			h.wakeLocked()
		}
		wake, wait := h.wake, until(h.writeBy, now)
		h.mu.Unlock()
		if err != nil || written == len(b) {
			return written, err
		}
		pause(wake, wait)
	}
}

func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

func until(deadline, now time.Time) time.Duration {
	if deadline.IsZero() {
		return 0
	}
	return deadline.Sub(now)
}

// pause waits to be woken, or for d if that is not 0.
func pause(wake <-chan struct{}, d time.Duration) {
	if d == 0 {
		<-wake
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	}
}

// conn is one end of a connection.
type conn struct {
	read, write   *half
	local, remote net.Addr
	once          sync.Once
}

func (c *conn) Read(b []byte) (int, error)  { return c.read.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.write.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close lets the other side read what was sent, and then the end.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.write.finish()
		c.read.end(net.ErrClosed)
	})
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	c.read.readBy = t
	c.read.wakeLocked()
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	c.write.writeBy = t
	c.write.wakeLocked()
	return nil
}
