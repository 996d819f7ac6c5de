package schedule

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/cached"
	"pelago/node/evict"
	"pelago/node/far"
	"pelago/node/keyring"
	"pelago/node/protect"
	"pelago/node/purge"
	"pelago/node/reach"
	"pelago/node/recalled"
	"pelago/node/spread"
	"pelago/node/virtual"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/replication/journal"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/bulk/bulktest"
	"pelago/shard/held"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// node is a node of the network, assembled as cmd/pelago does.
type node struct {
	n     *network
	index int
	site  string
	name  string // its id
	disk  *bulktest.Disk
	self  *identity.Node

	public  ed25519.PublicKey
	sealing [identity.SealingBytes]byte

	dead   atomic.Bool // it lost power, and is still to be ended
	after  *vfs.MemFS  // what its disk holds then
	lost   chan struct{}
	opened atomic.Bool // it answers
	formed atomic.Bool // the network stood when it was opened

	serving sync.RWMutex // held for writing by who ends it
	handler http.Handler

	keys    *keys.Ring
	studies *keyring.Studies
	catalog *catalog.Catalog
	archive *archive.Archive
	held    atomic.Pointer[held.Store]
	client  *held.Client
	source  *virtual.Source
	spread  *spread.Spread
	recall  *recalled.Client
	copies  *cached.Store
	far     *far.Client
	reach   *reach.Reader
	protect *protect.Protect
	evict   *evict.Evict
	purger  *purge.Purger
	halt    func()
}

func newNode(n *network, i int) *node {
	s := &node{n: n, index: i, site: fmt.Sprintf("site %d", i), disk: bulktest.NewDisk(), lost: make(chan struct{})}
	s.openSelf()
	s.name, s.public, s.sealing = s.self.ID(), s.self.Public(), s.self.Sealing()
	return s
}

func (s *node) id() string { return s.name }

// stopped ends a life with a deliberate bug early.
type stopped struct{}

func (s *node) must(err error) {
	s.n.t.Helper()
	if err == nil {
		return
	}
	s.n.failf("%s: %v", s.site, err)
	if s.n.bug != nil {
		panic(stopped{})
	}
	s.n.t.FailNow()
}

// fs is the node's disk, whose steps are counted until the power goes.
func (s *node) fs() vfs.FS { return errorfs.Wrap(s.n.bug.syncing(s, s.disk), power{s}) }

type power struct{ s *node }

// MaybeError implements [errorfs.Injector]: it injects nothing, but counts.
func (p power) MaybeError(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpRename, errorfs.OpLink, errorfs.OpRemove:
		p.s.n.step(p.s)
	default: // between them nothing comes to be durable
	}
	return nil
}

func (p power) String() string { return "power" }

// loses takes what is durable.
func (s *node) loses() {
	s.after = s.disk.CrashClone(s.n.torn)
	close(s.lost)
}

// restart starts a node that lost power from what was durable. All others may wait.
func (s *node) restart() {
	s.n.t.Helper()
	<-s.lost
	s.stop()
	s.close()
	s.disk = bulktest.Over(s.after)
	s.after, s.lost = nil, make(chan struct{})
	s.dead.Store(false)
	s.openSelf()
	s.openCatalog()
	s.open()
}

// openSelf opens what the node is.
func (s *node) openSelf() {
	var err error
	s.self, err = identity.Open(s.fs(), "data/keys")
	s.must(err)
	if s.index == 0 {
		s.must(s.self.FirstEpoch())
	}
	s.keys, err = keys.Open(s.fs(), "data/keys", s.self)
	s.must(err)
}

// openCatalog opens the catalogue, and applies what it lacks.
func (s *node) openCatalog() {
	c, err := archive.OpenCatalog(s.archiveOptions())
	s.must(err)
	s.n.ordering.Lock()
	defer s.n.ordering.Unlock()
	s.catalog = c
	s.n.applyLocked(s)
}

func (s *node) archiveOptions() archive.Options {
	return archive.Options{
		FS: s.fs(), Dir: "data", Node: s.id(), Site: s.site, Keys: s.keys,
		TableBytes: 1 << 20, PackBytes: 4 << 20, StagingBytes: 64 << 20, Ballast: 1, CacheBytes: 1 << 20,
		Quiet: 10 * time.Minute, Age: 10 * time.Minute, Gather: 10 * time.Minute, Grace: grace,
		Free: func() (int64, int64, error) { return 1 << 40, 1 << 40, nil },
	}
}

