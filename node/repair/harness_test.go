package repair

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
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
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held"
	"pelago/shard/held/volatile"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a stripe and its shards as they rest and travel.
type made struct {
	head       *stripe.Head
	ciphertext []byte
	shards     [][]byte
	study      string
}

// network are nodes of as many sites, with one catalogue and links over memory.
type network struct {
	t     *testing.T
	cat   *catalog.Catalog
	solo  *alone.Solo
	coder *stripe.Coder
	nodes map[string]*node
	names []string // of nodes by site, in order
	made  []*made
	from  string // origin of what is sealed; "": the first node

	mu       sync.Mutex
	state    *placement.State
	changed  chan struct{}
	lost     map[string]bool
	down     map[string]bool
	complete map[string]uint64
	asked    map[string]int // calls by node and kind, such as "n/leaves"
	spoil    func(node, path string, answer []byte) []byte
	before   func(from, node, path string) error // of each call
	delay    []*catalog.SealFact                 // news that is not committed yet; nil: at once
	delayed  bool
	refused  int    // news
	wires    *wires // nil: calls are answered at once
}

// node is one of the network.
type node struct {
	n     *network
	id    string
	key   ed25519.PrivateKey
	fs    vfs.FS
	rows  *volatile.Rows
	bulk  *bulk.Store
	store *held.Store
	hot   map[[16]byte]*made
	rot   map[[16]byte]bool // copies that are rotten

	repair   *Repair
	stop     func()
	bug      bug
	order    []held.Name // that landed
	landings int         // at which they did
	mu       sync.Mutex
	full     func(bytes int64) bool
	busy     bool
	offer    int // workers; 0: as usual

	dropping func() // before shards are given up
}

func (d *node) ID() string           { return d.id }
func (d *node) Sign(m []byte) []byte { return ed25519.Sign(d.key, m) }

