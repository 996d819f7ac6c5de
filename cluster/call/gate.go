package call

import (
	"context"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// gateWait is how long who comes on top waits for his turn: shorter than an asker
// waits before it asks elsewhere.
const gateWait = 5 * time.Second

// Gate bounds the answers that are under way at one time, in all and to one node,
// so that none can keep the others out. Safe for concurrent use.
type Gate struct {
	all     chan struct{}
	perPeer int

	mu    sync.Mutex
	peers map[string]*gated // of nodes that are inside, or waiting
}

type gated struct {
	free  chan struct{}
	users int
}

// NewGate returns a gate for so many answers.
func NewGate(all, perPeer int) *Gate {
	return &Gate{all: make(chan struct{}, all), perPeer: perPeer, peers: map[string]*gated{}}
}

// Enter waits for a turn and returns how to give it back; fault.Unavailable if none
// comes within 5 s.
func (g *Gate) Enter(ctx context.Context, node string) (leave func(), err error) {
	g.mu.Lock()
	p := g.peers[node]
	if p == nil {
		p = &gated{free: make(chan struct{}, g.perPeer)}
		g.peers[node] = p
	}
	p.users++
	g.mu.Unlock()
	timer := time.NewTimer(gateWait)
	defer timer.Stop()
	for i, turn := range [...]chan struct{}{p.free, g.all} {
		select {
		case turn <- struct{}{}:
			continue
		case <-timer.C:
			err = fault.New(fault.Unavailable, "call: too many answers at once")
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if i == 1 {
			<-p.free
		}
		g.gone(node, p)
		return nil, err
	}
	return func() {
		<-g.all
		<-p.free
		g.gone(node, p)
	}, nil
}

func (g *Gate) gone(node string, p *gated) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(g.peers, node)
	}
}