// open opens the parts, in the order of cmd/pelago, and starts their tasks.
func (s *node) open() {
	s.openArchive()
	s.openShards()
	s.openReading()
	n := s.n
	s.protect = protect.New(protect.Options{
		Self: s.id(), Site: s.site, Archive: s.archive, Catalog: s.catalog, Members: n, Placement: n, Spread: s.spread,
		Shards: n.bug.proofs(s), Held: s.held.Load(), Copy: s.source, Keys: s.keys, Peers: call.NewClient(caller{s}),
		Current: func(context.Context) error { return nil }, Fenced: func() error { return nil }, Alive: s.alive,
	})
	s.evict = evict.New(n.bug.evicting(s, evict.Options{
		Self: s.id(), Rule: evict.Rule{Above: 90, Below: 80}, Packs: evictable{s.archive, s}, Copies: s.source, Spread: s.spread, Holders: s.client,
		Own: s.held.Load(), Rows: s.archive.Rows("evict"), Placement: n.State, Survives: s.protect.Survives,
		Site:  func(node string) (string, bool) { return n.ids[node].site, true },
		Seals: func(id [16]byte) ([]catalog.Seal, error) { return s.seals(id) },
		Disk:  func() (evict.Disk, error) { return evict.Disk{Size: 100}, nil },
	}))
	s.purger = purge.New(n.bug.purging(s, purge.Options{
		Node: s.id(), Catalog: s.catalog, Decide: s, Leader: func() string { return n.nodes[0].id() }, Generation: func() uint64 { return 1 },
		Archive: spreadPacks{s.archive, s}, Held: purgeable{s.held.Load(), s}, Copies: s.copies, Ring: ring{s.keys, s}, Rows: s.archive.Rows("purged"),
		Terms: catalog.Terms{Grace: grace, Away: 60 * grace}, Reads: func(string) (uint32, bool) { return catalog.EntryVersion, true },
	}))
	var err error
	s.studies, err = keyring.OpenStudies(keyring.StudiesOptions{
		FS: s.fs(), Dir: "data/keys", Ring: s.keys, From: agreed{s.catalog}, Log: slog.New(slog.DiscardHandler),
	})
	s.must(err)
	n.bug.starting(s)
	mux := http.NewServeMux()
	mux.Handle("/held/", held.NewHandler(held.HandlerOptions{Held: s.held.Load(), Source: s.source, Peer: peer}))
	mux.Handle("/protect/", s.protect.Handler())
	mux.Handle("/archive/", far.NewHandler(far.HandlerOptions{
		Source: reach.Source{Archive: s.archive, Copies: s.copies}, Members: n, Told: s.reach.Told, Peer: peer,
	}))
	s.handler = mux
	s.start()
	s.opened.Store(true)
}

func peer(r *http.Request) (authority.Name, error) {
	from := r.Context().Value(fromKey{}).(*node)
	return authority.Name{Node: from.id(), Site: from.site}, nil
}

func (s *node) openArchive() {
	o := s.archiveOptions()
	o.Catalog, o.Propose, o.Decide, o.Signer = s.catalog, s, s, s.self
	o.Packs, o.Graces = s, purge.Graces{Catalog: s.catalog}
	o.Packed = func(ids []pack.ID) { s.spread.Packed(ids) }
	o.Spread = func() bool { return true }
	o.Evicted = func(p *archivepb.Pack) (io.ReaderAt, error) {
		return &evicted{s, far.PackOf(p, seal.Key{})}, nil
	}
	o.BulkLost = func(rows func(string) *archive.Rows, refs []bulk.Ref, cause error) error {
		if h := s.held.Load(); h != nil {
			return h.BulkLost(refs, cause)
		}
		return held.NoteLost(rows("held"), refs, cause)
	}
	var err error
	s.archive, err = archive.Open(o)
	s.must(err)
}

func (s *node) openShards() {
	h, err := held.Open(held.Options{
		Self: s.self, Bulk: s.archive.Bulk(), Rows: s.archive.Rows("held"), Reserve: s.archive.Reserve, Purged: s.catalog.Purged,
	})
	s.must(err)
	s.held.Store(h)
	s.client = held.NewClient(call.NewClient(caller{s}), s.n)
	s.source = virtual.New(virtual.Options{Held: h, Hot: s.archive, Heads: headsOf{s}})
	s.spread, err = spread.Open(spread.Options{
		Self: s.id(), Packs: s.n.bug.striping(s.archive), Rows: s.archive.Rows("spread"), Holders: s.n.bug.spreading(s), Own: h, Placement: s.n,
		Keys: s.keys, Catalog: s.catalog, Offer: s.archive.Journal().Offer, Alive: s.alive,
	})
	s.must(err)
}

func (s *node) openReading() {
	s.recall = recalled.New(recalled.Options{
		Node: s.id(), Catalog: s.catalog, Keys: s.keys, State: s.n.State, Local: s.source,
		Holders: held.Holders{Client: s.client}, Hints: s,
	})
	var err error
	s.copies, err = cached.Open(cached.Options{
		Bulk: s.archive.Bulk(), Ring: s.keys, Limit: 64 << 20, Reserve: s.archive.Reserve,
		Copies: s.archive.Rows("copies"), Told: s.archive.Rows("told"), Opened: s.archive.Rows("opened"),
	})
	s.must(err)
	// Nothing that is read is kept, for the next reader would read that.
	s.far = far.NewClient(far.Options{Calls: call.NewClient(caller{s}), Self: s.self, Packs: s.recall, Alive: s.alive, Memory: 16 << 20})
	s.reach = reach.New(reach.Options{
		Node: s.id(), Archive: s.archive, Copies: s.copies, Client: reach.Far(s.far), Nodes: s, Shards: s.recall,
	})
}

