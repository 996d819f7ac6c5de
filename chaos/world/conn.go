package world

import (
	"context"
	"net"
	"sync"
	"time"
)

// Conn is a connection that can be ended by halves and by force, as a TCP
// connection can.
type Conn interface {
	net.Conn
	// CloseWrite says that nothing more will be written.
	CloseWrite() error
	// SetLinger(0) makes Close a reset.
	SetLinger(seconds int) error
}

// conn is one connection through the world: the dialler's, and ours to the node.
type conn struct {
	world       *World
	from, to    Site
	there, back *line
	dialler     Conn

	done chan struct{} // closed when the connection is over

	mu   sync.Mutex
	over bool
	node Conn // nil until dialled
}

type dialFunc func(ctx context.Context, from Site) (Conn, error)

// run carries a connection that was accepted at the time given, until it ends.
func (c *conn) run(ctx context.Context, accepted time.Time, dial dialFunc) {
	defer c.finish()
	node, established, err := c.establish(ctx, accepted, dial)
	if err != nil {
		c.there.count(func(t *Traffic) { t.Refused++ })
		c.abort()
		return
	}
	c.there.count(func(t *Traffic) { t.Opened++ })
	out := newStream(c, c.there, c.back, c.dialler, node)
	in := newStream(c, c.back, c.there, node, c.dialler)
	var wg sync.WaitGroup
	wg.Go(func() { out.send(established) })
	wg.Go(func() { in.send(time.Now()) })
	wg.Go(in.deliver)
	out.deliver()
	wg.Wait()
}

// establish dials the node when the dialler's opening has arrived there, and
// says when the dialler would know. The kernel told the dialler already, who
// cannot tell the difference: nothing that it sends leaves before.
func (c *conn) establish(ctx context.Context, accepted time.Time, dial dialFunc) (node Conn, established time.Time, err error) {
	clock := newAlarm()
	defer clock.stop()
	if err := c.knock(accepted, clock); err != nil {
		return nil, time.Time{}, err
	}
	node, err = dial(ctx, c.from)
	if err == nil && !c.adopt(node) {
		err = net.ErrClosed
	}
	// The answer, whatever it is, has the way back before it.
	established, lost := c.back.send(time.Now(), 0)
	if lost {
		established = established.Add(synRTO)
	}
	if err != nil {
		clock.until(established, c.done)
		return nil, time.Time{}, err
	}
	return node, established, nil
}

// knock returns once one of the dialler's openings has arrived.
func (c *conn) knock(accepted time.Time, clock *alarm) error {
	arrives, lost := c.there.send(accepted, 0)
	wait := synRTO
	for range synTries {
		if !clock.until(arrives, c.done) {
			return net.ErrClosed
		}
		there, _ := c.there.now()
		back, _ := c.back.now()
		switch {
		case there.Cut == Refuse || back.Cut == Refuse:
			return net.ErrClosed
		case !lost && there.Cut == Open && back.Cut == Open:
			return nil
		}
		arrives, lost = arrives.Add(wait), false
		wait *= 2
	}
	clock.until(arrives, c.done)
	return context.DeadlineExceeded
}

// adopt takes the connection to the node, unless all is over.
func (c *conn) adopt(node Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		node.Close()
		return false
	}
	c.node = node
	return true
}

// abort ends both connections with a reset.
func (c *conn) abort() { c.end(true) }

// finish ends both connections, of which nothing is left to carry.
func (c *conn) finish() { c.end(false) }

func (c *conn) end(reset bool) {
	c.mu.Lock()
	over, node := c.over, c.node
	c.over = true
	c.mu.Unlock()
	if over {
		return
	}
	close(c.done)
	for _, side := range []Conn{c.dialler, node} {
		if side == nil {
			continue
		}
		if reset {
			_ = side.SetLinger(0) // fails on a connection that is gone already
		}
		side.Close()
	}
}
