package placement

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/layout"
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
	decisions map[string]int // by kind of record written
	// before, if set, is called once before the next decision: what comes between.
	before func()
	// down makes the network unable to decide; lost has it decide and not say so.
	down, lost bool
}

func newMemory() *memory {
	return &memory{records: map[string]map[string][]byte{}, changed: make(chan struct{}), decisions: map[string]int{}}
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
		m.decisions[fact.Kind]++
	}
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

// written counts the decisions that wrote or dropped records of a kind.
func (m *memory) written(kind string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.decisions[kind]
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

	mu     sync.Mutex // guards what follows, and what nodes say is so of them
	leader string
	deaf   bool // nobody hears anybody
	each   bool // takes itself for the leader
	nodes  []*node
}

func newWorld(t *testing.T) *world { return &world{t: t, memory: newMemory()} }

// node is a node of it.
type node struct {
	*Placement
	w        *world
	member   member.Member
	registry *member.Registry
	log      lines
	cancel   context.CancelFunc
	work     sync.WaitGroup
	ended    bool

	alive bool
	bytes int64 // that it pledges
	idle  bool  // its repair does nothing
}

const tib = int64(1) << 40

// make makes a node that is no member yet. The same names make the same nodes.
func (w *world) make(site string) *node {
	w.t.Helper()
	seed := blake3.Sum256(fmt.Appendf(nil, "%s/%d", site, len(w.nodes)))
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	n := &node{w: w, member: member.Member{Node: identity.IDOf(public), Site: site, Public: public, Address: "10.0.0.1:7700"}, bytes: tib}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) id() string { return n.member.Node }

// enlist writes its record as the network does.
func (n *node) enlist(change func(m *member.Member)) {
	n.w.t.Helper()
	if change != nil {
		change(&n.member)
	}
	value, err := n.member.Encode()
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.memory.put(catalog.KindMember, n.id(), value)
}

// join makes a member that takes part. The first one leads.
func (w *world) join(site string, change ...func(n *node)) *node {
	w.t.Helper()
	n := w.make(site)
	for _, f := range change {
		f(n)
	}
	w.mu.Lock()
	if w.leader == "" && len(w.nodes) == 1 {
		w.leader = n.id()
	}
	w.mu.Unlock()
	n.enlist(nil)
	n.run()
	return n
}

// lead says who leads.
func (w *world) lead(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leader = node
}

// heard are the others that are alive.
func (n *node) heard() ([]string, bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	var all []string
	for _, other := range n.w.nodes {
		if other != n && other.alive {
			all = append(all, other.id())
		}
	}
	return all, !n.w.deaf
}

// set changes what a node says is so of it.
func (n *node) set(change func()) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	change()
}

// open makes its placement, whose tasks do not run.
func (n *node) open() {
	n.w.t.Helper()
	log := slog.New(slog.NewTextHandler(&n.log, nil))
	var err error
	if n.registry, err = member.NewRegistry(member.RegistryOptions{Self: n.id(), Catalog: n.w.memory, Log: log}); err != nil {
		n.w.t.Fatal(err)
	}
	n.Placement, err = Open(Options{
		Self: n.id(), Catalog: n.w.memory, Members: n.registry,
		Decisions: member.Decisions{Records: n.w.memory, Decider: n.w.memory, Current: n.w.memory.current},
		Leader: func() string {
			n.w.mu.Lock()
			defer n.w.mu.Unlock()
			if n.w.each {
				return n.id()
			}
			return n.w.leader
		},
		Alive: n.heard,
		Pledge: func() (int64, error) {
			n.w.mu.Lock()
			defer n.w.mu.Unlock()
			return n.bytes, nil
		},
		Log: log,
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
}

// run runs its tasks until the test ends or it goes down.
func (n *node) run() {
	n.w.t.Helper()
	n.open()
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.set(func() { n.alive, n.ended = true, false })
	n.work.Go(func() {
		if err := n.registry.Run(ctx); err != nil {
			n.w.t.Error(err)
		}
	})
	for _, task := range n.Tasks() {
		n.work.Go(func() {
			if err := task.Run(ctx, nil); err != nil {
				n.w.t.Error(task.Name, err)
			}
		})
	}
	n.work.Go(func() { n.repair(ctx) })
	n.w.t.Cleanup(n.down)
}

// repair says of each layout that this node has all it is to have, and is quick.
func (n *node) repair(ctx context.Context) {
	for {
		changed, s := n.Changed(), n.State()
		var again <-chan time.Time
		n.w.mu.Lock()
		idle := n.idle
		n.w.mu.Unlock()
		if s.View.Old != nil && !n.member.Witness {
			again = time.After(time.Minute)
		}
		if s.View.Old != nil && !idle && !n.member.Witness {
			if err := n.Complete(ctx, s.View.New.Version); err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.NotFound) {
				n.w.t.Error(err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// down ends a node.
func (n *node) down() {
	n.set(func() { n.alive = false })
	n.cancel()
	n.work.Wait()
}

func (w *world) remove(n *node) {
	w.memory.put(catalog.KindRevoked, n.id(), []byte(`{"version":1}`))
}

// until waits for something, at most so long of the bubble's time.
func (w *world) until(what string, most time.Duration, ok func() bool) {
	w.t.Helper()
	step := max(100*time.Millisecond, most/1000)
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(step) {
		if ok() {
			return
		}
	}
	w.t.Fatalf("not within %v: %s", most, what)
}

// settled waits until a node sees one layout, of so many nodes, and nothing is due.
func (w *world) settled(at *node, nodes int) *State {
	w.t.Helper()
	w.until(fmt.Sprintf("a layout of %d nodes", nodes), 2*time.Minute, func() bool {
		s := at.State()
		return s.View.New != nil && s.View.Old == nil && len(s.View.New.Nodes) == nodes
	})
	return at.State()
}

// holds are the ids of a layout's nodes.
func holds(l *layout.Layout) []string {
	var all []string
	for _, n := range l.Nodes {
		all = append(all, n.ID)
	}
	slices.Sort(all)
	return all
}