// start starts the tasks.
func (s *node) start() {
	tasks := s.archive.Tasks()
	tasks = append(tasks, work.Task{Name: "shards", Run: func(ctx context.Context, p *work.Progress) error { return s.held.Load().Run(ctx, p.Note) }})
	tasks = append(tasks, s.spread.Tasks()...)
	tasks = append(tasks, s.protect.Tasks()...)
	tasks = append(tasks, s.purger.Tasks()...)
	tasks = append(tasks, work.Task{Name: "study_keys", Run: func(ctx context.Context, _ *work.Progress) error { return s.studies.Run(ctx) }})
	for i := range tasks {
		if tasks[i].Restart == nil {
			tasks[i].Restart = &work.Restart{}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- work.New(slog.New(slog.DiscardHandler), tasks...).Run(ctx) }()
	s.halt = func() {
		cancel()
		if err := <-ended; err != nil && !s.dead.Load() {
			s.n.failf("%s: tasks: %v", s.site, err)
		}
	}
}

// stop ends the tasks, and that the node answers.
func (s *node) stop() {
	s.opened.Store(false)
	if s.halt != nil {
		s.halt()
		s.halt = nil
	}
	s.serving.Lock() // those who were answered have ended
	defer s.serving.Unlock()
}

// close closes what parts are open, in reverse.
func (s *node) close() {
	s.n.t.Helper()
	s.n.ordering.Lock()
	c := s.catalog
	s.catalog = nil
	s.n.ordering.Unlock()
	var errs []error
	if s.far != nil {
		errs = append(errs, s.far.Close())
	}
	if s.reach != nil {
		s.reach.Close()
	}
	if s.copies != nil {
		s.copies.Close()
	}
	if s.source != nil {
		s.source.Close()
	}
	if s.archive != nil {
		errs = append(errs, s.archive.Close())
	}
	if c != nil {
		errs = append(errs, c.Close())
	}
	errs = append(errs, s.keys.Close())
	s.held.Store(nil)
	s.far, s.reach, s.copies, s.source, s.archive = nil, nil, nil, nil, nil
	if err := errors.Join(errs...); err != nil && !s.dead.Load() {
		s.n.failf("%s: close: %v", s.site, err)
	}
}

func (s *node) seals(id [16]byte) ([]catalog.Seal, error) {
	v := s.catalog.View()
	defer v.Close()
	return v.Pack(id)
}

// Propose implements [journal.Proposer].
func (s *node) Propose(_ context.Context, entry []byte) (uint64, error) { return s.n.put(s, entry) }

// Decide implements the parts' deciders.
func (s *node) Decide(_ context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	entry, err := catalog.EncodeDecision(s.self, s.id(), conditions, commands)
	if err != nil {
		return nil, err
	}
	index, err := s.n.put(s, entry)
	if err != nil {
		return nil, err
	}
	results, ok := s.catalog.Results(index)
	if !ok {
		return nil, fault.New(fault.Unavailable, "no results")
	}
	return results, nil
}

// After implements [journal.Packs]: the archive opens before what spreads its packs.
func (s *node) After(ctx context.Context, number uint64, yield func(uint64, journal.PackFact) error) error {
	return s.spread.After(ctx, number, yield)
}

// Refused implements [journal.Packs].
func (s *node) Refused(f journal.PackFact, why error) { s.spread.Refused(f, why) }

// Others implements [reach.Nodes].
func (s *node) Others() (others []string) {
	for _, o := range s.n.nodes {
		if o != s {
			others = append(others, o.id())
		}
	}
	return others
}

// Alive implements [reach.Nodes].
func (s *node) Alive(node string) bool { return s.alive(node) }

func (s *node) alive(node string) bool { return !s.n.away(s.n.ids[node]) }

// Hint implements [recall.Hints].
func (s *node) Hint(node string) (bool, time.Duration) { return s.alive(node), time.Millisecond }

// headsOf has the heads of the stripes of a node's packs.
type headsOf struct{ *node }

// Head implements [virtual.Heads].
func (h headsOf) Head(of shard.Stripe) (*stripe.Head, error) { return h.spread.Head(of) }

// agreed is the catalogue as it tells of study keys.
type agreed struct{ *catalog.Catalog }

// Generation implements [keyring.Agreed].
func (agreed) Generation() uint64 { return 1 }

// evicted reads the ciphertext of a pack from its shards.
type evicted struct {
	*node
	pack far.Pack
}

// ReadAt implements [io.ReaderAt].
func (e *evicted) ReadAt(b []byte, off int64) (int, error) {
	n := max(min(int64(len(b)), e.pack.Bytes-off), 0)
	if off < 0 || n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := e.recall.ReadPack(ctx, &e.pack, b[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
