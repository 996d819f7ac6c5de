// Package porttest is a network in memory for tests on the virtual time of
// testing/synctest, in whose bubbles real TCP hangs: hosts that listen and dial,
// links that are cut and healed in one direction or both, and delay.
//
// It behaves as TCP does: bytes come in order or not at all; what is sent over a
// cut link waits in a bounded buffer and arrives after the healing; a dial over a
// cut link hangs; only [Network.Reset] and closing end a connection.
package porttest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// Network is a set of hosts by address.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	paths     map[path]*state
	halves    map[*half]bool
	changed   chan struct{} // closed and made anew when a path changes
	port      int
}

// path is one direction between two hosts.
type path struct{ from, to string }

type state struct {
	cut   bool
	delay time.Duration
}

// New returns a network without hosts.
func New() *Network {
	return &Network{
		listeners: map[string]*listener{}, paths: map[path]*state{}, halves: map[*half]bool{},
		changed: make(chan struct{}), port: 40000,
	}
}

// Host is one address of the network, an IP.
type Host struct {
	network *Network
	ip      string
}

// Host returns the host of an address.
func (n *Network) Host(ip string) Host { return Host{network: n, ip: ip} }

// Cut stops what goes from one host to another; until [Network.Heal], it waits.
func (n *Network) Cut(from, to string) { n.change(from, to, func(s *state) { s.cut = true }) }

// Heal takes a cut back.
func (n *Network) Heal(from, to string) { n.change(from, to, func(s *state) { s.cut = false }) }

// Part cuts both directions between each two hosts of different groups.
func (n *Network) Part(groups ...[]string) { n.across(groups, n.Cut) }

// Join heals what [Network.Part] cut.
func (n *Network) Join(groups ...[]string) { n.across(groups, n.Heal) }

func (n *Network) across(groups [][]string, do func(from, to string)) {
	for i, a := range groups {
		for j, b := range groups {
			for _, from := range a {
				for _, to := range b {
					if i != j {
						do(from, to)
					}
				}
			}
		}
	}
}

// Delay makes whatever is sent from one host to another from now on take d.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.change(from, to, func(s *state) { s.delay = d })
}

// Reset breaks every connection between two hosts, as a restart of either does.
func (n *Network) Reset(a, b string) {
	for _, h := range n.halvesOf(func(p path) bool { return p == path{a, b} || p == path{b, a} }) {
		h.end(syscall.ECONNRESET)
	}
}

func (n *Network) change(from, to string, do func(*state)) {
	n.mu.Lock()
	do(n.pathLocked(path{from, to}))
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
	for _, h := range n.halvesOf(func(p path) bool { return p == path{from, to} }) {
		h.mu.Lock()
		h.wakeLocked()
		h.mu.Unlock()
	}
}

func (n *Network) halvesOf(match func(path) bool) []*half {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*half
	for h := range n.halves {
		if match(h.path) {
			all = append(all, h)
		}
	}
	return all
}

func (n *Network) pathLocked(p path) *state {
	s := n.paths[p]
	if s == nil {
		s = &state{}
		n.paths[p] = s
	}
	return s
}

func (n *Network) state(p path) state {
	n.mu.Lock()
	defer n.mu.Unlock()
	return *n.pathLocked(p)
}

// backlog is how many connections a listener holds that were not accepted.
const backlog = 128

type listener struct {
	host Host
	addr *net.TCPAddr
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

// Listen listens at a port of the host.
func (h Host) Listen(port int) (net.Listener, error) {
	l := &listener{host: h, addr: &net.TCPAddr{IP: net.ParseIP(h.ip), Port: port}, in: make(chan net.Conn, backlog), done: make(chan struct{})}
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	if h.network.listeners[l.addr.String()] != nil {
		return nil, fmt.Errorf("listen %s: %w", l.addr, syscall.EADDRINUSE)
	}
	h.network.listeners[l.addr.String()] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	l.once.Do(func() {
		n := l.host.network
		n.mu.Lock()
		delete(n.listeners, l.addr.String())
		n.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.in:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Dial connects from the host to an address, in the form of net.Dialer.DialContext.
// It takes a round trip, hangs over a path that is cut, and is refused where nobody
// listens.
func (h Host) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	there, back := path{h.ip, to}, path{to, h.ip}
	if err := h.network.passable(ctx, there, back); err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	h.network.mu.Lock()
	l := h.network.listeners[address]
	h.network.port++
	local := &net.TCPAddr{IP: net.ParseIP(h.ip), Port: h.network.port}
	h.network.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	out, in := newHalf(h.network, there), newHalf(h.network, back)
	ours := &conn{read: in, write: out, local: local, remote: l.addr}
	theirs := &conn{read: out, write: in, local: l.addr, remote: local}
	select {
	case l.in <- theirs:
		return ours, nil
	case <-l.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	for _, half := range []*half{out, in} {
		half.end(net.ErrClosed)
	}
	if err == nil {
		err = syscall.ECONNREFUSED
	}
	return nil, fmt.Errorf("dial %s: %w", address, err)
}

// passable waits for a round trip over two paths.
func (n *Network) passable(ctx context.Context, paths ...path) error {
	for {
		n.mu.Lock()
		cut, delay, changed := false, time.Duration(0), n.changed
		for _, p := range paths {
			s := n.pathLocked(p)
			cut, delay = cut || s.cut, delay+s.delay
		}
		n.mu.Unlock()
		if !cut {
			timer := time.NewTimer(delay)
			defer timer.Stop()
			select {
			case <-timer.C:
				return ctx.Err()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
