package consensus_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// simnet carries the library's own network transport over streams in memory,
// on virtual time: with a delay, cuts in either direction, and counts.
type simnet struct {
	delay time.Duration // one way

	mu        sync.Mutex
	listeners map[string]*simListener
	cuts      map[[2]string]bool // from, to
	healed    chan struct{}      // closed and replaced when cuts change
	sent      map[string]int64   // bytes by sender
	conns     map[*simConn]struct{}
}

func newSimnet(delay time.Duration) *simnet {
	return &simnet{delay: delay, listeners: map[string]*simListener{}, cuts: map[[2]string]bool{}, healed: make(chan struct{}),
		sent: map[string]int64{}, conns: map[*simConn]struct{}{}}
}

// cut stops what one node sends to another: it is held until the cut is healed.
func (n *simnet) cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]string{from, to}] = true
}

// split cuts both ways between the groups.
func (n *simnet) split(a, b []string) {
	for _, x := range a {
		for _, y := range b {
			n.cut(x, y)
			n.cut(y, x)
		}
	}
}

func (n *simnet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	close(n.healed)
	n.healed = make(chan struct{})
}

func (n *simnet) isCut(from, to string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[[2]string{from, to}], n.healed
}

// listen returns a node's stream layer.
func (n *simnet) listen(name string) *simListener {
	l := &simListener{net: n, name: name, accept: make(chan net.Conn, 256), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[name] = l
	return l
}

// kill closes a node's listener and all of its connections, as a crash does.
func (n *simnet) kill(name string) {
	n.mu.Lock()
	l := n.listeners[name]
	delete(n.listeners, name)
	var conns []*simConn
	for c := range n.conns {
		if c.from == name || c.to == name {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	if l != nil {
		l.Close()
	}
	for _, c := range conns {
		c.Close()
	}
}

type simListener struct {
	net    *simnet
	name   string
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

var _ raft.StreamLayer = (*simListener)(nil)

type simAddr string

func (simAddr) Network() string  { return "sim" }
func (a simAddr) String() string { return string(a) }

func (l *simListener) Addr() net.Addr { return simAddr(l.name) }

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *simListener) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	n, deadline := l.net, time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		out, healed := n.isCut(l.name, string(to))
		back, _ := n.isCut(string(to), l.name)
		if !out && !back {
			break
		}
		select {
		case <-healed:
		case <-deadline.C:
			return nil, os.ErrDeadlineExceeded
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	time.Sleep(2 * n.delay)
	n.mu.Lock()
	peer := n.listeners[string(to)]
	n.mu.Unlock()
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	if peer == nil {
		return nil, errors.New("connection refused")
	}
	ab, ba := newHalf(n, l.name, peer.name), newHalf(n, peer.name, l.name)
	here, there := &simConn{net: n, from: l.name, to: peer.name, in: ba, out: ab}, &simConn{net: n, from: peer.name, to: l.name, in: ab, out: ba}
	n.mu.Lock()
	n.conns[here], n.conns[there] = struct{}{}, struct{}{}
	n.mu.Unlock()
	select {
	case peer.accept <- there:
		return here, nil
	case <-peer.closed:
		return nil, errors.New("connection refused")
	}
}

// half is one direction of a stream.
type half struct {
	net      *simnet
	from, to string

	mu     sync.Mutex
	queue  []piece
	closed bool
	wake   chan struct{} // closed and replaced
}

type piece struct {
	due time.Time
	b   []byte
}

func newHalf(n *simnet, from, to string) *half {
	return &half{net: n, from: from, to: to, wake: make(chan struct{})}
}

func (h *half) poke() {
	close(h.wake)
	h.wake = make(chan struct{})
}

func (h *half) write(b []byte) (int, error) {
	h.net.mu.Lock()
	h.net.sent[h.from] += int64(len(b))
	h.net.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	h.queue = append(h.queue, piece{time.Now().Add(h.net.delay), append([]byte(nil), b...)})
	h.poke()
	return len(b), nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.poke()
	}
}

// read waits for bytes that are due and not held by a cut.
func (h *half) read(b []byte, deadline func() (time.Time, <-chan struct{})) (int, error) {
	for {
		held, healed := h.net.isCut(h.from, h.to)
		h.mu.Lock()
		wake := h.wake
		var due time.Time
		switch {
		case held:
		case len(h.queue) > 0 && !h.queue[0].due.After(time.Now()):
			n := copy(b, h.queue[0].b)
			if h.queue[0].b = h.queue[0].b[n:]; len(h.queue[0].b) == 0 {
				h.queue = h.queue[1:]
			}
			h.mu.Unlock()
			return n, nil
		case len(h.queue) > 0:
			due = h.queue[0].due
		}
		// A peer that has gone tells so: a cut would hide it for longer.
		closed := h.closed && len(h.queue) == 0
		h.mu.Unlock()
		if closed {
			return 0, io.EOF
		}
		limit, moved := deadline()
		if !limit.IsZero() && (due.IsZero() || limit.Before(due)) {
			due = limit
		}
		if !limit.IsZero() && !time.Now().Before(limit) {
			return 0, os.ErrDeadlineExceeded
		}
		var timer <-chan time.Time
		if !due.IsZero() {
			timer = time.After(time.Until(due))
		}
		select {
		case <-wake:
		case <-healed:
		case <-timer:
		case <-moved:
		}
	}
}

type simConn struct {
	net      *simnet
	from, to string
	in, out  *half

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{}
}

func (c *simConn) limit() (time.Time, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.deadline, c.moved
}

func (c *simConn) Read(b []byte) (int, error)  { return c.in.read(b, c.limit) }
func (c *simConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *simConn) Close() error {
	c.in.close()
	c.out.close()
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	delete(c.net.conns, c)
	return nil
}

func (c *simConn) LocalAddr() net.Addr  { return simAddr(c.from) }
func (c *simConn) RemoteAddr() net.Addr { return simAddr(c.to) }

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.moved != nil {
		close(c.moved)
	}
	c.moved = make(chan struct{})
	return nil
}

func (c *simConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *simConn) SetWriteDeadline(time.Time) error { return nil }
