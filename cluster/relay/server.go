package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/port"
)

const (
	// maxConns is how many connections are passed on at one time, and maxConnsPerNode for
	// one node that asks: it keeps one to each node that it cannot dial.
	maxConns, maxConnsPerNode = 128, 16
	// quiet is how long nothing may move in one direction: peer calls ping every 15 s.
	quiet = time.Minute
	// pieceBytes is what is read at once: two such buffers a connection.
	pieceBytes = 64 << 10
)

// ServerOptions are what a server is made of.
type ServerOptions struct {
	Self string // this node's id
	Port *port.Port
	// Locate returns the address of a node's port; it may be asked of any.
	Locate func(ctx context.Context, node string) (address string, err error)
	// Member reports whether a node belongs to the network, as far as is known here.
	Member func(node string) bool
	Log    *slog.Logger // nil is silent
}

// Server passes connections on, between members that do not reach each other.
type Server struct {
	o     ServerOptions
	log   *slog.Logger
	stats Stats

	mu    sync.Mutex // guards what follows
	all   int
	nodes map[string]int // by who asked
}

// Stats count since the start.
type Stats struct {
	Connections atomic.Uint64 // that were passed on
	Bytes       atomic.Uint64 // in them, both directions
}

// NewServer returns a server.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, log: o.Log, nodes: map[string]int{}}
}

// Counters are the server's counters.
func (s *Server) Counters() *Stats { return &s.stats }

// Serve answers at the listener of [port.Relay] until the context or the listener ends,
// and returns when all that is under way has ended. The error is nil if the context
// ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var under sync.WaitGroup
	defer under.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fault.New(fault.Unavailable, "relay: accept: %w", err)
		}
		under.Go(func() { s.answer(ctx, conn) })
	}
}

// answer serves one connection and closes it.
func (s *Server) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return
	}
	from, err := port.PeerOf(secured.ConnectionState())
	if err != nil {
		return
	}
	leave, err := s.enter(from.Node)
	if err == nil {
		defer leave()
	}
	if conn.SetDeadline(time.Now().Add(helloTime+connectTime)) != nil {
		return
	}
	node, failed := readHello(conn) // also of who is refused: it hears of it once it has spoken
	if err == nil {
		err = failed
	}
	var to net.Conn
	if err == nil {
		to, err = s.connect(ctx, from.Node, node)
	}
	if err != nil {
		s.log.Debug("a connection is not passed on", "node", from.Node, "to", node, "error", err)
		_, _ = conn.Write(answerOf(err)) // who does not hear it sees the end
		return
	}
	defer to.Close()
	if _, err := conn.Write(answerOf(nil)); err != nil || conn.SetDeadline(time.Time{}) != nil {
		return
	}
	s.stats.Connections.Add(1)
	s.pass(ctx, conn, to)
}

// enter counts a connection of a node; fault.Full if it has enough.
func (s *Server) enter(node string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxConns || s.nodes[node] >= maxConnsPerNode {
		return nil, fault.New(fault.Full, "relay: too many connections are passed on")
	}
	s.all++
	s.nodes[node]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.nodes[node]--; s.nodes[node] == 0 {
			delete(s.nodes, node)
		}
	}, nil
}

// connect connects to a node for another one.
func (s *Server) connect(ctx context.Context, from, node string) (net.Conn, error) {
	switch {
	case node == s.o.Self || node == from:
		return nil, fault.New(fault.Invalid, "relay: nothing lies between")
	case !s.o.Member(from): // not now: it may have joined a moment ago
		return nil, fault.New(fault.Unavailable, "relay: node %s is no member, as far as is known", from)
	case !s.o.Member(node):
		return nil, fault.New(fault.NotFound, "relay: no such member")
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	address, err := s.o.Locate(ctx, node)
	if err != nil {
		return nil, err
	}
	return s.o.Port.Connect(ctx, address)
}

// pass carries what comes on either side to the other, until either ends.
func (s *Server) pass(ctx context.Context, a, b net.Conn) {
	end := func() { a.Close(); b.Close() }
	defer context.AfterFunc(ctx, end)()
	var both sync.WaitGroup
	for _, way := range [...][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			defer end()
			s.carry(way[0], way[1])
		})
	}
	both.Wait()
}

// carry carries one direction, until it ends, or stands still.
func (s *Server) carry(from, to net.Conn) {
	buffer := make([]byte, pieceBytes)
	for {
		if from.SetReadDeadline(time.Now().Add(quiet)) != nil {
			return
		}
		n, err := from.Read(buffer)
		if n > 0 {
			s.stats.Bytes.Add(uint64(n))
			writing := to.SetWriteDeadline(time.Now().Add(quiet))
			if _, failed := to.Write(buffer[:n]); errors.Join(writing, failed) != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
