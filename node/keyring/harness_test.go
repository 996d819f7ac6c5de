package keyring

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"pelago/cluster/identity"
	"pelago/cluster/port/porttest"
	"pelago/node/member"
	"pelago/replication/catalog/catalogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network of nodes.
type world struct {
	t      *testing.T
	memory *catalogtest.Registry
	leader atomic.Pointer[string]
	nodes  []*node
}

func newWorld(t *testing.T) *world { return &world{t: t, memory: catalogtest.NewRegistry()} }

// node is a node of it. Its disk outlives it.
type node struct {
	*Keeper
	w        *world
	fs       vfs.FS
	self     *identity.Node
	registry *member.Registry
	log      porttest.Lines
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
	n.w.memory.Put(kindMember, n.id(), value)
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
	d := member.Decisions{Records: n.w.memory, Decider: n.w.memory, Current: n.w.memory.Current}
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
		Decisions: member.Decisions{Records: n.w.memory, Decider: n.w.memory, Current: n.w.memory.Current},
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
func (w *world) remove(n *node) { w.memory.Put(kindRevoked, n.id(), []byte(`{"version":1}`)) }
