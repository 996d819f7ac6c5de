package dimsetest

import (
	"context"
	"net"
	"sync"
)

// Listener is a [net.Listener] in memory: connections are [net.Pipe]s, which
// testing/synctest can wait for. It is safe for concurrent use.
type Listener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

// Listen returns a listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial returns the calling end of a connection that Accept has taken.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: l.Addr(), Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept waits for a connection; [net.ErrClosed] after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "pipe", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close ends Accept and Dial; connections stay open.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr returns an address of network pipe.
func (l *Listener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

// Network returns pipe.
func (pipeAddr) Network() string { return "pipe" }

// String returns pipe.
func (pipeAddr) String() string { return "pipe" }
