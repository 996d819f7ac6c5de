package group

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/consensus"
	"pelago/replication/freshness"
	"pelago/replication/raftlog"
)

// Options are what a node's part in the network is made of.
type Options struct {
	ID      string // node id
	Address string // under which others reach this node's port
	FS      vfs.FS // nil: the operating system's
	Dir     string // data directory: the log is in raft/ under it
	// Catalogue is opened and closed by the caller, after Close.
	Catalogue Catalogue
	Signer    catalog.Signer // this node's key
	Peers     *call.Client   // knows where nodes are
	Port      Port
	// Locate knows a node's address better than the membership; nil, an error
	// or "": it does not.
	Locate   func(ctx context.Context, node string) (address string, err error)
	Log      *slog.Logger // nil: silent
	Settings Settings
	// Newcomer says that this node has never taken part: see consensus.Options.
	Newcomer bool
	// Replaced is called when the catalogue has been replaced by a copy of another
	// node's: what this node had said ahead of the log is not in it. May be nil.
	Replaced func()
	// Kept is how long this node has kept the oldest of what its journal has logged
	// and the network has not; 0: the network has all. nil: it keeps nothing.
	Kept func() time.Duration
	// Led is called when another node than before leads, this one or not, and again
	// when one does after none did. It must not block. May be nil.
	Led func()
	// Observe hears of the log's operations, for metrics; may be nil.
	Observe func(op raftlog.Operation, took time.Duration, err error)
}

// Catalogue is the state machine, its results and its registry.
type Catalogue interface {
	consensus.StateMachine
	// Admit reports why a node may not put an entry into the order, as of what is
	// applied here: fault.Unsupported for one of a newer version, at which every node
	// that has it committed would stand still, fault.Denied for one of another node,
	// or that no member has signed, fault.Mismatch and fault.Conflict for a batch that
	// is not the next of its journal. again: it was taken before and changes nothing.
	Admit(from string, entry []byte) (again bool, err error)
	// Results returns what became of a recently applied entry.
	Results(index uint64) (results []error, ok bool)
	// StateHash returns the hash of all that was committed up to an index.
	StateHash() (hash [32]byte, index uint64)
	// Registry returns the records of a kind by name: of it are members and revocations.
	Registry(kind string) (map[string][]byte, error)
	// Changed closes after the next change.
	Changed() <-chan struct{}
	// Checkpoint makes a copy in a folder that does not exist, at one moment and
	// durable. Apply does not run beside it.
	Checkpoint(dir string) error
	// Prepare makes a copied checkpoint, which nobody has open, that of the node
	// self, ready to be put in place, and returns the hash of its state, as it says
	// itself, and the index of that.
	Prepare(ctx context.Context, dir, self string) (hash [32]byte, index uint64, err error)
	// Replace puts a copied checkpoint in the place of this catalogue, in one step:
	// after a crash there is the one or the other. It is durable when it returns, and
	// the folder may be gone. Apply does not run beside it; readers may.
	Replace(ctx context.Context, dir string) error
	// Verify reads all that is here, and calls bad for each breach of what must hold
	// between records, their hash and their indexes: one call at a time, and without
	// patient data. It takes minutes, beside everything else.
	Verify(ctx context.Context, bad func(error)) error
}

// Settings are times. The zero value of a field is its default.
type Settings struct {
	Raft consensus.Settings
	// Poll is how often the leader is asked for its commit index: 1 s, give or
	// take a fifth; Idle how often when nobody has asked for the staleness in the
	// last Attention: 5 s, and 1 min.
	Poll, Idle, Attention time.Duration
	// Pace is the least time between two confirmations of leadership for others: 100 ms.
	Pace time.Duration
	// Steady is how long a member must be well to be given a vote, and Doubt how
	// long unwell to lose it to another: 10 s and 5 min.
	Steady, Doubt time.Duration
	// Answer bounds waiting for a peer's answer, Propose all of a proposal at the leader: 10 s and 30 s.
	Answer, Propose time.Duration
}

func (s Settings) withDefaults() Settings {
	for _, d := range []struct {
		to  *time.Duration
		def time.Duration
	}{
		{&s.Raft.Election, 3 * time.Second},
		{&s.Poll, time.Second}, {&s.Idle, 5 * time.Second}, {&s.Attention, time.Minute},
		{&s.Steady, 10 * time.Second}, {&s.Doubt, 5 * time.Minute},
		{&s.Pace, 100 * time.Millisecond}, {&s.Answer, 10 * time.Second}, {&s.Propose, 30 * time.Second},
	} {
		if *d.to == 0 {
			*d.to = d.def
		}
	}
	return s
}

// Group is a node's part in the network.
type Group struct {
	o         Options
	settings  Settings
	log       *slog.Logger
	raftlog   *raftlog.Store
	transport *transport
	machine   *machine
	copies    copies
	node      *consensus.Node
	tracker   freshness.Tracker
	heard     freshness.Heard // of the members, while this node leads
	silence   freshness.Silence
	rounds    rounds
	shares    shares
	fence     *fence

	copying      sync.Mutex // held by Bootstrap, over all of it
	verification verification

	told atomic.Uint64 // the highest commit index that a leader has told

	mu       sync.Mutex
	attended time.Time       // when the staleness was last asked for
	broken   map[string]bool // whose copies were found to be broken
	unwell   []string        // who said that it has lost its log, until the leader's loop has heard of it
}

