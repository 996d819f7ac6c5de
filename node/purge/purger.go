package purge

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"pelago/node/archive"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
)

// Decider has the network decide, under this node's name. *group.Group is one.
type Decider interface {
	Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) (results []error, err error)
}

// Archive is what this node packed. *archive.Archive is one.
type Archive interface {
	Parting(id pack.ID, over func(*catalog.Tombstone) (bool, error)) (*archive.Parting, error)
	DropPurged(ctx context.Context, ids ...pack.ID) error
	// KeepsStudy reports whether anything of a study is here, in whatever state.
	KeepsStudy(study string) (bool, error)
}

// Held is what this node holds of others. *held.Store is one.
type Held interface {
	List(lo, hi uint64, after *held.Name, visit func(held.Status) (bool, error)) error
	Drop(ctx context.Context, why held.Reason, names ...held.Name) (dropped int, err error)
}

// Copies are what this node keeps of packs that others store. *cached.Store is one.
type Copies interface{ Forget(ids ...pack.ID) error }

// Ring is the ring of study keys. *keys.Ring is one.
type Ring interface {
	Wrapped(id [16]byte) (keys.StudyKey, error)
	ForgetKeys(ids ...[16]byte) error
}

// Rows is a part of store/. *archive.Rows is one.
type Rows interface {
	Get(key string) (value []byte, ok bool, err error)
	Commit(rows map[string][]byte) error
}

// Options are what a purger is made of.
type Options struct {
	Node    string
	Catalog *catalog.Catalog
	Decide  Decider
	// Leader is the node that leads, which goes first; nil: everybody does.
	Leader func() string
	// Generation is that of the network whose entries the catalogue has applied.
	Generation func() uint64

	Archive Archive
	Held    Held // nil: it holds nothing of others
	Copies  Copies
	Ring    Ring
	Rows    Rows

	// Terms are this node's own idea of the network's. They count while Alone says that
	// the network has no other node; nil: it always has.
	Terms catalog.Terms
	Alone func() bool

	// Reads is the newest version of the catalogue's entries that another node's program reads,
	// as it says itself, 0 if it does not say; false: nothing is heard of it. It is a hint that
	// keeps nodes of older programs going, and nothing is judged by it. nil: nothing is heard.
	Reads func(node string) (version uint32, ok bool)

	// Monotonic is a clock that only ever goes on with time, and may stand still; nil:
	// this process's.
	Monotonic func() time.Duration
	Log       *slog.Logger

	bug bug
}

// bug is a fault that tests put in, to see that they find it.
type bug uint8

const (
	_ bug = iota
	bugUnreferenced
	bugDroppedBefore
)

// Purger has what was deleted go.
type Purger struct {
	o      Options
	clock  clock             // of Clock alone, as are reads and unread
	at     cursor            // of Drop alone, as is read
	read   bool              // the cursor was
	reads  map[string]uint32 // what other nodes' programs read, as was heard last
	unread string            // who was last said to hold the clock up

	mu      sync.Mutex
	dropped cursor // where Drop has been, durably; zero: not known yet
	again   []forgotten
}

// New returns a purger; nothing runs yet.
func New(o Options) *Purger {
	if o.Monotonic == nil {
		began := time.Now()
		o.Monotonic = func() time.Duration { return time.Since(began) }
	}
	if o.Alone == nil {
		o.Alone = func() bool { return false }
	}
	if o.Reads == nil {
		o.Reads = func(string) (uint32, bool) { return 0, false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Purger{o: o, reads: map[string]uint32{}}
}

// Tasks is the work, in starting order.
func (p *Purger) Tasks() []work.Task {
	task := func(name string, run func(context.Context, *work.Progress) error) work.Task {
		return work.Task{Name: name, Restart: &work.Restart{}, Run: run}
	}
	return []work.Task{
		task("purged", func(ctx context.Context, _ *work.Progress) error { return p.Drop(ctx) }),
		task("network_clock", p.Clock),
		task("purge_decisions", func(ctx context.Context, _ *work.Progress) error { return p.Propose(ctx) }),
	}
}

// leads reports whether this node goes first.
func (p *Purger) leads() bool { return p.o.Leader == nil || p.o.Leader() == p.o.Node }

// decideTime bounds a decision. One that is taken later is found to be taken.
const decideTime = 30 * time.Second

// decide has the network decide, and returns the first refusal of any command.
func (p *Purger) decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) error {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	results, err := p.o.Decide.Decide(ctx, conditions, commands...)
	if err != nil {
		return err
	}
	for _, err := range results {
		if err != nil {
			return err
		}
	}
	return nil
}

func jitter(d time.Duration) time.Duration { return d - d/8 + rand.N(d/4+1) }
