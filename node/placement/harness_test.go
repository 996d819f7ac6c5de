package placement

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/layout"
	"pelago/cluster/port/porttest"
	"pelago/node/member"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network of nodes.
type world struct {
	t      *testing.T
	memory *catalogtest.Registry

	mu     sync.Mutex // guards what follows, and what nodes say is so of them
	leader string
	deaf   bool // nobody hears anybody
	each   bool // takes itself for the leader
	nodes  []*node
}

func newWorld(t *testing.T) *world { return &world{t: t, memory: catalogtest.NewRegistry()} }

// worldOf is a network of so many sites, of a node each: s0, s1 and so on.
func worldOf(t *testing.T, sites int) *world {
	t.Helper()
	w := newWorld(t)
	w.joinSites(sites)
	return w
}

func (w *world) joinSites(count int) {
	w.t.Helper()
	for n := range count {
		w.join(fmt.Sprintf("s%d", n))
	}
}

// node is a node of it.
type node struct {
	*Placement
	w        *world
	member   member.Member
	registry *member.Registry
	log      porttest.Lines
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
	n.w.memory.Put(catalog.KindMember, n.id(), value)
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
		Decisions: member.Decisions{Records: n.w.memory, Decider: n.w.memory, Current: n.w.memory.Current},
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
	w.memory.Put(catalog.KindRevoked, n.id(), []byte(`{"version":1}`))
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

// changing waits until a change of the layout is under way.
func (w *world) changing() {
	w.t.Helper()
	w.until("a change", time.Minute, func() bool { return w.nodes[0].State().View.Old != nil })
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
