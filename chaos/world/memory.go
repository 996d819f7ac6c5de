package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pelago/cluster/fault"
)

// Memory is a network without sockets, so that a world and the nodes in it can
// live in one process on virtual time (testing/synctest), where real sockets
// would hang. Use a new one for each bubble.
//
// A connection holds no bytes of its own: what is written is taken when it is
// read, so that all that is held is what the world's model holds. Two ends that
// are not connected through a gate should therefore not both write first.
type Memory struct {
	mu        sync.Mutex
	last      int
	listeners map[string]*memoryListener
}

// NewMemory returns a network nobody listens on.
func NewMemory() *Memory { return &Memory{listeners: map[string]*memoryListener{}} }

// memoryAddr is "site:number", with the site empty for gates.
type memoryAddr struct {
	site   Site
	number int
}

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return fmt.Sprintf("%s:%d", a.site, a.number) }

// Listen listens at a new address: a gate's, or with [World.Gate] before it a
// node's.
func (m *Memory) Listen(context.Context) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	l := &memoryListener{memory: m, addr: memoryAddr{number: m.last}, waiting: make(chan *memoryConn), closed: make(chan struct{})}
	m.listeners[l.addr.String()] = l
	return l, nil
}

// Dial connects to a listener of this network on behalf of somebody at a site:
// to a gate, or past all gates to a node.
func (m *Memory) Dial(ctx context.Context, from Site, address string) (Conn, error) {
	m.mu.Lock()
	l := m.listeners[address]
	m.last++
	local := memoryAddr{site: from, number: m.last}
	m.mu.Unlock()
	if l == nil {
		return nil, refused(address)
	}
	here, there := memoryPair(local, l.addr)
	select {
	case l.waiting <- there:
		return here, nil
	case <-l.closed:
		return nil, refused(address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func refused(address string) error {
	return fault.New(fault.Unavailable, "dial %s: %w", address, syscall.ECONNREFUSED)
}

// Origin returns the site that dialled.
func (m *Memory) Origin(accepted Conn) (Site, error) {
	a, ok := accepted.RemoteAddr().(memoryAddr)
	if !ok || a.site == "" {
		return "", fault.New(fault.NotFound, "%s does not say where it stands", accepted.RemoteAddr())
	}
	return a.site, nil
}

type memoryListener struct {
	memory  *Memory
	addr    memoryAddr
	waiting chan *memoryConn
	closed  chan struct{}
	once    sync.Once
}

func (l *memoryListener) Addr() net.Addr { return l.addr }

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.waiting:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		l.memory.mu.Lock()
		delete(l.memory.listeners, l.addr.String())
		l.memory.mu.Unlock()
		close(l.closed)
	})
	return nil
}

// memoryConn is one end of a connection: a pipe each way, so that each may be
// closed by itself.
type memoryConn struct {
	local, remote memoryAddr
	in, out       net.Conn
	hard          atomic.Bool  // SetLinger(0)
	shut          atomic.Bool  // nothing may be written any more
	reset         *atomic.Bool // of both ends: one was closed hard
}

func memoryPair(local, remote memoryAddr) (here, there *memoryConn) {
	in, theirOut := net.Pipe()
	out, theirIn := net.Pipe()
	reset := new(atomic.Bool)
	return &memoryConn{local: local, remote: remote, in: in, out: out, reset: reset},
		&memoryConn{local: remote, remote: local, in: theirIn, out: theirOut, reset: reset}
}

func (c *memoryConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	switch {
	case errors.Is(err, io.EOF) && c.reset.Load():
		err = syscall.ECONNRESET
	case errors.Is(err, io.ErrClosedPipe):
		err = net.ErrClosed
	}
	return n, err
}

func (c *memoryConn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if errors.Is(err, io.ErrClosedPipe) { // at either end
		switch {
		case c.shut.Load():
			err = net.ErrClosed
		case c.reset.Load():
			err = syscall.ECONNRESET
		default:
			err = syscall.EPIPE
		}
	}
	return n, err
}

func (c *memoryConn) CloseWrite() error {
	c.shut.Store(true)
	return c.out.Close()
}

func (c *memoryConn) SetLinger(seconds int) error {
	c.hard.Store(seconds == 0)
	return nil
}

func (c *memoryConn) Close() error {
	if c.hard.Load() {
		c.reset.Store(true)
	}
	c.shut.Store(true)
	return errors.Join(c.out.Close(), c.in.Close())
}

func (c *memoryConn) LocalAddr() net.Addr  { return c.local }
func (c *memoryConn) RemoteAddr() net.Addr { return c.remote }

func (c *memoryConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.in.SetDeadline(t), c.out.SetDeadline(t))
}
