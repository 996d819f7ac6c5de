package port

import (
	"errors"
	"net"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// link is a TCP connection under TLS, known to its port until it is closed.
type link struct {
	net.Conn
	port     *Port
	source   string
	accepted bool
	stranger bool // guarded by port.mu
	once     sync.Once
	err      error
}

// Close gives up the connection's place and closes it.
func (k *link) Close() error {
	k.end()
	return k.err
}

// end is Close of a connection that is given up, where an error tells nothing.
func (k *link) end() {
	k.once.Do(func() {
		k.port.forget(k)
		k.err = k.Conn.Close()
	})
}

// census counts connections by source.
type census struct {
	limits    Limits
	strangers map[string]int
	conns     map[string]int
	allNew    int
	all       int
}

func newCensus(l Limits) census {
	return census{limits: l, strangers: map[string]int{}, conns: map[string]int{}}
}

// The limits that a connection may meet, as the log names them.
var (
	errStrangers       = errors.New("too many connections without a certificate")
	errStrangersSource = errors.New("too many connections without a certificate from this address")
	errConns           = errors.New("too many connections")
	errConnsSource     = errors.New("too many connections from this address")
)

// enter counts a new connection from a source, or says which limit forbids it.
func (c *census) enter(source string) error {
	switch {
	case c.strangers[source] >= c.limits.StrangersPerSource:
		return errStrangersSource
	case c.conns[source] >= c.limits.ConnsPerSource:
		return errConnsSource
	case c.allNew >= c.limits.Strangers:
		return errStrangers
	case c.all >= c.limits.Conns:
		return errConns
	}
	c.strangers[source]++
	c.conns[source]++
	c.allNew++
	c.all++
	return nil
}

// known counts a connection no more among the strangers.
func (c *census) known(source string) {
	c.allNew--
	decrease(c.strangers, source)
}

func (c *census) leave(source string) {
	c.all--
	decrease(c.conns, source)
}

func decrease(m map[string]int, key string) {
	if m[key]--; m[key] == 0 {
		delete(m, key)
	}
}

// admit takes an accepted connection in as a stranger, within the limits.
func (p *Port) admit(conn net.Conn) (*link, error) {
	k := &link{Conn: conn, port: p, source: source(conn), accepted: true, stranger: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed()
	}
	if err := p.census.enter(k.source); err != nil {
		return nil, err
	}
	p.links[k] = ""
	tune(conn)
	return k, nil
}

// attach takes a dialled connection in.
func (p *Port) attach(conn net.Conn) (*link, error) {
	k := &link{Conn: conn, port: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed()
	}
	p.links[k] = ""
	tune(conn)
	return k, nil
}

// identify books a connection under its node. Revoked is asked once more: a
// [Port.Drop] between the handshake and the booking would have missed it.
func (p *Port) identify(k *link, node string) error {
	p.mu.Lock()
	if _, open := p.links[k]; open {
		p.links[k] = node
		if k.stranger {
			k.stranger = false
			p.census.known(k.source)
		}
	}
	p.mu.Unlock()
	if p.Revoked(node) {
		return errRevoked()
	}
	return nil
}

func (p *Port) forget(k *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.links[k]; !open {
		return
	}
	delete(p.links, k)
	if k.stranger {
		p.census.known(k.source)
	}
	if k.accepted {
		p.census.leave(k.source)
	}
}

// tune sets what long links with rare messages need: no delay for small writes,
// and probes that find a peer that is gone before a minute has passed.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	//nolint:errcheck // a connection without them works, only worse
	tcp.SetNoDelay(true)
	//nolint:errcheck // see above
	tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 4})
}

// source is what limits are counted by: the address without its port, an IPv6
// address by its /64, which one machine has all of.
func source(conn net.Conn) string {
	host, _, err := net.SplitHostPort(remote(conn))
	if err != nil {
		return remote(conn)
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}

func remote(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}

func errClosed() error { return fault.New(fault.Unavailable, "port: closed") }
func errRevoked() error {
	return fault.New(fault.Denied, "port: the node was removed from the network")
}