// onNetwork runs a test on virtual time, with so many sites and stripes of n shards.
func onNetwork(t *testing.T, sites, n, survives int, run func(w *network)) {
	synctest.Test(t, func(t *testing.T) {
		w := &network{
			t: t, coder: stripe.NewCoder(), nodes: map[string]*node{}, changed: make(chan struct{}), lost: map[string]bool{}, down: map[string]bool{},
			complete: map[string]uint64{}, asked: map[string]int{},
		}
		var err error
		if w.cat, err = catalog.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		w.solo = alone.New(w.cat)
		for i := range sites {
			w.join(i)
		}
		l, err := layout.Compute(nil, w.holders(), n)
		if err != nil {
			t.Fatal(err)
		}
		w.state = &placement.State{View: layout.View{New: l}, Survives: survives}
		run(w)
		for _, d := range w.nodes {
			d.end()
			d.close()
		}
		if err := w.cat.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (w *network) join(i int) *node {
	w.t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
	d := &node{n: w, key: key, id: identity.IDOf(key.Public().(ed25519.PublicKey)), fs: vfs.NewMem(), rows: &volatile.Rows{}, hot: map[[16]byte]*made{}, rot: map[[16]byte]bool{}}
	w.nodes[d.id] = d
	w.names = append(w.names, d.id)
	d.open()
	return d
}

func (d *node) open() {
	var err error
	t := d.n.t
	t.Helper()
	var late *held.Store
	d.bulk, err = bulk.Open(bulk.Options{FS: d.fs, Dir: "bulk", CacheBytes: 1 << 20, Lost: func(refs []bulk.Ref, cause error) {
		if err := late.BulkLost(refs, cause); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := held.Open(held.Options{Self: d, Bulk: d.bulk, Rows: d.rows,
		Reserve: func(n int64) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.full != nil && d.full(n) {
				return fault.New(fault.Full, "no room")
			}
			return nil
		},
		OnLost: func(n held.Name, cause error) {
			if _, r := d.serving(); r != nil {
				r.OnLost(n, cause)
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	late = store
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store = store
}

// serving are what answers others: a node that starts again has others than before.
func (d *node) serving() (*held.Store, *Repair) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.store, d.repair
}

func (d *node) close() {
	if err := d.bulk.Close(); err != nil {
		d.n.t.Error(err)
	}
}

// start runs a node's repair until end.
func (d *node) start() {
	w := d.n
	r := New(Options{
		Self: d.id, Places: places{w, d.id}, Catalog: w.cat, Held: &watched{d.store, d}, Local: local{d}, Copies: copies{d},
		Peers: held.NewClient(caller{w, d.id}, w), Calls: caller{w, d.id}, Members: w, Coder: w.coder, Tell: func(f *catalog.SealFact) error { return w.tell(f) },
		Lost:  func(node string) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.lost[node] },
		Alive: func(node string) bool { w.mu.Lock(); defer w.mu.Unlock(); return !w.down[node] },
		Others: func() []string {
			return slices.DeleteFunc(slices.Clone(w.names), func(n string) bool { return n == d.id })
		},
		Busy:    func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.busy },
		Workers: cmp.Or(d.offer, 4),
	})
	r.bug = d.bug
	d.mu.Lock()
	d.repair = r
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	group := work.New(nil, r.Tasks()...)
	all.Go(func() {
		if err := group.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	d.stop = func() { cancel(); all.Wait() }
}

func (d *node) end() {
	if d.stop != nil {
		d.stop()
		d.stop = nil
	}
}

func (w *network) startAll() {
	for _, id := range w.names {
		if !w.isDown(id) {
			w.nodes[id].start()
		}
	}
}

func (w *network) isDown(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down[id]
}

func (w *network) set(of map[string]bool, id string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of[id] = is
}

func siteOf(i int) string { return fmt.Sprintf("s%02d", i) }

// holders are the nodes as the network knows them; drained ones by their ids.
func (w *network) holders(drained ...string) (all []layout.Holder) {
	for i, id := range w.names {
		all = append(all, layout.Holder{Node: layout.Node{ID: id, Site: siteOf(i), Pledge: 1 << 40}, Lost: w.lost[id], Drained: slices.Contains(drained, id)})
	}
	return all
}

// change begins a change of the layout.
func (w *network) change(drained ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.state.View.New
	if w.state.View.Old != nil {
		w.t.Fatal("a change is under way")
	}
	next, err := layout.Compute(old, w.holders(drained...), old.Shards)
	if err != nil {
		w.t.Fatal(err)
	}
	w.becomeLocked(layout.View{New: next, Old: old})
}

func (w *network) becomeLocked(v layout.View) {
	next := *w.state
	next.View = v
	w.state = &next
	close(w.changed)
	w.changed = make(chan struct{})
}

// places is the placement of a node: a change is over once all that are there have
// completed it.
type places struct {
	w    *network
	self string
}

func (p places) State() *placement.State {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.state
}

func (p places) Changed() <-chan struct{} {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.changed
}

func (p places) Complete(_ context.Context, version uint64) error {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complete[p.self] = version
	if w.state.View.Old == nil {
		return nil
	}
	for _, id := range w.names {
		if !w.lost[id] && w.complete[id] < w.state.View.New.Version {
			return nil
		}
	}
	w.becomeLocked(layout.View{New: w.state.View.New})
	return nil
}

// SigningKey implements held.Members.
func (w *network) SigningKey(id string) (ed25519.PublicKey, error) {
	if d := w.nodes[id]; d != nil {
		return d.key.Public().(ed25519.PublicKey), nil
	}
	return nil, fault.New(fault.Denied, "no member")
}

// tell commits news, now or when flush is called.
func (w *network) tell(f *catalog.SealFact) error {
	w.mu.Lock()
	delayed := w.delayed
	if delayed {
		w.delay = append(w.delay, f)
	}
	w.mu.Unlock()
	if delayed {
		return nil
	}
	return w.commit(f)
}

func (w *network) commit(f *catalog.SealFact) error {
	results, err := w.solo.Do(f)
	if err != nil {
		return err
	}
	if results[0] != nil {
		w.mu.Lock()
		w.refused++
		w.mu.Unlock()
	}
	return nil
}

func (w *network) flush() {
	w.mu.Lock()
	all := w.delay
	w.delay = nil
	w.mu.Unlock()
	for _, f := range all {
		if err := w.commit(f); err != nil {
			w.t.Error(err)
		}
	}
}

// caller carries calls of a node.
type caller struct {
	w    *network
	from string
}

func (c caller) Send(request *http.Request) (*http.Response, error) {
	return call.NewClient(c).Send(request)
}

// RoundTrip has the node answer at once, and the answer come whole.
func (c caller) RoundTrip(r *http.Request) (*http.Response, error) {
	to := r.URL.Host
	w := c.w
	kind := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	w.mu.Lock()
	d, down, before, spoil := w.nodes[to], w.down[to] || w.down[c.from], w.before, w.spoil
	w.asked[to+"/"+kind]++
	ws := w.wires
	w.mu.Unlock()
	if ws != nil {
		return ws.send(c.from, r)
	}
	if d == nil || down {
		return nil, errors.New("no route")
	}
	if before != nil {
		if err := before(c.from, to, kind); err != nil {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	store, serves := d.serving()
	var handler http.Handler = held.NewHandler(held.HandlerOptions{Held: store, Source: local{d},
		Peer: func(*http.Request) (authority.Name, error) { return authority.Name{Node: c.from}, nil }})
	if strings.HasPrefix(r.URL.Path, "/repair/") {
		if serves == nil {
			return nil, errors.New("no route")
		}
		handler = serves.Handler(func(*http.Request) (string, error) { return c.from, nil })
	}
	rec := httptest.NewRecorder()
	broken := false
	func() {
		defer func() {
			if v := recover(); v != nil {
				broken = true
			}
		}()
		handler.ServeHTTP(rec, r)
	}()
	answer := rec.Result()
	body := rec.Body.Bytes()
	if spoil != nil && answer.StatusCode < 300 {
		body = spoil(to, kind, bytes.Clone(body))
	}
	var from io.Reader = bytes.NewReader(body)
	if broken {
		from = io.MultiReader(from, failing{})
	}
	answer.Body = io.NopCloser(from)
	return answer, nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// watched notes what landed, in order.
type watched struct {
	*held.Store
	d *node
}

func (h *watched) Land(ctx context.Context, claims []held.Claim, from io.Reader) (*held.Landed, error) {
	l, err := h.Store.Land(ctx, claims, from)
	if err == nil {
		h.d.mu.Lock()
		defer h.d.mu.Unlock()
		h.d.landings++
		for i, o := range l.Outcomes {
			if o == held.Stored {
				h.d.order = append(h.d.order, claims[i].Name)
			}
		}
	}
	return l, err
}

// Drop implements [Holder]: dropping comes before the store has its locks.
func (h *watched) Drop(ctx context.Context, why held.Reason, names ...held.Name) (int, error) {
	if h.d.dropping != nil {
		h.d.dropping()
	}
	return h.Store.Drop(ctx, why, names...)
}

// local is what a node can read: held, or cut from its copies.
type local struct{ d *node }

func (l local) Shard(n held.Name) (held.Shard, error) {
	store, _ := l.d.serving()
	one, err := store.Shard(n)
	m := l.d.copyOf(n.Pack)
	if err == nil || m == nil || m.head.Stripe != n.Stripe {
		return one, err
	}
	if l.d.rot[n.Pack] {
		return nil, fault.New(fault.Corrupt, "rot")
	}
	y, err := l.d.n.coder.Copy(context.Background(), bytes.NewReader(m.ciphertext), m.head)
	if err != nil {
		return nil, err
	}
	return y.Shard(context.Background(), n.Index)
}

type copies struct{ d *node }

func (c copies) Has(pack [16]byte) bool { return c.d.copyOf(pack) != nil }

// copyOf is a pack of which a node has the whole copy; nil: it has none.
func (d *node) copyOf(pack [16]byte) *made {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hot[pack]
}

func (c copies) Verify(_ context.Context, of shard.Stripe) error {
	if c.d.rot[of.Pack] {
		return fault.New(fault.Corrupt, "rot")
	}
	return nil
}

// encode makes a stripe of random bytes.
func (w *network) encode(code shard.Code, plaintext int64, pack [16]byte, generation uint32) *made {
	w.t.Helper()
	head, ciphertext := stripetest.Random([32]byte{byte(len(w.made)), byte(len(w.made) >> 8), 7},
		stripe.Head{Stripe: shard.Stripe{Pack: pack, Generation: generation}, Code: code, Plaintext: plaintext})
	m := &made{ciphertext: ciphertext}
	m.head, m.shards = stripetest.Encode(w.t, w.coder, bytes.NewReader(ciphertext), head)
	m.study = fmt.Sprintf("1.2.%d", len(w.made)+1)
	w.made = append(w.made, m)
	return m
}

func (m *made) name(i int) held.Name { return held.Name{Stripe: m.head.Stripe, Index: i} }
func (m *made) claim(i int) held.Claim {
	return held.Claim{Entry: held.Entry{Name: m.name(i), Root: m.head.Root()}, Bytes: int64(len(m.shards[i]))}
}

// put has a node hold a shard.
func (d *node) put(m *made, i int) {
	d.n.t.Helper()
	l, err := d.store.Land(d.n.t.Context(), []held.Claim{m.claim(i)}, bytes.NewReader(m.shards[i]))
	if err != nil || !l.Outcomes[0].Here() {
		d.n.t.Fatal(l, err)
	}
}

// owner is the node of shard i by the layout that is valid.
func (w *network) owner(m *made, i int) *node {
	return w.nodes[at(w.state.View.New, m.head.Stripe.Pack, i).ID]
}

// sealed places a stripe by the layout and commits its seal, which change may change:
// shards without a receipt then, or elsewhere, are put by the caller.
func (w *network) sealed(code shard.Code, plaintext int64, change func(m *made, f *catalog.SealFact)) *made {
	w.t.Helper()
	m := w.encode(code, plaintext, [16]byte{}, 1)
	w.seal(m, change)
	return m
}

func (w *network) seal(m *made, change func(m *made, f *catalog.SealFact)) {
	w.t.Helper()
	pack := m.head.Stripe.Pack
	origin := cmp.Or(w.from, w.names[0])
	key := &catalog.KeyFact{Origin: origin, Study: m.study, Epoch: 1, ID: pack}
	key.Wrapped[0] = 1
	f := &catalog.SealFact{By: origin, Study: m.study, Series: m.study + ".1", Stripe: m.head.Stripe, Origin: origin, Key: pack,
		Size: m.head.Size, Instances: 1, Code: m.head.Code, Root: m.head.Root(), Layout: w.state.View.New.Version, Receipts: 1<<m.head.Code.N() - 1, Virtual: catalog.NoShard}
	if change != nil {
		change(m, f)
	}
	for i := range m.head.Code.N() {
		if _, exception := elsewhere(f, i); f.Receipts>>i&1 == 1 && !exception && f.Virtual != i {
			w.owner(m, i).put(m, i)
		}
	}
	results, err := w.solo.Do(key, f)
	if err := errors.Join(append(results, err)...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *network) sealOf(m *made) *catalog.SealFact {
	w.t.Helper()
	v := w.cat.View()
	defer v.Close()
	s, ok, err := v.Stripe(m.head.Stripe)
	if err != nil || !ok {
		w.t.Fatal(ok, err)
	}
	return &s.SealFact
}

// holds reports whether a node holds a shard, and compares its bytes if it does.
func (d *node) holds(m *made, i int) bool {
	d.n.t.Helper()
	st, err := d.store.Status(m.name(i))
	if err != nil || st.State != held.Held {
		return false
	}
	one, err := d.store.Shard(m.name(i))
	if err != nil {
		return false
	}
	if one.Head().Root() != m.head.Root() {
		d.n.t.Errorf("node %s holds another shard under the name of %v", d.id, m.name(i))
		return true
	}
	var b bytes.Buffer
	if err := one.(interface {
		Write(context.Context, io.Writer) error
	}).Write(context.Background(), &b); err != nil || !bytes.Equal(b.Bytes(), m.shards[i]) {
		d.n.t.Errorf("node %s holds %d of %d bytes of %v: %v", d.id, b.Len(), len(m.shards[i]), m.name(i), err)
	}
	return true
}

// whole checks that every shard is at its owner, and that the seals say so.
func (w *network) whole() {
	w.t.Helper()
	for _, m := range w.made {
		s := w.sealOf(m)
		p := plan{self: "", view: w.state.View, lost: func(n string) bool { return w.lost[n] }}
		for i := range m.head.Code.N() {
			owner := w.owner(m, i)
			if s.Virtual == i && s.Origin == owner.id {
				continue
			}
			if !owner.holds(m, i) {
				w.t.Errorf("shard %d of %v is not at its owner", i, m.head.Stripe)
			}
			if got := p.counted(s, i); got != owner.id {
				w.t.Errorf("shard %d of %v: the seal counts it at %q, not at its owner %s: %+v", i, m.head.Stripe, got, owner.id, s)
			}
		}
	}
}

// copiesOf counts the nodes that hold each shard.
func (w *network) copiesOf(m *made, i int) (n int) {
	for _, d := range w.nodes {
		if d.holds(m, i) {
			n++
		}
	}
	return n
}

// lose has the bytes of a shard at a node rot.
func (d *node) lose(m *made, i int) {
	d.n.t.Helper()
	var all []bulk.Ref
	if err := d.bulk.Refs(bulk.Held, func(r bulk.Ref) error {
		b := make([]byte, min(r.Bytes, 200))
		if _, err := d.bulk.Reader(r).ReadAt(b, 0); err != nil {
			return err
		}
		one, err := stripe.Open(d.bulk.Reader(r), r.Bytes)
		if err == nil && one.Head().Stripe == m.head.Stripe && one.Index() == i {
			all = append(all, r)
		}
		return nil
	}); err != nil || len(all) != 1 {
		d.n.t.Fatal(all, err)
	}
	if err := d.store.BulkLost(all, errors.New("rot")); err != nil {
		d.n.t.Fatal(err)
	}
}

// passes lets virtual time pass.
func passes(t time.Duration) {
	time.Sleep(t)
	synctest.Wait()
}

// forget drops what rows say of a shard that was dropped: it was never here.
func (d *node) forget(n held.Name) {
	d.n.t.Helper()
	gone := map[string][]byte{}
	for _, k := range d.rows.Keys() {
		if strings.Contains(k, string(appendName(nil, n))) {
			gone[k] = nil
		}
	}
	if err := d.rows.Commit(gone); err != nil {
		d.n.t.Fatal(err)
	}
}

func mustCompute(t *testing.T, from *layout.Layout, w *network, n int) *layout.Layout {
	t.Helper()
	l, err := layout.Compute(from, w.holders(), n)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
