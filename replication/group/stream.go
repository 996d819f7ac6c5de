package group

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/replication/consensus"
)

// Port is what the Raft connections go through: a *port.Port.
type Port interface {
	Listen(port.Service) (net.Listener, error)
	Dial(ctx context.Context, node, address string, s port.Service) (*tls.Conn, error)
}

// transport is Raft over the port: the library's network transport, one for what
// this node asks, and one for each node that asks it, so that every message is
// known to come from the node that the certificate names. Nodes are one
// another's candidates and leaders by id: addresses change, and two nodes may
// claim the same one.
type transport struct {
	*raft.NetworkTransport // what this node asks
	id, address            string
	log                    *slog.Logger
	rpcs                   chan raft.RPC

	ended chan struct{}
	work  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	peers  map[string]*inbox
	last   map[string]time.Time // when a message of a node came in
}

// listenRaft offers Raft on the port. locate may know a node's address better
// than the membership does.
func listenRaft(o *Options, log *slog.Logger) (*transport, error) {
	l, err := o.Port.Listen(port.Raft)
	if err != nil {
		return nil, err
	}
	t := &transport{
		id: o.ID, address: o.Address, log: log,
		rpcs: make(chan raft.RPC), ended: make(chan struct{}), peers: map[string]*inbox{}, last: map[string]time.Time{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	within := func(d time.Duration) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
	t.NetworkTransport = consensus.NewTransport(&dialer{o: o, ended: t.ended, within: within}, log)
	t.work.Go(func() { t.accept(l) })
	t.work.Go(func() {
		<-t.ended
		cancel()
		l.Close()
	})
	return t, nil
}

// Close ends the offer, all connections, and every goroutine but those of the
// library that wait for its timers.
func (t *transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	peers := t.peers
	t.mu.Unlock()
	err := t.NetworkTransport.Close() // which closes the dialer, and so t.ended
	t.CloseStreams()
	for _, p := range peers {
		err = errors.Join(err, p.end())
	}
	t.work.Wait()
	return err
}

func (t *transport) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		conn, ok := c.(*tls.Conn)
		if !ok {
			c.Close()
			continue
		}
		name, err := port.PeerOf(conn.ConnectionState())
		if err != nil || !t.take(name.Node, conn) {
			conn.Close()
		}
	}
}

// take gives a connection to its node's inbox.
func (t *transport) take(node string, conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	p := t.peers[node]
	if p == nil {
		p = newInbox(node)
		p.transport = consensus.NewTransport(p, t.log)
		t.peers[node] = p
		t.work.Go(func() { t.forward(p) })
	}
	return p.put(conn)
}

// forward passes on what a node asks if it asks in its own name.
func (t *transport) forward(p *inbox) {
	for {
		select {
		case <-t.ended:
			return
		case rpc := <-p.transport.Consumer():
			if !speaksAs(rpc, p.node) {
				rpc.Respond(nil, fault.New(fault.Denied, "raft: a message in another node's name"))
				continue
			}
			t.mu.Lock()
			t.last[p.node] = time.Now()
			t.mu.Unlock()
			select {
			case t.rpcs <- rpc:
			case <-t.ended:
				rpc.Respond(nil, errClosed())
			}
		}
	}
}

// heardOf returns the nodes that have sent something since a time, in any order.
func (t *transport) heardOf(since time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for node, at := range t.last {
		if at.After(since) {
			all = append(all, node)
		}
	}
	return all
}

func speaksAs(rpc raft.RPC, node string) bool {
	h, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return false
	}
	header := h.GetRPCHeader()
	return string(header.ID) == node && string(header.Addr) == node
}

func errClosed() error { return fault.New(fault.Unavailable, "raft: closed") }

// inbox hands the connections of one node to a transport of its own.
type inbox struct {
	node      string
	transport *raft.NetworkTransport
	conns     chan net.Conn
	ended     chan struct{}

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

// maxInbox bounds the connections that one node may have open to this one: the
// library keeps four, and one more while a broken one is being noticed.
const maxInbox = 16

func newInbox(node string) *inbox {
	return &inbox{node: node, conns: make(chan net.Conn, maxInbox), ended: make(chan struct{}), open: map[net.Conn]struct{}{}}
}

func (p *inbox) put(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil || len(p.open) >= maxInbox {
		return false
	}
	t := &tracked{Conn: c, inbox: p}
	p.open[t] = struct{}{}
	p.conns <- t // there is room: each of them is in open
	return true
}

// tracked is a connection that its inbox knows until it is closed.
type tracked struct {
	net.Conn
	inbox *inbox
}

func (c *tracked) Close() error {
	c.inbox.mu.Lock()
	delete(c.inbox.open, c)
	c.inbox.mu.Unlock()
	return c.Conn.Close()
}

// Accept returns the node's next connection.
func (p *inbox) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *inbox) end() error {
	p.mu.Lock()
	open := p.open
	p.open = nil
	p.mu.Unlock()
	for c := range open {
		c.Close()
	}
	return p.transport.Close() // which closes p
}

// Close ends Accept.
func (p *inbox) Close() error {
	close(p.ended)
	return nil
}

// Addr is the node's id.
func (p *inbox) Addr() net.Addr { return nodeAddr(p.node) }

// Dial is for others than inboxes.
func (p *inbox) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return nil, errClosed() }

type nodeAddr string

func (nodeAddr) Network() string  { return "pelago" }
func (a nodeAddr) String() string { return string(a) }

// dialer is the stream layer of what this node asks: nobody is accepted.
type dialer struct {
	o      *Options
	ended  chan struct{}
	within func(time.Duration) (context.Context, context.CancelFunc) // ends with the transport
}

// Accept waits for the end.
func (d *dialer) Accept() (net.Conn, error) {
	<-d.ended
	return nil, net.ErrClosed
}

// Close ends Accept, and the transport. The library calls it once it knows that it
// ends: an Accept that fails before is a failure to it, and an error in the log.
func (d *dialer) Close() error {
	close(d.ended)
	return nil
}

// Addr is this node's.
func (d *dialer) Addr() net.Addr { return nodeAddr(d.o.Address) }

// Dial connects to a node, target being what targetOf made.
func (d *dialer) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, address, ok := strings.Cut(string(target), "@")
	if !ok {
		return nil, fault.New(fault.Invalid, "raft: an address without a node")
	}
	ctx, cancel := d.within(timeout)
	defer cancel()
	if d.o.Locate != nil {
		if better, err := d.o.Locate(ctx, node); err == nil && better != "" {
			address = better
		}
	}
	conn, err := d.o.Port.Dial(ctx, node, address, port.Raft)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func targetOf(id raft.ServerID, address raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + string(address))
}

// Consumer returns what nodes asked in their own names.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr is what others reach this node under.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.address) }

// EncodePeer names a node by its id, in votes too.
func (t *transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// AppendEntries, and what follows, are the library's, dialled by id.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	return t.NetworkTransport.AppendEntries(id, targetOf(id, to), q, a)
}

// AppendEntriesPipeline sends entries without waiting for answers.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.NetworkTransport.AppendEntriesPipeline(id, targetOf(id, to))
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, targetOf(id, to), q, a)
}

// RequestPreVote asks whether a vote would be given.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, targetOf(id, to), q, a)
}

// InstallSnapshot sends a position.
func (t *transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, q *raft.InstallSnapshotRequest, a *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, targetOf(id, to), q, a, data)
}

// TimeoutNow gives leadership away.
func (t *transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, a *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, targetOf(id, to), q, a)
}

var _ consensus.Transport = (*transport)(nil)
