package repair

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/stripe"
)

// Places says where shards belong; *placement.Placement is one.
type Places interface {
	State() *placement.State
	// Changed is closed at the next change.
	Changed() <-chan struct{}
	// Complete says that this node has all that a version's rows give it.
	Complete(ctx context.Context, version uint64) error
}

// Views opens views of the catalogue; *catalog.Catalog is one.
type Views interface {
	View() *catalog.View
}

// Holder is this node's held shards; *held.Store is one.
type Holder interface {
	held.Lander
	held.Source
	Status(n held.Name) (held.Status, error)
	EachLost(visit func(held.Status) (bool, error)) error
	Drop(ctx context.Context, why held.Reason, names ...held.Name) (dropped int, err error)
}

// Copies are the full copies of this node's own packs.
type Copies interface {
	// Has reports whether the whole pack is here, as far as is known.
	Has(pack [16]byte) bool
	// Verify reads the copy against the root of the stripe that is sealed; fault.Corrupt
	// if it differs.
	Verify(ctx context.Context, of shard.Stripe) error
}

// Options are what a Repair is made of.
type Options struct {
	Self    string // this node's id
	Places  Places
	Catalog Views
	Held    Holder
	// Local finds what can be read here: Held, and what is cut from full copies.
	Local   held.Source
	Copies  Copies // nil: this node has none
	Peers   *held.Client
	Calls   held.Caller // for doubts
	Members held.Members
	Coder   *stripe.Coder
	// Tell makes news of a seal durable, to be told to the network. What comes of it is
	// seen in the catalogue.
	Tell func(f *catalog.SealFact) error

	// Lost reports whether a node was declared lost, Alive whether it is thought to be
	// up (nil: all are), Others are all nodes that hold shards, or did, but this one.
	Lost, Alive func(node string) bool
	Others      func() []string
	// Busy reports whether readers or stores want this node; nil: never.
	Busy func() bool

	Workers int           // shards that are rebuilt at one time; 32
	Memory  int64         // bytes of windows on their way; 96 MiB
	Every   time.Duration // how often all is looked through; 15 min
	Log     *slog.Logger  // nil is silent
}