// Open opens the log and offers Raft on the port. Nothing takes part before Run.
func Open(o Options) (*Group, error) {
	if o.ID == "" || o.Address == "" || o.Catalogue == nil || o.Signer == nil || o.Peers == nil || o.Port == nil {
		return nil, fault.New(fault.Invalid, "group: a node needs an id, an address, a catalogue, a key, peers and a port")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	g := &Group{o: o, settings: o.Settings.withDefaults(), log: o.Log}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.machine = newMachine(o.Catalogue)
	g.copies = copies{fs: o.FS, dir: o.FS.PathJoin(o.Dir, "checkpoints"), pins: map[string]*pin{}, turn: make(chan struct{}, 1)}
	g.rounds.pace = g.settings.Pace
	g.verification.due = make(chan struct{}, 1)
	g.broken = map[string]bool{}
	var err error
	if g.raftlog, err = raftlog.Open(raftlog.Options{FS: o.FS, Dir: o.FS.PathJoin(o.Dir, "raft"), Mark: o.FS.PathJoin(o.Dir, "raft.mark"), Observe: o.Observe}); err != nil {
		return nil, err
	}
	if g.fence, err = openFence(o.FS, o.Dir); err != nil {
		return nil, errors.Join(err, g.raftlog.Close())
	}
	err = o.FS.RemoveAll(g.copies.dir)
	if err == nil {
		err = g.wire()
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Group) wire() (err error) {
	if g.transport, err = listenRaft(&g.o, g.o.Log); err != nil {
		return err
	}
	g.node, err = consensus.New(consensus.Options{
		ID: g.o.ID, Address: g.o.Address, Transport: g.transport, Log: g.raftlog, Machine: g.machine, Peers: g,
		Settings: g.settings.Raft, Logger: g.o.Log, Newcomer: g.o.Newcomer,
		Fence: g.standing,
	})
	return err
}

// Close closes what Open opened, after Run has ended.
func (g *Group) Close() error {
	var errs []error
	if g.transport != nil {
		errs = append(errs, g.transport.Close())
	}
	return errors.Join(append(errs, g.raftlog.Close())...)
}

// Found makes this node the only voter of a new network, before Run;
// fault.Conflict when its log has a past.
func (g *Group) Found() error { return g.node.Found() }

// Fresh reports whether the log has no past: not an entry, not a term.
func (g *Group) Fresh() bool { return g.raftlog.Fresh() }

// Older reports whether the log is an earlier one than it was: put back from a copy, or
// lost. Run has the network take this node's vote then, before anything else.
func (g *Group) Older() bool { return g.raftlog.Older() }

// Recover makes this node the only voter of a new generation of the network,
// before Run: see consensus.Node.Recover.
func (g *Group) Recover() error { return g.node.Recover() }

// Survey returns what this node would go on from if it recovered the network.
func (g *Group) Survey() (consensus.Survey, error) { return g.node.Survey() }

// Run takes part until ctx ends, or until this node cannot go on. All that it
// started has ended when it returns.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for _, do := range []func(context.Context){g.rounds.run, g.poll, g.lead, g.compare, g.verify, g.repair, g.follow, g.copies.run} {
		work.Go(func() { do(ctx) })
	}
	err := g.node.Run(ctx)
	if ctx.Err() != nil && fault.Is(err, fault.Canceled) {
		return nil
	}
	return err
}

// follow tells who wants to know that somebody leads, until ctx ends.
func (g *Group) follow(ctx context.Context) {
	changes, cancel := g.node.Subscribe()
	defer cancel()
	for leader := ""; ; {
		select {
		case <-ctx.Done():
			return
		case s := <-changes:
			if s.Leader != leader && s.Leader != "" && g.o.Led != nil {
				g.o.Led()
			}
			leader = s.Leader
		}
	}
}

// Leader returns the id of the node that leads, empty when none is known.
func (g *Group) Leader() string {
	id, _ := g.node.Leader()
	return id
}

// Members returns the latest membership that this node knows of.
func (g *Group) Members() []replication.Member { return g.node.Members() }

// Fenced returns why this node applies and proposes nothing any more: its
// catalogue has failed, or is another one than that of most nodes. nil: it does.
func (g *Group) Fenced() error { return g.node.Halted() }

// Handler answers what other nodes ask, under /raft/ of the peer service.
func (g *Group) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /raft/propose", g.servePropose)
	mux.HandleFunc("GET /raft/index", g.serveIndex)
	mux.HandleFunc("POST /raft/release", g.serveRelease)
	mux.HandleFunc("GET /raft/hash", g.serveHash)
	mux.HandleFunc("GET /raft/entries", g.serveEntries)
	mux.HandleFunc("GET /raft/checkpoint", g.serveCheckpoint)
	mux.HandleFunc("GET /raft/checkpoint/{id}/{file}", g.serveFile)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		call.Refuse(w, fault.New(fault.Unsupported, "group: no such call"))
	})
	return mux
}
