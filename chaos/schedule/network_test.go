package schedule

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/layout"
	"pelago/node/member"
	"pelago/node/placement"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The network: three sites of a node each, of which one may be lost. Large packs are
// striped 2+1, small ones 1+1.
const (
	sites    = 3
	survives = 1
	grace    = time.Minute
)

var code = shard.Code{K: 2, M: 1}

// network is a network in one process. The order of entries is a list: what is in it is
// committed, and a node that starts applies what its catalogue lacks.
type network struct {
	t     *testing.T
	nodes []*node
	ids   map[string]*node
	state *placement.State
	bug   *bug     // nil: none
	found []string // with a bug: what did not hold

	// deletedAt is when the deletion was asked for; zero: not yet.
	deletedAt atomic.Pointer[time.Time]

	ordering sync.Mutex // held over the application of an entry
	log      []replication.Entry

	mu   sync.Mutex // guards what follows
	down map[string]bool

	// A crash: steps of all nodes are counted; at the one numbered crashAt, of the node
	// crashOf or of any (-1), that node or everybody loses power.
	steps   int
	crashAt int
	crashOf int
	all     bool              // everybody
	torn    vfs.CrashCloneCfg // what of the bytes that were not synced is there behind it
	crashed bool
}

// newNetwork forms a network. Nothing is counted before it stands.
func newNetwork(t *testing.T, b *bug) *network {
	t.Helper()
	n := &network{t: t, ids: map[string]*node{}, down: map[string]bool{}, bug: b, state: &placement.State{}, crashOf: -1}
	for i := range sites {
		s := newNode(n, i)
		n.nodes, n.ids[s.id()] = append(n.nodes, s), s
	}
	epoch, err := n.nodes[0].self.Epoch(n.nodes[0].self.Current())
	if err != nil {
		t.Fatal(err)
	}
	var all []layout.Holder
	for i, s := range n.nodes {
		if i > 0 {
			if err := s.self.AddEpochs(map[uint32][32]byte{n.nodes[0].self.Current(): epoch}); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, layout.Holder{Node: layout.Node{ID: s.id(), Site: s.site, Pledge: 1 << 40}})
	}
	table, err := layout.Compute(nil, all, sites)
	if err != nil {
		t.Fatal(err)
	}
	n.state = &placement.State{View: layout.View{New: table}, Code: code, Survives: survives}
	for _, s := range n.nodes {
		s.openCatalog()
	}
	for _, s := range n.nodes {
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&catalogpb.Member{Site: s.site, PublicKey: s.self.Public()})
		if err != nil {
			t.Fatal(err)
		}
		n.agree(&catalog.RegistryFact{Kind: catalog.KindMember, Name: s.id(), Value: value})
	}
	n.agree(
		&catalog.RegistryFact{Kind: placement.KindCode, Name: "network", Value: []byte("as placed")},
		&catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: catalog.Terms{Grace: grace, Away: 60 * grace}.Encode()})
	for _, s := range n.nodes {
		if err := s.catalog.Sync(); err != nil {
			t.Fatal(err)
		}
		s.open()
	}
	n.mu.Lock()
	n.steps = 0
	n.mu.Unlock()
	for _, s := range n.nodes {
		s.formed.Store(true)
	}
	return n
}

// failf says what does not hold: with a deliberate bug that is what is wanted.
func (n *network) failf(format string, args ...any) {
	n.t.Helper()
	if n.bug == nil {
		n.t.Errorf(format, args...)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.found = append(n.found, fmt.Sprintf(format, args...))
}

// broken reports whether something did not hold.
func (n *network) broken() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.t.Failed() || len(n.found) > 0
}

func (n *network) close() {
	n.t.Helper()
	for _, s := range n.nodes {
		s.stop()
	}
	for _, s := range n.nodes {
		s.close()
	}
}

// agree has the first node decide something that must be taken.
func (n *network) agree(commands ...catalog.Command) {
	n.t.Helper()
	results, err := n.nodes[0].Decide(context.Background(), nil, commands...)
	if err := errors.Join(append(results, err)...); err != nil {
		n.t.Fatal(err)
	}
}

