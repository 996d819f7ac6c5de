package far

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"pelago/shard/seal"
)

// Caller sends a request to the peer that its URL names; *call.Client is one.
type Caller interface {
	Send(request *http.Request) (*http.Response, error)
}

// Self opens what was sealed to this node; *identity.Node is one.
type Self interface {
	ID() string
	Unseal(info, sealed []byte) ([]byte, error)
}

// Options are what a client is made of.
type Options struct {
	Calls Caller
	Self  Self
	Keep  Keeper // nil: nothing is kept
	// Packs reads packs of which no node gives a full copy; nil: they cannot be read.
	Packs Packs
	// Alive reports whether a node is thought to answer: the others are asked last. nil:
	// all are.
	Alive  func(node string) bool
	Memory int64 // most bytes of other nodes' packs in memory; 256 MiB
	Log    *slog.Logger
}

// Client reads other nodes' archives. Make it by [NewClient].
type Client struct {
	o       Options
	ctx     context.Context //nolint:containedctx // of what it started; Close ends it
	cancel  context.CancelFunc
	work    sync.WaitGroup
	peers   *peers
	scratch sync.Pool   // of *[]byte, a segment's worth
	ranges  sync.Pool   // of *[]byte, of maxFetch, for what shards give
	idle    *time.Timer // gives the memory back

	openings chan struct{} // holds a token for each that is under way
	// gathers holds a token for each range that comes from shards, gathersAhead for each
	// of them that nobody waited for.
	gathers, gathersAhead chan struct{}

	mu        sync.Mutex // guards what follows, and what objects, fetches and blocks say
	closed    bool
	objects   map[objectKey]*object
	mem       blocks
	keeping   []*object // packs that wait to be kept, the first in hand
	following bool      // a large pack is being kept while it is read
	read      time.Time // by anybody, the last time
	ahead     int       // fetches under way that nobody waited for when they began
	order     uint64    // of the last of them
	fetched   int64     // bytes
	hedged    int64     // bytes that were asked for twice
}

// NewClient returns a client. It must be closed.
func NewClient(o Options) *Client {
	if o.Memory == 0 {
		o.Memory = 256 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Alive == nil {
		o.Alive = func(string) bool { return true }
	}
	c := &Client{o: o, peers: newPeers(), objects: map[objectKey]*object{}, openings: make(chan struct{}, maxOpenings)}
	c.gathers, c.gathersAhead = make(chan struct{}, maxGathers), make(chan struct{}, maxGathers-maxGathers/forDemand)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mem.limit, c.mem.room = max(o.Memory, minMemory), make(chan struct{})
	c.idle = time.AfterFunc(idleAfter, c.rest)
	c.scratch.New = func() any {
		b := make([]byte, seal.SegmentBytes)
		return &b
	}
	c.ranges.New = func() any {
		b := make([]byte, maxFetch)
		return &b
	}
	return c
}

// Close ends what is under way and gives the memory back. Readers fail after it.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.cancel()
	c.idle.Stop()
	c.mu.Unlock()
	c.work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked()
	return nil
}