func (o *Options) setDefaults() {
	if o.Copies == nil {
		o.Copies = noCopies{}
	}
	if o.Lost == nil {
		o.Lost = func(string) bool { return false }
	}
	if o.Alive == nil {
		o.Alive = func(string) bool { return true }
	}
	if o.Others == nil {
		o.Others = func() []string { return nil }
	}
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	if o.Coder == nil {
		o.Coder = stripe.NewCoder()
	}
	if o.Workers == 0 {
		o.Workers = 32
	}
	if o.Memory == 0 {
		o.Memory = 96 << 20
	}
	if o.Every == 0 {
		o.Every = 15 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

type noCopies struct{}

func (noCopies) Has([16]byte) bool { return false }
func (noCopies) Verify(context.Context, shard.Stripe) error {
	return fault.New(fault.NotFound, "repair: no copies here")
}

// Repair brings this node what it lacks. Make it by New.
type Repair struct {
	o      Options
	seed   maphash.Seed
	memory *semaphore.Weighted
	large  turns // of shards that have a table of their own
	ways   flights
	pace   pacer
	made   meter // bytes of shards that are rebuilt
	bad    badNodes
	stats  Stats
	news   news
	doubts doubts
	loads  loads

	wake   chan struct{} // something is in the queue
	again  chan struct{} // everything is to be looked through
	told   chan struct{} // there is news
	looks  chan struct{} // there are doubts
	walked chan struct{} // a walk has ended: surplus is looked for

	bug bug // of tests alone

	mu        sync.Mutex
	rotten    map[[16]byte]bool // packs whose copy here was read and is rotten
	queue     *queue
	holdTill  time.Time // workers wait for the walk, which may find what is more urgent
	lacking   int64     // shards that the last walk found lacking
	lackingB  int64     // their bytes, about
	hopeless  int64     // shards, and
	hopelessB int64     // bytes of them, that nobody has enough for
	fullFrom  int64     // shards of so many bytes find no room,
	fullTill  time.Time
	dirty     bool           // something came since the last walk began
	complete  *layout.Layout // that Complete was called for: a version may come again, after a recovery
}

// Stats count since the start.
type Stats struct {
	Rebuilt  atomic.Uint64 // shards that landed
	Bytes    atomic.Uint64 // of them
	Fetched  atomic.Uint64 // bytes that came from other nodes for them
	Failed   atomic.Uint64 // attempts
	Told     atomic.Uint64 // news of seals
	Dropped  atomic.Uint64 // surplus shards
	Doubted  atomic.Uint64 // shards of this node that others doubted, and that were read
	Walks    atomic.Uint64
	Refused  atomic.Uint64 // surplus shards for which nobody proved that they may go
	Withdrew atomic.Uint64 // news that a shard is not here any more
}

// New returns a Repair; its tasks do the work.
func New(o Options) *Repair {
	o.setDefaults()
	r := &Repair{
		o: o, seed: maphash.MakeSeed(), memory: semaphore.NewWeighted(o.Memory),
		wake: make(chan struct{}, 1), again: make(chan struct{}, 1), told: make(chan struct{}, 1),
		looks: make(chan struct{}, 1), walked: make(chan struct{}, 1), queue: newQueue(), rotten: map[[16]byte]bool{},
	}
	r.news.init()
	r.doubts.init()
	r.loads.init()
	r.pace.busy, r.pace.busyAt = o.Busy, r.busyAt
	return r
}

// Counters are its counters.
func (r *Repair) Counters() *Stats { return &r.stats }

// Tasks are the work in the background.
func (r *Repair) Tasks() []work.Task {
	return []work.Task{
		{Name: "repair", Run: r.run, Restart: &work.Restart{}},
		{Name: "repair_news", Run: r.tellNews, Restart: &work.Restart{}},
		{Name: "repair_doubts", Run: r.lookInto, Restart: &work.Restart{}},
		{Name: "repair_surplus", Run: r.giveUp, Restart: &work.Restart{}},
	}
}

// has reports whether the full copy of a pack of this node is here, and whole as far as
// is known.
func (r *Repair) has(pack [16]byte) bool {
	r.mu.Lock()
	rotten := r.rotten[pack]
	r.mu.Unlock()
	return !rotten && r.o.Copies.Has(pack)
}

// plan is what is decided from now.
func (r *Repair) plan() *plan {
	return &plan{
		bug: r.bug, self: r.o.Self, view: r.o.Places.State().View, lost: r.o.Lost,
		away: func(node string) bool { return node != r.o.Self && (r.o.Lost(node) || !r.o.Alive(node)) },
	}
}

// Status is how far repair is.
type Status struct {
	Queued  int           // shards that are lacking here and wait, as far as is known
	Running int           // that are being rebuilt
	Waiting int           // of the queued, those that could not be had yet
	Lost    int           // of the waiting, those that nobody has enough for
	Done    int64         // bytes that were rebuilt since the start
	Rate    float64       // bytes a second that are rebuilt
	Left    time.Duration // until the end, at that rate; below 0: not known
	Full    bool          // there is no room here
	Lacking int64         // bytes, about, of all that is lacking here; -1: nobody has looked yet
}

// Status returns it.
func (r *Repair) Status() Status {
	now := time.Now()
	rate := r.made.perSecond(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queue
	s := Status{Running: len(q.running), Waiting: len(q.waits.all), Done: int64(r.stats.Bytes.Load()), Rate: rate, Left: -1, Full: now.Before(r.fullTill), Lacking: -1}
	if r.stats.Walks.Load() > 0 {
		s.Lacking = r.lackingB + r.hopelessB
	}
	for _, w := range q.waits.all {
		if w.hopeless {
			s.Lost++
		}
	}
	s.Queued = max(q.len()+s.Waiting, int(r.lacking)-s.Running)
	bytes := max(q.bytes, r.lackingB)
	switch {
	case s.Queued == 0 && s.Running == 0:
		s.Left = 0
	case rate > 1024:
		s.Left = time.Duration(float64(bytes) / rate * float64(time.Second))
	}
	return s
}

// poke wakes whoever waits on a channel of one place.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
