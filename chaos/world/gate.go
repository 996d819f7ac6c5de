package world

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// Gate is the address under which others reach a node: what the node gives out
// as its own. Connections to it travel from their dialler's site to the gate's.
type Gate struct {
	world    *World
	site     Site
	from     Site // "": whoever dials is asked for
	listener net.Listener
	cancel   context.CancelFunc

	mu     sync.Mutex
	target string
}

// Addr returns the address to dial.
func (g *Gate) Addr() string { return g.listener.Addr().String() }

// Site returns where the gate leads to.
func (g *Gate) Site() Site { return g.site }

// Target says where the node listens now; "" refuses, as a host does on which
// nobody listens. Connections that are established stay.
func (g *Gate) Target(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = address
}

func (g *Gate) where() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.target
}

// Close lets nobody in any more. Connections that are established stay.
func (g *Gate) Close() error { return g.listener.Close() }

// accept lets connections in until the gate is closed.
func (g *Gate) accept(ctx context.Context) {
	for {
		c, err := g.listener.Accept()
		now := time.Now()
		switch {
		case errors.Is(err, net.ErrClosed), ctx.Err() != nil:
			return
		case err != nil: // of one connection, or of a lack of descriptors that passes
			clock := newAlarm()
			clock.until(now.Add(acceptPause), ctx.Done())
			clock.stop()
			continue
		}
		side, ok := c.(Conn)
		if !ok {
			c.Close()
			continue
		}
		g.world.work.Go(func() { g.admit(ctx, side, now) })
	}
}

// acceptPause keeps a failing Accept from turning in circles.
const acceptPause = 10 * time.Millisecond

// admit finds out where a connection comes from, and carries it.
func (g *Gate) admit(ctx context.Context, side Conn, accepted time.Time) {
	from, err := g.origin(side)
	if err != nil {
		if !fault.Is(err, fault.Canceled) {
			g.world.stranger()
		}
		_ = side.SetLinger(0) // fails on a connection that is gone already
		side.Close()
		return
	}
	if c := g.world.enter(from, g.site, side); c != nil {
		defer g.world.leave(c)
		c.run(ctx, accepted, g.dial)
	}
}

// dial connects to the node.
func (g *Gate) dial(ctx context.Context, from Site) (Conn, error) {
	target := g.where()
	if target == "" {
		return nil, fault.New(fault.Unavailable, "nobody listens behind the gate")
	}
	return g.world.network.Dial(ctx, from, target)
}

// origin returns the dialler's site.
func (g *Gate) origin(side Conn) (Site, error) {
	if g.from != "" {
		return g.from, nil
	}
	return g.world.network.Origin(side)
}
