package consensus_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/consensus"
	"pelago/replication/raftlog"
)

// toy is a state machine on a disk of its own: what was applied and not synced
// may be lost in a crash, from the end.
type toy struct {
	mu      sync.Mutex
	batches []toyBatch
	durable int // batches
	poison  string
}

type toyBatch struct {
	entries []replication.Entry
	at      replication.Position
}

var errPoison = fault.New(fault.Unsupported, "toy: not understood")

func (m *toy) Apply(entries []replication.Entry, at replication.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.positionLocked()
	for _, e := range entries {
		if m.poison != "" && string(e.Data) == m.poison {
			return errPoison
		}
		if e.Index <= before.Index || e.Index > at.Index {
			panic(fmt.Sprintf("entry %d between %d and %d", e.Index, before.Index, at.Index))
		}
		before.Index = e.Index
	}
	m.batches = append(m.batches, toyBatch{append([]replication.Entry(nil), entries...), at})
	return nil
}

func (m *toy) positionLocked() replication.Position {
	if len(m.batches) == 0 {
		return replication.Position{}
	}
	return m.batches[len(m.batches)-1].at
}

func (m *toy) Position() replication.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.positionLocked()
}

func (m *toy) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.durable = len(m.batches)
	return nil
}

func (m *toy) crash(random *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batches = m.batches[:m.durable+random.IntN(len(m.batches)-m.durable+1)]
}

// entries returns everything applied, in order.
func (m *toy) entries() []replication.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []replication.Entry
	for _, b := range m.batches {
		all = append(all, b.entries...)
	}
	return all
}

// hashes returns the state's hash at every index that an entry has.
func (m *toy) hashes() map[uint64][32]byte {
	all := map[uint64][32]byte{}
	var h [32]byte
	for _, e := range m.entries() {
		h = sha256.Sum256(fmt.Appendf(h[:], "%d %d %s", e.Index, e.Term, e.Data))
		all[e.Index] = h
	}
	return all
}

// member is a node with its disk.
type member struct {
	w       *world
	id      string
	fs      *vfs.MemFS
	machine *toy
	used    bool // it has run before

	node      *consensus.Node
	log       *raftlog.Store
	transport *raft.NetworkTransport
	cancel    context.CancelFunc
	done      chan error

	live atomic.Pointer[alive] // for who asks from another goroutine

	mu         sync.Mutex
	hang       chan struct{} // syncs wait for it
	bootstraps int
	releases   int
	fetches    int
	copyTakes  time.Duration
	copyFails  int
}

// alive is a member that runs.
type alive struct {
	node    *consensus.Node
	machine *toy
}

// world is a network of members in one bubble.
type world struct {
	t        *testing.T
	net      *simnet
	random   *rand.Rand
	settings consensus.Settings
	members  []*member

	// mu keeps who looks at members from those who end and start them. It is a
	// channel: virtual time goes on while somebody waits for it.
	mu turn
}

// turn is a lock that virtual time does not stop at.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

func newWorld(t *testing.T, seed uint64, delay time.Duration, s consensus.Settings) *world {
	return &world{mu: make(turn, 1), t: t, net: newSimnet(delay), random: rand.New(rand.NewPCG(seed, 99)), settings: s}
}

func (w *world) add(id string) *member {
	m := &member{w: w, id: id, fs: vfs.NewCrashableMem(), machine: &toy{}}
	w.members = append(w.members, m)
	return m
}

// start opens a member's disk and runs it.
func (m *member) start() {
	m.w.t.Helper()
	if err := m.open(); err != nil {
		m.w.t.Fatal(err)
	}
	m.run()
}

func (m *member) open() error {
	fs := errorfs.Wrap(m.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			m.mu.Lock()
			hang := m.hang
			m.mu.Unlock()
			if hang != nil {
				<-hang
			}
		}
		return nil
	}))
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "raft", Mark: "raft.mark"})
	if err != nil {
		return err
	}
	m.log = log
	m.transport = consensus.NewTransport(m.w.net.listen(m.id), nil)
	var logger *slog.Logger
	if os.Getenv("RAFT_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", m.id)
	}
	m.node, err = consensus.New(consensus.Options{
		ID: m.id, Address: m.id, Transport: m.transport, Log: log, Machine: m.machine, Peers: m,
		Settings: m.w.settings, Newcomer: !m.used, Logger: logger,
	})
	if err != nil {
		return errors.Join(err, m.transport.Close(), log.Close())
	}
	return nil
}

func (m *member) run() {
	m.used = true
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan error, 1)
	m.live.Store(&alive{m.node, m.machine})
	go func(n *consensus.Node, done chan error) { done <- n.Run(ctx) }(m.node, m.done)
}

func (m *member) up() bool { return m.done != nil }

// stop ends a member in order.
func (m *member) stop() {
	m.w.t.Helper()
	if !m.up() {
		return
	}
	m.cancel()
	if err := <-m.done; err != nil && !fault.Is(err, fault.Canceled) {
		m.w.t.Error(m.id, err)
	}
	m.done = nil
	m.live.Store(nil)
	m.transport.Close()
	m.w.net.kill(m.id)
	m.log.Close()
}

// crash ends it as a power failure does: nothing that it had not synced is
// sure to be there.
func (m *member) crash() {
	m.w.net.kill(m.id)
	clone := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: m.w.random.IntN(101), RNG: m.w.random})
	// What the process still does after this, it does to a disk that nobody reads.
	applied := m.machine
	applied.mu.Lock()
	m.machine = &toy{batches: append([]toyBatch(nil), applied.batches...), durable: applied.durable, poison: applied.poison}
	applied.mu.Unlock()
	m.machine.crash(m.w.random)
	m.stop()
	m.fs = clone
}

