package port

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

// Service is a protocol on the port, named as in ALPN (RFC 7301). A connection
// offers exactly one.
type Service string

// The services.
const (
	Raft   Service = "pelago-raft/1"
	Gossip Service = "pelago-gossip/1"
	Peer   Service = "h2" // peer calls, over HTTP/2
	Join   Service = "pelago-join/1"
	Relay  Service = "pelago-relay/1" // passes a connection on (cluster/relay)
)

// Limits bounds what strangers and members may take of the port. Zero fields are
// those of [DefaultLimits].
type Limits struct {
	Strangers          int           // connections in all that have not proven a certificate, joining nodes included
	StrangersPerSource int           // the same from one address
	Conns              int           // accepted connections in all
	ConnsPerSource     int           // from one address: a site behind one has several nodes
	Handshake          time.Duration // from accept to a verified certificate
	Joining            time.Duration // the whole of a joining node's connection
	Waiting            int           // connections that a service has not accepted yet
}

// DefaultLimits are for networks of up to some hundred nodes, which keep about six
// connections to each other.
func DefaultLimits() Limits {
	return Limits{
		Strangers: 256, StrangersPerSource: 32, Conns: 4096, ConnsPerSource: 512,
		Handshake: 10 * time.Second, Joining: time.Minute, Waiting: 64,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, def *int }{
		{&l.Strangers, &d.Strangers}, {&l.StrangersPerSource, &d.StrangersPerSource},
		{&l.Conns, &d.Conns}, {&l.ConnsPerSource, &d.ConnsPerSource}, {&l.Waiting, &d.Waiting},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	if l.Handshake == 0 {
		l.Handshake = d.Handshake
	}
	if l.Joining == 0 {
		l.Joining = d.Joining
	}
	return l
}

// Config is what a port needs.
type Config struct {
	Credentials *authority.Credentials
	// Revoked reports whether a node was removed from the network. It is asked at
	// every handshake and must not block.
	Revoked func(node string) bool
	// Dial opens a connection; nil is TCP.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Log    *slog.Logger
	Limits Limits
}

// Port is a node's side of the port.
type Port struct {
	Config
	refusals refusalLog

	mu       sync.Mutex
	closed   bool
	census   census
	services map[Service]*listener
	links    map[*link]string // of open connections: the node, empty until it is known
}

// New returns a port that nobody listens at yet.
func New(c Config) *Port {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	c.Limits = c.Limits.withDefaults()
	return &Port{
		Config: c, refusals: refusalLog{log: c.Log}, census: newCensus(c.Limits),
		services: map[Service]*listener{}, links: map[*link]string{},
	}
}

// Run accepts connections until the context or the listener ends, then closes
// every connection, dialled ones too, and returns once its goroutines have ended.
// The error is nil if the context ended it. A port runs once.
func (p *Port) Run(ctx context.Context, l net.Listener) error {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	defer p.close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	for rest := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case isTemporary(err): // out of files: connections that end make room
			rest = min(max(2*rest, 5*time.Millisecond), time.Second)
			p.refusals.add("", "", err)
			if !pause.For(ctx, rest) {
				return nil
			}
			continue
		case err != nil:
			return fault.New(fault.Unavailable, "port: accept: %w", err)
		}
		rest = 0
		k, err := p.admit(conn)
		if err != nil {
			p.refusals.add(remote(conn), "", err)
			conn.Close()
			continue
		}
		handshakes.Go(func() { p.receive(ctx, k) })
	}
}

// receive brings an accepted connection to its service.
func (p *Port) receive(ctx context.Context, k *link) {
	conn, service, err := p.serverHandshake(ctx, k)
	if err == nil {
		err = p.deliver(service, conn)
	}
	if err != nil {
		k.end()
		if ctx.Err() == nil {
			p.refusals.add(remote(k), service, err)
		}
	}
}

// close ends all connections and refuses further ones.
func (p *Port) close() {
	p.mu.Lock()
	p.closed = true
	open := make([]*link, 0, len(p.links))
	for k := range p.links {
		open = append(open, k)
	}
	services := make([]*listener, 0, len(p.services))
	for _, l := range p.services {
		services = append(services, l)
	}
	p.mu.Unlock()
	for _, l := range services {
		l.end()
	}
	for _, k := range open {
		k.end()
	}
}

// Drop closes every connection with a node, at once: it was revoked. Revoked must
// already say so, else it connects again.
func (p *Port) Drop(node string) {
	p.mu.Lock()
	var open []*link
	for k, n := range p.links {
		if n == node {
			open = append(open, k)
		}
	}
	p.mu.Unlock()
	for _, k := range open {
		k.end()
	}
}

// Peers returns the ids of the nodes that connections are open with, ascending.
func (p *Port) Peers() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, n := range p.links {
		if n != "" && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}