// put commits an entry and applies it wherever a catalogue is open.
func (n *network) put(by *node, data []byte) (uint64, error) {
	n.ordering.Lock()
	defer n.ordering.Unlock()
	if by.dead.Load() {
		return 0, fault.New(fault.Unavailable, "no power")
	}
	n.log = append(n.log, replication.Entry{Index: uint64(len(n.log) + 1), Term: 1, Data: data})
	for _, s := range n.nodes {
		if s.catalog != nil && !s.dead.Load() {
			n.applyLocked(s)
		}
	}
	if by.dead.Load() {
		return 0, fault.New(fault.Unavailable, "no power")
	}
	return uint64(len(n.log)), nil
}

// applyLocked applies what a node's catalogue lacks.
func (n *network) applyLocked(s *node) {
	part := n.log[s.catalog.Applied():]
	if len(part) == 0 {
		return
	}
	if err := s.catalog.Apply(part, replication.Position{Index: part[len(part)-1].Index, Term: 1}); err != nil && !s.dead.Load() {
		n.failf("%s: apply: %v", s.site, err)
	}
}

// step is a step at a node's disk: the power may go just before it.
func (n *network) step(s *node) {
	n.mu.Lock()
	n.steps++
	var now []*node
	if !n.crashed && n.crashAt > 0 && n.steps >= n.crashAt && (n.crashOf < 0 || n.nodes[n.crashOf] == s) {
		n.crashed, now = true, []*node{s}
		if n.all {
			now = n.nodes
		}
		for _, s := range now {
			s.dead.Store(true) // before the disk is copied: nobody hears of what is synced meanwhile
		}
	}
	n.mu.Unlock()
	for _, s := range now {
		s.loses()
	}
}

// cut has a node lose power now.
func (n *network) cut(s *node) {
	s.dead.Store(true)
	s.loses()
}

// away reports whether a node does not answer.
func (n *network) away(s *node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down[s.id()] || s.dead.Load() || !s.opened.Load()
}

// without runs something while a node is gone.
func (n *network) without(s *node, do func()) {
	set := func(down bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.down[s.id()] = down
	}
	set(true)
	defer set(false)
	do()
}

// State implements the parts' placements. It never changes.
func (n *network) State() *placement.State { return n.state }

// Changed implements the parts' placements.
func (n *network) Changed() <-chan struct{} { return nil }

// Member implements [protect.Members].
func (n *network) Member(id string) (member.Member, bool) {
	s := n.ids[id]
	if s == nil {
		return member.Member{}, false
	}
	return member.Member{Node: id, Site: s.site}, true
}

// Belongs implements [protect.Members].
func (n *network) Belongs(id string) bool { return n.ids[id] != nil }

// SigningKey implements [held.Members].
func (n *network) SigningKey(id string) (ed25519.PublicKey, error) {
	if s := n.ids[id]; s != nil {
		return s.public, nil
	}
	return nil, fault.New(fault.Denied, "no member")
}

// SealingKey implements [far.Members].
func (n *network) SealingKey(id string) ([identity.SealingBytes]byte, error) {
	if s := n.ids[id]; s != nil {
		return s.sealing, nil
	}
	return [identity.SealingBytes]byte{}, fault.New(fault.Denied, "no member")
}

// caller carries a node's calls: they are answered by the other's handlers, at once.
type caller struct{ from *node }

var errNoRoute = errors.New("no route")

// RoundTrip implements [http.RoundTripper].
func (c caller) RoundTrip(r *http.Request) (response *http.Response, err error) {
	n, to := c.from.n, c.from.n.ids[r.URL.Host]
	if r.Body != nil {
		defer r.Body.Close() //nolint:errcheck // was read
	} else {
		r.Body = http.NoBody
	}
	if to == nil || n.away(c.from) || n.away(to) {
		return nil, errNoRoute
	}
	to.serving.RLock()
	defer to.serving.RUnlock()
	if n.away(to) {
		return nil, errNoRoute
	}
	r = r.WithContext(context.WithValue(r.Context(), fromKey{}, c.from))
	rec := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			err = fmt.Errorf("%w: it broke off", errNoRoute)
		}
	}()
	to.handler.ServeHTTP(rec, r)
	if n.away(c.from) || n.away(to) { // nobody hears of it
		return nil, errNoRoute
	}
	return rec.Result(), nil
}

type fromKey struct{}
