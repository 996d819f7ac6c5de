package recalled

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"pelago/node/placement"
	"pelago/node/recent"
	"pelago/replication/catalog"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/recall"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Ring has the network's study keys; *keys.Ring is one.
type Ring interface {
	// Key returns a key by its id: fault.NotFound for one that is unknown or was
	// forgotten, fault.Unavailable while this node lacks its epoch.
	Key(id [16]byte) (seal.Key, error)
	// Open opens one that it need not hold: fault.Corrupt, and fault.Unavailable as above.
	Open(k keys.StudyKey) (seal.Key, error)
}

// Options are what a client is made of.
type Options struct {
	Node    string // this node's id
	Catalog *catalog.Catalog
	Keys    Ring
	State   func() *placement.State // where shards are placed now; never nil, must not block
	Holders recall.Holders          // other nodes
	// Local has the shards that are here, as other nodes would be given them; nil: none
	// are.
	Local held.Source
	Coder *stripe.Coder // nil: one of its own
	Hints recall.Hints  // nil: nothing is known of others
	// Doubt is told of a shard that a node has not as it should, which feeds repair; it
	// must not block. nil: nobody is.
	Doubt func(name held.Name, node string)
	Log   *slog.Logger // nil is silent
}

const (
	// openedBytes is the memory for what is known of packs that are read: about a
	// thousand.
	openedBytes = 4 << 20
	// maxPacksAtOnce is how many packs of a series are opened beside each other: each
	// may be as much memory as a pack's manifest, 1 % of its pixels.
	maxPacksAtOnce = 8
)

// Client reads packs from their shards. Make it by [New]; it has nothing to close.
type Client struct {
	o      Options
	log    *slog.Logger
	recall *recall.Client
	opened recent.Values[pack.ID, *opened]

	mu      sync.Mutex // guards what follows
	opening map[pack.ID]*turn
	said    map[shardAt]time.Time // when rot was logged
}

// New returns a client.
func New(o Options) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Coder == nil {
		o.Coder = stripe.NewCoder()
	}
	c := &Client{o: o, log: o.Log, opening: map[pack.ID]*turn{}, said: map[shardAt]time.Time{}}
	c.opened.Limit = openedBytes
	c.recall = recall.New(recall.Options{
		Holders: nearby{o.Holders, o.Local, o.Node}, Peers: recall.NewPeers(here{o.Hints, o.Node}), Coder: o.Coder, Rotten: c.rotten,
	})
	return c
}

// Counters are of all reads since the start; they go on counting.
func (c *Client) Counters() *recall.Counters { return c.recall.Counters() }

// rotten passes on what a node should not have sent.
func (c *Client) rotten(r recall.Rot) {
	name := held.Name{Stripe: r.Stripe, Index: r.Index}
	if c.first(name, r.Node) {
		c.log.Warn("a shard is not what it should be", "node", r.Node, "shard", name.String(), "error", r.Err)
	}
	if c.o.Doubt != nil {
		c.o.Doubt(name, r.Node)
	}
}

const (
	// quietFor is how long no more is said of the same shard: readers meet rot again and
	// again.
	quietFor = 10 * time.Minute
	// maxQuiet bounds the shards that are remembered so.
	maxQuiet = 1024
)

// shardAt is a shard at a node.
type shardAt struct {
	held.Name
	node string
}

// first reports whether rot of a shard is news.
func (c *Client) first(name held.Name, node string) bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	one := shardAt{name, node}
	if said, ok := c.said[one]; ok && now.Sub(said) < quietFor {
		return false
	}
	if len(c.said) >= maxQuiet {
		clear(c.said)
	}
	c.said[one] = now
	return true
}

// seals returns the seals of a pack of this catalogue, none when it is deleted.
func (c *Client) seals(id pack.ID) (all []catalog.Seal, err error) {
	err = c.look(func(v *catalog.View) error {
		all, err = v.Pack(id)
		return err
	})
	if err != nil || len(all) == 0 || all[0].Deleted {
		return nil, err
	}
	return all, nil
}

// look looks at the catalogue.
func (c *Client) look(at func(*catalog.View) error) error {
	view := c.o.Catalog.View()
	err := at(view)
	if closing := view.Close(); err == nil {
		err = closing
	}
	return err
}

// alive reports whether a node is thought to answer.
func (c *Client) alive(node string) bool {
	if node == c.o.Node || c.o.Hints == nil {
		return true
	}
	up, _ := c.o.Hints.Hint(node)
	return up
}

// turn is whose it is to open a pack, for which others wait.
type turn struct {
	token chan struct{} // holds one while somebody is at it
	users int           // Client.mu guards it
}

// take waits for the turn to open a pack, so that many readers of it ask for its head
// once.
func (c *Client) take(ctx context.Context, id pack.ID) (leave func(), err error) {
	c.mu.Lock()
	t := c.opening[id]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		c.opening[id] = t
	}
	t.users++
	c.mu.Unlock()
	done := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(c.opening, id)
		}
	}
	select {
	case t.token <- struct{}{}:
		return func() { <-t.token; done() }, nil
	case <-ctx.Done():
		done()
		return nil, context.Cause(ctx)
	}
}
