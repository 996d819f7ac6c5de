package spread

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/replication/journal"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

// Packs are this node's; *archive.Archive has them.
type Packs interface {
	EachPack(ctx context.Context, after pack.ID, visit func(*archivepb.Pack) (bool, error)) error
	// Ciphertext returns a pack and its bytes, of one that was evicted from its shards:
	// fault.NotFound for one that is gone, fault.Corrupt for one that is rotten.
	Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error)
	// Busy reports whether somebody sends, for whom others hold back.
	Busy() bool
}

// Holders are other nodes, which hold shards; *held.Client asks them.
type Holders interface {
	Upload(ctx context.Context, node string, offers []held.Offer) (*held.Landed, error)
	Receipts(ctx context.Context, node string, entries []held.Entry) (*held.Landed, error)
}

// Placement knows where shards belong; *placement.Placement does.
type Placement interface {
	State() *placement.State
	Changed() <-chan struct{}
}

// Keys has study keys as they were wrapped; *keys.Ring has.
type Keys interface {
	Wrapped(id [16]byte) (keys.StudyKey, error)
}

// Options are what spreading needs.
type Options struct {
	Self string // this node's id

	Packs     Packs
	Rows      Rows // of the name "spread"
	Holders   Holders
	Own       Own // shards that rest here
	Placement Placement
	Keys      Keys
	Catalog   *catalog.Catalog
	// Offer says that there is something to be told: [journal.Journal.Offer].
	Offer func()
	// Alive is what is believed of a node; nil: that all are.
	Alive func(node string) bool
	Log   *slog.Logger // nil is silent
}

// Stats count since the start.
type Stats struct {
	Packs  atomic.Uint64 // stripes that have all their shards since
	Bytes  atomic.Uint64 // of shards that went to other nodes
	Shards atomic.Uint64 // that other nodes gave a receipt for
	Failed atomic.Uint64 // uploads
}

// Spread turns this node's packs into stripes.
type Spread struct {
	o      Options
	ledger *ledger
	peers  *peers
	coder  *stripe.Coder
	stats  Stats
	wake   chan struct{} // to drive; capacity 1
	look   chan struct{} // to the survey; capacity 1

	began time.Time

	mu      sync.Mutex
	queue   queue
	refused []refusal
	untold  map[shard.Stripe]time.Time // since when news waits to be told with more
	retold  map[shard.Stripe]time.Time // when what was refused was told again last
	changed chan struct{}
}

var _ journal.Packs = (*Spread)(nil)

// Open reads how far telling is. Nothing is spread before the tasks run.
func Open(o Options) (*Spread, error) {
	if o.Self == "" || o.Packs == nil || o.Rows == nil || o.Holders == nil || o.Own == nil || o.Placement == nil || o.Keys == nil || o.Catalog == nil {
		return nil, fault.New(fault.Invalid, "spread: something that it needs is not there")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Offer == nil {
		o.Offer = func() {}
	}
	if o.Alive == nil {
		o.Alive = func(string) bool { return true }
	}
	o.Holders = nearby{o.Holders, o.Own, o.Self}
	l, err := openLedger(o.Rows)
	if err != nil {
		return nil, err
	}
	s := &Spread{
		o: o, ledger: l, coder: stripe.NewCoder(), wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
		began: time.Now(), queue: newQueue(), untold: map[shard.Stripe]time.Time{}, retold: map[shard.Stripe]time.Time{}, changed: make(chan struct{}),
	}
	s.peers = newPeers(o.Alive)
	return s, nil
}

// Tasks is the background work. Without it nothing is spread, but what was told is
// there to be told (journal.Packs).
func (s *Spread) Tasks() []work.Task {
	again := &work.Restart{}
	return []work.Task{
		{Name: "spread", Run: s.drive, Restart: again},
		{Name: "spread_survey", Run: s.survey, Restart: again},
	}
}

// Packed says that packs rest here now. It never blocks on I/O: the archive's packer
// waits for it.
func (s *Spread) Packed(ids []pack.ID) {
	if !s.o.Placement.State().Striped() {
		return // the survey finds them, should the network grow
	}
	s.enqueue(ids, false)
}

// Hurry says that somebody waits for packs: they are first in line, and nothing that
// has to do with them pauses. Those that have all their shards are told of at once if
// they were not. Of packs that are not this node's nothing comes.
func (s *Spread) Hurry(packs ...pack.ID) {
	if s.o.Placement.State().Striped() {
		s.enqueue(packs, true)
	}
}

func (s *Spread) enqueue(ids []pack.ID, hurried bool) {
	now := time.Now()
	s.mu.Lock()
	for _, id := range ids {
		it := &item{id: id, since: now, survives: -1, fresh: true, due: now}
		it.hurried.Store(hurried)
		s.queue.add(it)
	}
	s.mu.Unlock()
	poke(s.wake)
}

// Head returns the head of a stripe of this node's packs, which names its shards'
// roots: fault.NotFound for any other. It must not be changed.
func (s *Spread) Head(of shard.Stripe) (*stripe.Head, error) {
	r, err := s.ledger.stripe(of)
	if err != nil {
		return nil, err
	}
	if r == nil || r.head == nil {
		return nil, fault.New(fault.NotFound, "spread: %v is not of this node's stripes", of)
	}
	return r.head, nil
}

// Waiting returns the packs that are not sealed with all their shards, or are to be
// striped anew, and the bytes of their ciphertext, as far as is known: while the first
// survey runs it grows. In a network of one site nothing waits.
func (s *Spread) Waiting() (packs int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.waiting()
}

// Oldest is how long the pack that has waited longest since it was packed has; 0: none
// waits. Packs from before the last start count from it.
func (s *Spread) Oldest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.queue.oldest()
	if since.IsZero() {
		return 0
	}
	return time.Since(since)
}

// Counters are the counters.
func (s *Spread) Counters() *Stats { return &s.stats }

// Changed returns a channel that is closed when receipts have come, or something was
// told.
func (s *Spread) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Spread) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// poke wakes whoever waits for a channel of capacity 1.
func poke(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// gone reports whether an error says that a pack can never be read here: it was
// purged, or is rotten, which is for others to mend.
func gone(err error) bool {
	return fault.Is(err, fault.NotFound) || fault.Is(err, fault.Corrupt)
}

// ended reports whether an error only says that the task ends.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) || fault.Is(err, fault.Canceled))
}
