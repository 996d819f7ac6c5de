package keyring

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/node/member"
	"pelago/replication/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is the registry of a network whose nodes all agree at once.
type memory struct {
	mu        sync.Mutex
	records   map[string]map[string][]byte
	changes   uint64
	changed   chan struct{}
	decisions int
	// before, if set, is called once before the next decision: what comes between.
	before func()
	// down makes the network unable to decide; lost has it decide and not say so.
	down, lost bool
}

func newMemory() *memory {
	return &memory{records: map[string]map[string][]byte{}, changed: make(chan struct{})}
}

func (m *memory) Registry(kind string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string][]byte{}
	for name, value := range m.records[kind] {
		all[name] = bytes.Clone(value)
	}
	return all, nil
}

func (m *memory) RegistryRecord(kind, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.records[kind][name]), nil
}

func (m *memory) RegistryChanged() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

func (m *memory) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *memory) Sync() error { return nil }

// set changes what the memory does.
func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memory) current(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return fault.New(fault.Unavailable, "no majority")
	}
	return nil
}

func (m *memory) Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	m.mu.Lock()
	before := m.before
	m.before = nil
	m.mu.Unlock()
	if before != nil {
		before()
	}
	if err := m.current(ctx); err != nil {
		return nil, err
	}
	if len(conditions) > catalog.MaxConditions || len(commands) > catalog.MaxCommands {
		return nil, fault.New(fault.Invalid, "%d commands under %d conditions", len(commands), len(conditions))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range conditions {
		var hash [32]byte
		if value, ok := m.records[c.Kind][c.Name]; ok {
			hash = blake3.Sum256(value)
		}
		if hash != c.ValueHash {
			return nil, fault.New(fault.Conflict, "%s %s is not as it was", c.Kind, c.Name)
		}
	}
	for _, command := range commands {
		fact := command.(*catalog.RegistryFact)
		m.putLocked(fact.Kind, fact.Name, fact.Value)
	}
	m.decisions++
	m.notifyLocked()
	if m.lost {
		return nil, fault.New(fault.Unavailable, "nobody says what became of it")
	}
	return make([]error, len(commands)), nil
}

func (m *memory) putLocked(kind, name string, value []byte) {
	if m.records[kind] == nil {
		m.records[kind] = map[string][]byte{}
	}
	if len(value) == 0 {
		delete(m.records[kind], name)
	} else {
		m.records[kind][name] = bytes.Clone(value)
	}
}

func (m *memory) notifyLocked() {
	m.changes++
	close(m.changed)
	m.changed = make(chan struct{})
}

// put writes a record as any member may.
func (m *memory) put(kind, name string, value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putLocked(kind, name, value)
	m.notifyLocked()
}

// names lists the records of a kind.
func (m *memory) names(kind string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for name := range m.records[kind] {
		all = append(all, name)
	}
	return all
}

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// world is a network of nodes.
type world struct {
	t      *testing.T
	memory *memory
	leader atomic.Pointer[string]
	nodes  []*node
}

func newWorld(t *testing.T) *world { return &world{t: t, memory: newMemory()} }

// node is a node of it. Its disk outlives it.
type node struct {
	*Keeper
	w        *world
	fs       vfs.FS
	self     *identity.Node
	registry *member.Registry
	log      lines
	stop     func()
}

// make makes a node that is no member yet.
func (w *world) make() *node {
	w.t.Helper()
	n := &node{w: w, fs: vfs.NewMem()}
	n.open()
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) open() {
	n.w.t.Helper()
	var err error
	if n.self, err = identity.Open(n.fs, "keys"); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) id() string { return n.self.ID() }

// enlist makes it a member, with a record as the network writes it.
func (n *node) enlist(change func(m *member.Member)) {
	n.w.t.Helper()
	m := member.Member{
		Node: n.id(), Site: "Mercy", Public: n.self.Public(), Sealing: n.self.Sealing(), Proof: n.self.SealingProof(), Address: "10.0.0.1:7700",
	}
	if change != nil {
		change(&m)
	}
	value, err := m.Encode()
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.memory.put(kindMember, n.id(), value)
}

// found makes the first node of a network, as its office does.
func (w *world) found() *node {
	w.t.Helper()
	n := w.make()
	if err := n.self.FirstEpoch(); err != nil {
		w.t.Fatal(err)
	}
	n.enlist(nil)
	n.begin()
	id := n.id()
	w.leader.Store(&id)
	n.run()
	return n
}

// begin makes the first decision of its network.
func (n *node) begin() {
	n.w.t.Helper()
	d := member.Decisions{Records: n.w.memory, Decider: n.w.memory, Current: n.w.memory.current}
	if err := d.Make(n.w.t.Context(), func(s *member.Step) error { return First(n.self, s) }); err != nil {
		n.w.t.Fatal(err)
	}
}

// join makes a further member.
func (w *world) join(change func(m *member.Member)) *node {
	w.t.Helper()
	n := w.make()
	n.enlist(change)
	n.run()
	return n
}

// start makes its keeper, whose tasks do not run.
func (n *node) start() {
	n.w.t.Helper()
	log := slog.New(slog.NewTextHandler(&n.log, nil))
	var err error
	if n.registry, err = member.NewRegistry(member.RegistryOptions{Self: n.id(), Catalog: n.w.memory, Log: log}); err != nil {
		n.w.t.Fatal(err)
	}
	n.Keeper, err = New(Options{
		Self: n.self, Catalog: n.w.memory, Members: n.registry,
		Decisions: member.Decisions{Records: n.w.memory, Decider: n.w.memory, Current: n.w.memory.current},
		Leader: func() string {
			if leader := n.w.leader.Load(); leader != nil {
				return *leader
			}
			return ""
		},
		Log: log,
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
}

// run runs its tasks until the test ends or it is stopped.
func (n *node) run() {
	n.w.t.Helper()
	n.start()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for _, task := range []func(context.Context) error{n.registry.Run, n.Follow, n.Give} {
		work.Go(func() {
			if err := task(ctx); err != nil {
				n.w.t.Error(err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	n.w.t.Cleanup(n.stop)
}

// until waits for something, at most a minute of the bubble's time.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("not within a minute: %s", what)
}

// same reports whether nodes hold the same epochs, so many.
func same(epochs int, nodes ...*node) bool {
	for _, n := range nodes {
		if len(n.self.Epochs()) != epochs {
			return false
		}
		for _, number := range n.self.Epochs() {
			a, errA := nodes[0].self.Epoch(number)
			b, errB := n.self.Epoch(number)
			if errA != nil || errB != nil || a != b {
				return false
			}
		}
	}
	return true
}

// remove revokes a node.
func (w *world) remove(n *node) { w.memory.put(kindRevoked, n.id(), []byte(`{"version":1}`)) }
