package protect

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/layout"
	"pelago/node/archive"
	"pelago/node/member"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/query/plan"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held"
	"pelago/shard/held/volatile"
	"pelago/shard/pack"
	"pelago/shard/seal"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a stripe and its shards as they rest and travel.
type made struct {
	head       *stripe.Head
	ciphertext []byte
	shards     [][]byte
	seal       *catalog.SealFact
}

// world is a network of nodes: each has a catalogue and a store of shards of its own,
// and calls go over memory, on virtual time.
type world struct {
	t       *testing.T
	coder   *stripe.Coder
	solo    *alone.Solo
	nodes   map[string]*node
	ids     []string
	made    int
	log     []replication.Entry // all entries
	applied map[string]int      // how far nodes are that lag

	mu      sync.Mutex
	state   *placement.State
	changed chan struct{}
	down    map[string]bool // does not answer; cannot ask
	silent  map[string]bool // gossip says so
	removed map[string]bool
	asked   map[string]int // calls, by path
	delay   time.Duration  // of each call, there and back
}

// node is one of them.
type node struct {
	w       *world
	id      string
	key     ed25519.PrivateKey
	site    string
	catalog *catalog.Catalog
	bulk    *bulk.Store
	held    *held.Store
	shards  Shards // nil: a held.Client
	bug     bug

	mu      sync.Mutex
	lags    bool // applies nothing
	fenced  error
	keys    map[[16]byte]bool // that it lacks
	copies  map[shard.Stripe]*made
	rotten  map[shard.Stripe]bool
	rests   map[string]archive.Resting // by SOP Instance UID
	fails   map[string]error           // of archive.Committed
	packs   map[string][]archive.PackInfo
	state   *placement.State // its own; nil: that of all
	packed  [][]archive.SeriesName
	hurried []pack.ID
	pack    func(of []archive.SeriesName) error
	spread  func(packs []pack.ID)
	told    chan struct{}
	read    int // copies that were read whole

	*Protect
	stop func()
}

func (n *node) ID() string           { return n.id }
func (n *node) Sign(m []byte) []byte { return ed25519.Sign(n.key, m) }

// inWorld runs a test in a network of sites of so many nodes.
func inWorld(t *testing.T, nodes int, code shard.Code, survives int, run func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, coder: stripe.NewCoder(), nodes: map[string]*node{}, changed: make(chan struct{}), down: map[string]bool{}, silent: map[string]bool{},
			removed: map[string]bool{}, asked: map[string]int{}, applied: map[string]int{}, state: &placement.State{},
		}
		for i := range nodes {
			w.join(fmt.Sprintf("s%02d", i))
		}
		if code.K > 0 {
			w.place(code, survives)
		}
		defer func() {
			for _, n := range w.nodes { // all, before any of what they ask each other about closes
				n.end()
			}
			for _, n := range w.nodes {
				if err := errors.Join(n.bulk.Close(), n.catalog.Close()); err != nil {
					t.Error(err)
				}
			}
		}()
		run(t, w)
	})
}

