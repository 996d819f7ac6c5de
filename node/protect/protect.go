package protect

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"pelago/cluster/call"
	"pelago/node/archive"
	"pelago/node/member"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Archive is what this node stores itself. *archive.Archive is one.
type Archive interface {
	Committed(ctx context.Context, class, sop, sender string) error
	Resting(ctx context.Context, class, sop, sender string) (archive.Resting, error)
	PackSeries(ctx context.Context, of ...archive.SeriesName) error
	Packs(ctx context.Context, study string) ([]archive.PackInfo, error)
}

// Catalogue is what the network has agreed on. *catalog.Catalog is one.
type Catalogue interface {
	View() *catalog.View
	Registry(kind string) (map[string][]byte, error)
	RegistryChanged() uint64
	Changed() <-chan struct{}
	Study(uid string) (*catalog.Study, error)
}

// Members are the network's nodes. *member.Registry is one.
type Members interface {
	Member(node string) (member.Member, bool)
	Belongs(node string) bool
}

// Placement is where shards belong. *placement.Placement is one.
type Placement interface {
	State() *placement.State
	Changed() <-chan struct{}
}

// Spread brings this node's packs to others. *spread.Spread is one.
type Spread interface {
	Head(of shard.Stripe) (*stripe.Head, error)
	Hurry(packs ...pack.ID)
	Changed() <-chan struct{}
}

// Shards asks other nodes about the shards that they hold. *held.Client is one.
type Shards interface {
	Head(ctx context.Context, node string, e held.Entry) (*stripe.Head, error)
	Receipts(ctx context.Context, node string, entries []held.Entry) (*held.Landed, error)
	Prove(ctx context.Context, node string, shards []held.Audit) ([]error, error)
}

// Held is this node as a holder of others' shards. *held.Store is one.
type Held interface {
	Ask(entries []held.Entry) (*held.Landed, error)
	Shard(n held.Name) (held.Shard, error)
}

// Copy reads this node's own copy of a pack again, all of it, and compares it with the
// stripe's root. *virtual.Source is one.
type Copy interface {
	Verify(ctx context.Context, of shard.Stripe) error
}

// Keys opens study keys that are durable here. *keys.Ring is one.
type Keys interface {
	Key(id [16]byte) (seal.Key, error)
}

// Options are what a Protect is made of.
type Options struct {
	Self, Site string // this node
	Archive    Archive
	Catalog    Catalogue
	Members    Members
	Placement  Placement
	Spread     Spread // nil, as Held and Copy, at a witness, which stores nothing
	Shards     Shards
	Held       Held
	Copy       Copy
	Keys       Keys
	Peers      *call.Client
	// Current returns once all is applied here that was committed anywhere when it was
	// called. *group.Group has it.
	Current func(ctx context.Context) error
	// Fenced returns why this node's catalogue is not to be relied on.
	Fenced func() error
	// Alive is what gossip says of a node: a hint, which never stands for an answer.
	Alive func(node string) bool
	// Doubt is told of a shard whose holder says that it is not there, or shows other
	// bytes. It must not block. nil: nobody is.
	Doubt func(name held.Name, node string)
	// Busy reports whether others use this node, before whom counting waits; nil: never.
	Busy func() bool
	Log  *slog.Logger
}

// Protect knows what survives.
type Protect struct {
	o   Options
	bug bug // that a test has switched on

	wake   chan struct{} // the look at packs
	wakePk chan struct{} // the packing of series

	mu      sync.Mutex // guards what follows
	packs   map[pack.ID]*waiting
	series  map[archive.SeriesName]*staged
	changed chan struct{}
	lone    loneliness
	count   count
}

// New returns a Protect. Its tasks must run.
func New(o Options) *Protect {
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	return &Protect{
		o: o, wake: make(chan struct{}, 1), wakePk: make(chan struct{}, 1),
		packs: map[pack.ID]*waiting{}, series: map[archive.SeriesName]*staged{}, changed: make(chan struct{}),
	}
}

// Tasks is the background work.
func (p *Protect) Tasks() []work.Task {
	again := &work.Restart{}
	all := []work.Task{{Name: "protected_studies", Run: p.runCounting, Restart: again}}
	if p.o.Spread == nil { // nothing is ever waited for
		return all
	}
	return append(all, work.Task{Name: "pack_awaited", Run: p.runPacking, Restart: again}, work.Task{Name: "protection", Run: p.runLooking, Restart: again})
}

// Changed returns a channel that closes when more may be committed than before: who
// was told "not yet" asks again then.
func (p *Protect) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// notify closes it.
func (p *Protect) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// poke wakes a loop.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// siteOf is the site of a member that may be counted on: one in good standing, no
// witness, and not declared lost.
func (p *Protect) siteOf(st *placement.State, node string) (string, bool) {
	m, known := p.o.Members.Member(node)
	if !known || m.Witness || !p.o.Members.Belongs(node) || st.Lost(node) {
		return "", false
	}
	return m.Site, true
}

// waitFor waits for one of some events, and at most so long.
func waitFor(ctx context.Context, most time.Duration, events ...<-chan struct{}) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	var c [4]<-chan struct{}
	copy(c[:], events)
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-c[0]:
	case <-c[1]:
	case <-c[2]:
	case <-c[3]:
	}
}