// Bootstrap copies the furthest machine of another member that is up and within reach.
func (m *member) Bootstrap(ctx context.Context, want replication.Position) error {
	m.mu.Lock()
	m.bootstraps++
	takes, fails := m.copyTakes, m.copyFails > 0
	if fails {
		m.copyFails--
	}
	m.mu.Unlock()
	var best *toy
	for _, o := range m.w.members {
		a := o.live.Load()
		if cut, _ := m.w.net.isCut(o.id, m.id); o == m || a == nil || cut {
			continue
		}
		if best == nil || a.machine.Position().Index > best.Position().Index {
			best = a.machine
		}
	}
	if best == nil || best.Position().Index < want.Index {
		return fault.New(fault.Unavailable, "nobody has it")
	}
	best.mu.Lock()
	batches := append([]toyBatch(nil), best.batches...)
	best.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fails {
		return fault.New(fault.Unavailable, "the copy broke off")
	}
	machine := m.live.Load().machine // of the process that asks, which a crash may have ended
	machine.mu.Lock()
	defer machine.mu.Unlock()
	machine.batches, machine.durable = batches, len(batches)
	return nil
}

// Release asks everybody who is within reach, both ways.
func (m *member) Release(ctx context.Context) (replication.Position, error) {
	m.mu.Lock()
	m.releases++
	m.mu.Unlock()
	err := fault.New(fault.Unavailable, "nobody is within reach")
	for _, o := range m.w.members {
		a := o.live.Load()
		there, _ := m.w.net.isCut(m.id, o.id)
		back, _ := m.w.net.isCut(o.id, m.id)
		if o == m || a == nil || there || back {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		at, e := a.node.Release(limited, m.id)
		cancel()
		if e == nil {
			return at, nil
		}
		err = e
	}
	return replication.Position{}, err
}

func (m *member) Fetch(_ context.Context, first, last uint64) ([]*raft.Log, error) {
	m.mu.Lock()
	m.fetches++
	m.mu.Unlock()
	err := fault.New(fault.Unavailable, "nobody has them")
	for _, o := range m.w.members {
		a := o.live.Load()
		if o == m || a == nil {
			continue
		}
		logs, e := a.node.Committed(first, last)
		if e == nil {
			return logs, nil
		}
		err = e
	}
	return nil, err
}

func (w *world) stopAll() {
	for _, m := range w.members {
		m.stop()
	}
	w.net.heal()
	time.Sleep(time.Minute) // what is on its way arrives, or times out
}

func (w *world) names(pick func(*member) bool) (all []string) {
	for _, m := range w.members {
		if pick(m) {
			all = append(all, m.id)
		}
	}
	return all
}

// leader returns who leads by its own account, of the highest term; nil: nobody.
func (w *world) leader() (l *member) {
	var term uint64
	for _, m := range w.members {
		if !m.up() {
			continue
		}
		if s := m.node.Stats(); s.Phase == consensus.Leading && s.Term > term {
			l, term = m, s.Term
		}
	}
	return l
}

// until waits on virtual time.
func (w *world) until(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for waited := time.Duration(0); !ok(); waited += 20 * time.Millisecond {
		if waited > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) awaitLeader() *member {
	w.t.Helper()
	w.until("a leader", 60*time.Second, func() bool {
		l := w.leader()
		if l == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := l.node.CommitIndex(ctx)
		return err == nil
	})
	return w.leader()
}

// found makes voters and others a network.
func (w *world) found(voters, others int) {
	w.t.Helper()
	for i := range voters + others {
		w.add(fmt.Sprintf("n%02d", i))
	}
	first := w.members[0]
	if err := first.open(); err != nil {
		w.t.Fatal(err)
	}
	if err := first.node.Found(); err != nil {
		w.t.Fatal(err)
	}
	first.run()
	for _, m := range w.members[1:] {
		m.start()
	}
	w.awaitLeader()
	for i, m := range w.members[1:] {
		add := first.node.AddNonvoter
		if i+1 < voters {
			add = first.node.AddVoter
		}
		if err := add(context.Background(), m.id, m.id); err != nil {
			w.t.Fatal(err)
		}
	}
}

// propose is a client that asks whoever leads.
func (w *world) propose(data string, limit time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	w.mu.Lock()
	l := w.leader()
	var node *consensus.Node
	if l != nil {
		node = l.node
	}
	w.mu.Unlock()
	if node != nil {
		return node.Propose(ctx, []byte(data))
	}
	return 0, fault.New(fault.Unavailable, "no leader")
}

func (w *world) mustPropose(n int) {
	w.t.Helper()
	for i := range n {
		var err error
		w.until("a proposal", 60*time.Second, func() bool {
			_, err = w.propose(fmt.Sprintf("must-%d-%d", time.Now().UnixNano(), i), 30*time.Second)
			return err == nil
		})
	}
}

// converge waits until all who are up have applied the same, and compares.
func (w *world) converge() {
	w.t.Helper()
	w.awaitLeader()
	w.mustPropose(1)
	last := w.leader().machine.entries()
	index := last[len(last)-1].Index
	w.until("everything applied everywhere", 10*time.Minute, func() bool {
		for _, m := range w.members {
			if m.up() && m.node.Applied() < index {
				return false
			}
		}
		return true
	})
	want := w.leader().machine.hashes()
	for _, m := range w.members {
		if !m.up() {
			continue
		}
		for i, h := range m.machine.hashes() {
			if want[i] != h {
				w.t.Fatalf("%s at %d: another state than the leader's", m.id, i)
			}
		}
	}
}

// simulate runs a test on virtual time.
func simulate(t *testing.T, seed uint64, delay time.Duration, s consensus.Settings, f func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, delay, s)
		defer w.stopAll()
		f(w)
	})
}

var _ io.Closer = (*simListener)(nil)
