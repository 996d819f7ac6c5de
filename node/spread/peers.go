package spread

import (
	"context"
	"sync"
	"time"

	"pelago/cluster/fault"
)

const (
	// maxUploads is how many uploads one node gets at a time from this one; a holder
	// takes 8 of a peer.
	maxUploads = 2
	// turnWithin is how long an upload waits for its turn before it is left for later.
	turnWithin = 10 * time.Second
	// minBack and maxBack are how long a node that failed is not asked again.
	minBack = 5 * time.Second
	maxBack = 5 * time.Minute
	// substituteAfter is how long a node fails before another one stands in for it. It
	// costs moving the shard once more, when it is back.
	substituteAfter = time.Minute
)

// peers remembers how other nodes fare as holders.
type peers struct {
	alive func(node string) bool

	mu sync.Mutex
	of map[string]*peer
}

type peer struct {
	turns    chan struct{} // taken by uploads; capacity maxUploads
	failures int           // since it was there last
	since    time.Time     // of the first of them
	until    time.Time     // it is not asked before
}

func newPeers(alive func(string) bool) *peers { return &peers{alive: alive, of: map[string]*peer{}} }

func (p *peers) peerLocked(node string) *peer {
	one := p.of[node]
	if one == nil {
		one = &peer{turns: make(chan struct{}, maxUploads)}
		p.of[node] = one
	}
	return one
}

// usable reports whether a node may be asked now. One that is believed to be dead is
// asked less often.
func (p *peers) usable(node string, now time.Time) bool {
	alive := p.alive(node)
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.peerLocked(node)
	if one.failures == 0 && !alive {
		one.failures, one.since, one.until = 1, now, now.Add(minBack)
	}
	return one.failures == 0 || !now.Before(one.until)
}

// failing returns for how long a node has failed; 0: it does not.
func (p *peers) failing(node string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.peerLocked(node)
	if one.failures == 0 {
		return 0
	}
	return now.Sub(one.since)
}

// failed notes that a node failed.
func (p *peers) failed(node string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.peerLocked(node)
	if one.failures == 0 {
		one.since = now
	} else if now.Before(one.until) {
		return // several of one moment
	}
	one.until = now.Add(min(maxBack, minBack<<min(one.failures, 8)))
	one.failures++
}

// there notes that a node answered; it reports whether it had failed before.
func (p *peers) there(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.peerLocked(node)
	was := one.failures > 0
	one.failures, one.until = 0, time.Time{}
	return was
}

// reset has every node asked as if it never failed, but for how long it did.
func (p *peers) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.of {
		one.until = time.Time{}
	}
}

// turn waits for a turn to send to a node. fault.Unavailable if that takes long.
func (p *peers) turn(ctx context.Context, node string) (done func(), err error) {
	p.mu.Lock()
	turns := p.peerLocked(node).turns
	p.mu.Unlock()
	limit := time.NewTimer(turnWithin)
	defer limit.Stop()
	select {
	case turns <- struct{}{}:
		return func() { <-turns }, nil
	case <-limit.C:
		return nil, errTurn
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// errTurn says that a node is only slow.
var errTurn = fault.New(fault.Unavailable, "spread: other uploads to the node are not over")
