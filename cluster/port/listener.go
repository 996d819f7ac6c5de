package port

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"pelago/cluster/fault"
)

var errWaiting = errors.New("too many connections wait for the service")

// listener hands one service its connections.
type listener struct {
	port    *Port
	service Service
	waiting chan *tls.Conn
	done    chan struct{}
	once    sync.Once
}

// Listen offers a service from now on. Its Accept returns authenticated
// connections, each a *tls.Conn whose other side [PeerOf] names, until it or the
// port is closed; then net.ErrClosed. fault.Conflict if the service is offered
// already.
func (p *Port) Listen(s Service) (net.Listener, error) {
	l := &listener{port: p, service: s, waiting: make(chan *tls.Conn, p.Limits.Waiting), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, errClosed()
	case p.services[s] != nil:
		return nil, fault.New(fault.Conflict, "port: %s is offered already", s)
	}
	p.services[s] = l
	return l, nil
}

// deliver queues a connection for its service.
func (p *Port) deliver(s Service, conn *tls.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock() // so that none is queued after Close has emptied the queue
	l := p.services[s]
	if l == nil {
		return errClosed()
	}
	select {
	case l.waiting <- conn:
		return nil
	default:
		return errWaiting
	}
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.waiting:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the offer, and the connections that nobody has accepted.
func (l *listener) Close() error {
	l.end()
	return nil
}

func (l *listener) end() {
	l.once.Do(func() {
		l.port.mu.Lock()
		delete(l.port.services, l.service)
		l.port.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.waiting:
				c.NetConn().Close()
			default:
				return
			}
		}
	})
}

// Addr names the service; the port's address is its listener's.
func (l *listener) Addr() net.Addr { return serviceAddr(l.service) }

type serviceAddr Service

func (serviceAddr) Network() string  { return "pelago" }
func (a serviceAddr) String() string { return string(a) }