func (w *world) join(site string) *node {
	w.t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(len(w.ids) + 1)}, ed25519.SeedSize))
	id := identity.IDOf(key.Public().(ed25519.PublicKey))
	n := &node{
		w: w, id: id, key: key, site: site, keys: map[[16]byte]bool{}, copies: map[shard.Stripe]*made{}, rotten: map[shard.Stripe]bool{},
		rests: map[string]archive.Resting{}, fails: map[string]error{}, packs: map[string][]archive.PackInfo{}, told: make(chan struct{}),
	}
	fs := vfs.NewMem()
	var err error
	if n.catalog, err = catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}}); err != nil {
		w.t.Fatal(err)
	}
	var late *held.Store
	n.bulk, err = bulk.Open(bulk.Options{FS: fs, Dir: "bulk", CacheBytes: 1 << 20, Lost: func(refs []bulk.Ref, cause error) {
		if err := late.BulkLost(refs, cause); err != nil {
			w.t.Error(err)
		}
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	if n.held, err = held.Open(held.Options{Self: n, Bulk: n.bulk, Rows: &volatile.Rows{}}); err != nil {
		w.t.Fatal(err)
	}
	late = n.held
	if len(w.ids) == 0 {
		w.solo = alone.New(n.catalog)
		w.solo.Keep = w.keep
	}
	w.nodes[id], w.ids = n, append(w.ids, id)
	w.do(alone.Member(id, site))
	return n
}

// keep applies an entry everywhere but where the catalogue lags.
func (w *world) keep(e replication.Entry) {
	w.log = append(w.log, e)
	for i, id := range w.ids {
		if n := w.nodes[id]; i > 0 && !n.isLagging() {
			n.catchUp()
		}
	}
}

func (n *node) isLagging() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lags
}

func (n *node) catchUp() {
	w := n.w
	for ; w.applied[n.id] < len(w.log); w.applied[n.id]++ {
		e := w.log[w.applied[n.id]]
		if err := n.catalog.Apply([]replication.Entry{e}, replication.Position{Index: e.Index, Term: e.Term}); err != nil {
			w.t.Error(err)
		}
	}
}

// do has the network agree on changes.
func (w *world) do(changes ...any) {
	w.t.Helper()
	results, err := w.solo.Do(changes...)
	if err := errors.Join(append(results, err)...); err != nil {
		w.t.Fatal(err)
	}
}

// place has the network spread packs over all its sites.
func (w *world) place(code shard.Code, survives int) {
	w.t.Helper()
	var all []layout.Holder
	for _, id := range w.ids {
		all = append(all, layout.Holder{Node: layout.Node{ID: id, Site: w.nodes[id].site, Pledge: 1 << 40}})
	}
	l, err := layout.Compute(w.state.View.New, all, min(code.N(), len(all)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.do(&catalog.RegistryFact{Kind: placement.KindCode, Name: "network", Value: []byte("as placed")})
	w.become(&placement.State{View: layout.View{New: l}, Code: code, Survives: survives})
}

func (w *world) become(s *placement.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	close(w.changed)
	w.changed = make(chan struct{})
}

// set changes what is believed of a node, or whether it answers.
func (w *world) set(of map[string]bool, id string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of[id] = is
}

func (w *world) is(of map[string]bool, id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return of[id]
}

// start starts a node's Protect.
func (n *node) start() *node {
	w := n.w
	n.Protect = New(Options{
		Self: n.id, Site: n.site, Archive: stored{n}, Catalog: n.catalog, Members: w, Placement: places{n}, Spread: spreading{n},
		Shards: n.client(), Held: n.held, Copy: copies{n}, Keys: ring{n}, Peers: call.NewClient(caller{w, n.id}),
		Current: n.current, Fenced: func() error { n.mu.Lock(); defer n.mu.Unlock(); return n.fenced },
		Alive: func(node string) bool { return !w.is(w.silent, node) }, Log: slog.New(slog.DiscardHandler),
	})
	n.Protect.bug = n.bug
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- work.New(slog.New(slog.DiscardHandler), n.Tasks()...).Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
	return n
}

func (n *node) end() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

func (n *node) client() Shards {
	if n.shards != nil {
		return n.shards
	}
	return held.NewClient(caller{n.w, n.id}, n.w)
}

// current is the leader's word: the first node leads.
func (n *node) current(ctx context.Context) error {
	w := n.w
	if w.is(w.down, n.id) || w.is(w.down, w.ids[0]) {
		<-ctx.Done()
		return fault.New(fault.Unavailable, "no leader answers")
	}
	if n.isLagging() {
		n.catchUp()
		n.mu.Lock()
		n.state = nil
		n.mu.Unlock()
	}
	return nil
}

// Member implements [Members].
func (w *world) Member(id string) (member.Member, bool) {
	n := w.nodes[id]
	if n == nil {
		return member.Member{}, false
	}
	return member.Member{Node: id, Site: n.site}, true
}

// Belongs implements [Members].
func (w *world) Belongs(id string) bool { return w.nodes[id] != nil && !w.is(w.removed, id) }

// SigningKey implements held.Members.
func (w *world) SigningKey(id string) (ed25519.PublicKey, error) {
	return w.nodes[id].key.Public().(ed25519.PublicKey), nil
}

// places is the placement as a node sees it.
type places struct{ n *node }

func (p places) State() *placement.State {
	p.n.mu.Lock()
	own := p.n.state
	p.n.mu.Unlock()
	if own != nil {
		return own
	}
	p.n.w.mu.Lock()
	defer p.n.w.mu.Unlock()
	return p.n.w.state
}

func (p places) Changed() <-chan struct{} {
	p.n.w.mu.Lock()
	defer p.n.w.mu.Unlock()
	return p.n.w.changed
}

// stored is a node's archive.
type stored struct{ n *node }

func (s stored) Committed(_ context.Context, _, sop, _ string) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	return s.n.fails[sop]
}

func (s stored) Resting(_ context.Context, _, sop, _ string) (archive.Resting, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	r, ok := s.n.rests[sop]
	if !ok {
		return r, fault.New(fault.NotFound, "no such instance")
	}
	return r, nil
}

func (s stored) PackSeries(_ context.Context, of ...archive.SeriesName) error {
	s.n.mu.Lock()
	do := s.n.pack
	s.n.packed = append(s.n.packed, of)
	s.n.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(of)
}

func (s stored) Packs(_ context.Context, study string) ([]archive.PackInfo, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	return s.n.packs[study], nil
}

// spreading is what brings a node's packs to others.
type spreading struct{ n *node }

func (s spreading) Head(of shard.Stripe) (*stripe.Head, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if m := s.n.copies[of]; m != nil {
		return m.head, nil
	}
	return nil, fault.New(fault.NotFound, "no head")
}

func (s spreading) Hurry(packs ...pack.ID) {
	s.n.mu.Lock()
	s.n.hurried = append(s.n.hurried, packs...)
	do := s.n.spread
	s.n.mu.Unlock()
	if do != nil {
		do(packs)
	}
}

func (s spreading) Changed() <-chan struct{} { return s.n.told }

// copies are a node's whole packs.
type copies struct{ n *node }

func (c copies) Verify(_ context.Context, of shard.Stripe) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.n.read++
	switch {
	case c.n.copies[of] == nil:
		return fault.New(fault.NotFound, "no copy")
	case c.n.rotten[of]:
		return fault.New(fault.Corrupt, "rot")
	}
	return nil
}

// Shard implements held.Source: what rests here, or is cut from a copy.
func (c copies) Shard(name held.Name) (held.Shard, error) {
	s, err := c.n.held.Shard(name)
	c.n.mu.Lock()
	m, rotten := c.n.copies[name.Stripe], c.n.rotten[name.Stripe]
	c.n.mu.Unlock()
	if err == nil || m == nil {
		return s, err
	}
	if rotten {
		return nil, fault.New(fault.Corrupt, "rot")
	}
	y, err := c.n.w.coder.Copy(context.Background(), bytes.NewReader(m.ciphertext), m.head)
	if err != nil {
		return nil, err
	}
	return y.Shard(context.Background(), name.Index)
}

// ring opens all keys of which it is not said that they are lacking.
type ring struct{ n *node }

func (r ring) Key(id [16]byte) (k seal.Key, err error) {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	if r.n.keys[id] {
		return k, fault.New(fault.NotFound, "no key")
	}
	return k, nil
}

// caller carries a node's calls.
type caller struct {
	w    *world
	from string
}

func (c caller) Send(r *http.Request) (*http.Response, error) { return call.NewClient(c).Send(r) }

// RoundTrip has the node answer.
func (c caller) RoundTrip(r *http.Request) (*http.Response, error) {
	w, to := c.w, r.URL.Host
	w.mu.Lock()
	n, down, delay := w.nodes[to], w.down[to] || w.down[c.from], w.delay
	w.asked[r.URL.Path]++
	w.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
	if n == nil || down {
		return nil, errors.New("no route")
	}
	var handler http.Handler
	switch {
	case strings.HasPrefix(r.URL.Path, "/held/"):
		handler = held.NewHandler(held.HandlerOptions{Held: n.held, Source: copies{n},
			Peer: func(*http.Request) (authority.Name, error) { return authority.Name{Node: c.from}, nil }})
	case n.Protect != nil:
		handler = n.Handler()
	default:
		return nil, errors.New("no route")
	}
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// encode makes a stripe of random bytes: of a pack of its own, or of one that is there.
func (w *world) encode(code shard.Code, of *made, origin string) *made {
	w.t.Helper()
	w.made++
	const plaintext = 700 << 10
	head, ciphertext := stripetest.Random([32]byte{byte(w.made), byte(w.made >> 8), 7}, stripe.Head{Code: code, Plaintext: plaintext, Origin: origin})
	if of != nil {
		ciphertext, head.Stripe = of.ciphertext, shard.Stripe{Pack: of.head.Stripe.Pack, Generation: of.head.Stripe.Generation + 1}
	}
	head.Key = head.Stripe.Pack
	m := &made{ciphertext: ciphertext}
	m.head, m.shards = stripetest.Encode(w.t, w.coder, bytes.NewReader(ciphertext), head)
	study := fmt.Sprintf("1.2.%x", head.Stripe.Pack[:4])
	m.seal = &catalog.SealFact{
		By: origin, Study: study, Series: study + ".1", Stripe: m.head.Stripe, Origin: origin, Key: head.Key,
		Size: head.Size, Instances: 1, Code: code, Root: m.head.Root(), Receipts: 1<<code.N() - 1, Virtual: catalog.NoShard,
	}
	return m
}

// owner is the node of shard i by the layout.
func (w *world) owner(m *made, i int) *node {
	w.t.Helper()
	at, ok := w.state.Owner(m.head.Stripe, i)
	if !ok {
		w.t.Fatalf("nobody has shard %d", i)
	}
	return w.nodes[at.ID]
}

// put has a node hold a shard.
func (n *node) put(m *made, i int) {
	n.w.t.Helper()
	claim := held.Claim{Entry: held.Entry{Name: held.Name{Stripe: m.head.Stripe, Index: i}, Root: m.head.Root()}, Bytes: int64(len(m.shards[i]))}
	l, err := n.held.Land(context.Background(), []held.Claim{claim}, bytes.NewReader(m.shards[i]))
	if err != nil || !l.Outcomes[0].Here() {
		n.w.t.Fatal(l, err)
	}
}

// spreadPack places a pack of the owner of shard 0, whose shard is cut from its copy,
// and has the network agree on it. change may change what is said and who holds what.
func (w *world) spreadPack(code shard.Code, change func(m *made, lacks map[int]bool)) (*made, *node) {
	w.t.Helper()
	m := w.encode(code, nil, "origin")
	origin := w.owner(m, 0)
	m = w.encoded(m, origin)
	without := map[int]bool{}
	if change != nil {
		change(m, without)
	}
	w.hold(m, without)
	w.tell(m)
	return m, origin
}

// encoded is a stripe with its origin in it, and the origin's copy.
func (w *world) encoded(m *made, origin *node) *made {
	w.t.Helper()
	head := *m.head
	head.Origin = origin.id
	m.head, m.shards = stripetest.Encode(w.t, w.coder, bytes.NewReader(m.ciphertext), head)
	m.seal.By, m.seal.Origin, m.seal.Root = origin.id, origin.id, m.head.Root()
	m.seal.Virtual = catalog.NoShard
	for i := range head.Code.N() {
		if w.owner(m, i) == origin {
			m.seal.Virtual = i
		}
	}
	origin.mu.Lock()
	defer origin.mu.Unlock()
	origin.copies[m.head.Stripe] = m
	origin.rests[m.sop()] = archive.Resting{Packs: []pack.ID{m.head.Stripe.Pack}}
	return m
}

func (m *made) sop() string { return m.seal.Series + ".7" }

// hold has the shards of a stripe where they belong, but for some.
func (w *world) hold(m *made, without map[int]bool) {
	for i := range m.seal.Code.N() {
		if i != m.seal.Virtual && !without[i] {
			w.owner(m, i).put(m, i)
		}
	}
}

// tell has the network agree on a stripe.
func (w *world) tell(m *made) {
	w.t.Helper()
	key := &catalog.KeyFact{Origin: m.seal.Origin, Study: m.seal.Study, Epoch: 1, ID: m.seal.Key}
	key.Wrapped[0] = 1
	w.do(key, m.seal)
}

// asks asks whether an instance is committed until it is, or an error is final, or so
// much time has passed.
func (n *node) asks(sop string, most time.Duration) error {
	began := time.Now()
	for {
		changed := n.Protect.Changed()
		err := n.Committed(context.Background(), "1.2", sop, "MODALITY")
		if err == nil || !fault.Is(err, fault.Unavailable) || time.Since(began) >= most {
			return err
		}
		select {
		case <-changed:
		case <-time.After(2 * time.Second):
		}
	}
}

func (w *world) startAll(b bug) {
	for _, id := range w.ids {
		w.nodes[id].bug = b
		w.nodes[id].start()
	}
}

// openAlone opens a catalogue that nobody else has.
func openAlone(t *testing.T) (*catalog.Catalog, *alone.Solo) {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}})
	if err != nil {
		t.Fatal(err)
	}
	return c, alone.New(c)
}
