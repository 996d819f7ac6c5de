package recall

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"pelago/shard/stripe"
)

// Options are what a client is made of.
type Options struct {
	Holders Holders
	Peers   *Peers
	Coder   *stripe.Coder
	// Rotten is told what nodes should not have sent, which feeds repair. Calls come
	// from readers, also of the same range again, and must not block. May be nil.
	Rotten func(Rot)
	// Memory is what decoding may take, in bytes, of all reads together; 128 MiB.
	Memory int64
}

// defaultMemory is room for a range of maxAsk of the widest default code, and for
// many frames.
const defaultMemory = 128 << 20

// Client reads packs from shards. Make it by [New].
type Client struct {
	o        Options
	memory   *semaphore.Weighted
	budget   budget
	counters Counters
}

// New returns a client. It has nothing to close.
func New(o Options) *Client {
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Rotten == nil {
		o.Rotten = func(Rot) {}
	}
	return &Client{o: o, memory: semaphore.NewWeighted(o.Memory)}
}

// Counters are of all since the start.
type Counters struct {
	Asked, AskedBytes   atomic.Int64 // requests, and bytes of shards in them
	Hedged, HedgedBytes atomic.Int64 // of these, beside one that was still expected
	Degraded            atomic.Int64 // ranges for which other shards were turned to
	Shared              atomic.Int64 // ranges that another reader was fetching already
	Rotten              atomic.Int64 // answers that were not what they should be
}

// Counters returns the client's, which go on counting.
func (c *Client) Counters() *Counters { return &c.counters }

// room waits for memory and returns how to give it back. A single read always
// fits.
func (c *Client) room(ctx context.Context, bytes int64) (free func(), err error) {
	bytes = min(bytes, c.o.Memory)
	if err := c.memory.Acquire(ctx, bytes); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { c.memory.Release(bytes) }, nil
}

// rotten tells of what a place should not have sent.
func (c *Client) rotten(r Rot) {
	c.counters.Rotten.Add(1)
	c.o.Rotten(r)
}
