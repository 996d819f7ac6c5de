package spread

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/replication/catalog/catalogtest"
	"pelago/replication/journal"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held"
	"pelago/shard/held/volatile"
	"pelago/shard/keys"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// self is the node whose packs are spread.
const self = "n00"

func nodeOf(i int) string { return fmt.Sprintf("n%02d", i) }

// errCrash is what everything answers after a crash.
var errCrash = errors.New("crashed")

// world is a network of sites of one node each, in memory: real holders and a real
// catalogue, on virtual time.
type world struct {
	t       testing.TB
	catalog *catalog.Catalog
	solo    *alone.Solo
	stores  map[string]*holder // is added to with mu held
	place   *places
	packs   *packs
	rows    *rows
	ring    ring

	// steps counts what a crash may come between: commits of rows, uploads before and
	// after they land, facts that are told. From crashAt on nothing happens any more.
	mu      sync.Mutex
	steps   int
	crashAt int
	muted   bool   // nothing is told
	skipped uint64 // rows up to it are not told

	*Spread
	cancel context.CancelFunc
	ended  chan error
	told   uint64 // rows that were told
	facts  int    // that the network took
}

// inWorld runs a test in a network of so many sites.
func inWorld(t *testing.T, sites int, run func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sites)
		defer w.close()
		run(t, w)
	})
}

func newWorld(t testing.TB, sites int) *world {
	t.Helper()
	c, err := catalogtest.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, catalog: c, solo: alone.New(c), stores: map[string]*holder{}, rows: &rows{},
		packs: &packs{all: map[pack.ID]*one{}}, place: &places{changed: make(chan struct{})}}
	w.rows.step = w.step
	w.grow(sites)
	return w
}

func (w *world) close() {
	w.t.Helper()
	w.stop()
	for _, h := range w.stores {
		if err := h.bulk.Close(); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.catalog.Close(); err != nil {
		w.t.Error(err)
	}
}

// step counts a step, and fails from the crash on.
func (w *world) step() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps++
	if w.crashAt > 0 && w.steps >= w.crashAt {
		return errCrash
	}
	return nil
}

// grow makes it a network of so many sites, by the defaults.
func (w *world) grow(sites int) {
	w.t.Helper()
	code, survives := shard.Default(sites)
	w.grows(sites, code, survives)
}

func (w *world) grows(sites int, code shard.Code, survives int) {
	w.t.Helper()
	for i := range sites {
		if w.stores[nodeOf(i)] == nil { // only here is it added to
			h := openHolder(w.t, nodeOf(i))
			w.mu.Lock()
			w.stores[nodeOf(i)] = h
			w.mu.Unlock()
		}
	}
	was := w.place.State()
	next := &placement.State{Survives: survives}
	if sites > 1 {
		next.View, next.Code = layout.View{New: w.layoutOf(sites, code), Old: was.View.New}, code
	}
	w.place.set(next)
}

// layoutOf is the layout of so many sites that follows.
func (w *world) layoutOf(sites int, code shard.Code) *layout.Layout {
	w.t.Helper()
	var all []layout.Holder
	for i := range sites {
		all = append(all, layout.Holder{Node: layout.Node{ID: nodeOf(i), Site: fmt.Sprintf("s%02d", i), Pledge: 1 << 40}})
	}
	l, err := layout.Compute(w.place.State().View.New, all, min(code.N(), sites))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// placedFor is where shards belong among so many sites, once the change is over.
func (w *world) placedFor(sites int) *placement.State {
	w.t.Helper()
	code := w.place.State().Code
	return &placement.State{View: layout.View{New: w.layoutOf(sites, code)}, Code: code}
}

// rowIn are the nodes of a pack's row by a state.
func rowIn(s *placement.State, id pack.ID) (nodes []string) {
	l := s.View.New
	for _, n := range l.Row(l.Group(shard.Spread(id))) {
		nodes = append(nodes, n.ID)
	}
	return nodes
}

// start starts spreading, over the rows that are there.
func (w *world) start() {
	w.t.Helper()
	s, err := Open(Options{
		Self: self, Packs: w.packs, Rows: w.rows, Holders: holders{w}, Own: ownStore{w.stores[self], w}, Placement: w.place, Keys: w.ring, Catalog: w.catalog,
		Alive: func(string) bool { return true },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Spread, w.told = s, 0
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.ended = cancel, make(chan error, 1)
	tasks := append(s.Tasks(), work.Task{Name: "teller", Run: w.teller})
	for i := range tasks {
		tasks[i].Restart = &work.Restart{}
	}
	go func() { w.ended <- work.New(slog.New(slog.DiscardHandler), tasks...).Run(ctx) }()
}

func (w *world) stop() {
	w.t.Helper()
	if w.Spread == nil {
		return
	}
	w.cancel()
	if err := <-w.ended; err != nil {
		w.t.Errorf("tasks: %v", err)
	}
	w.Spread = nil
}

// restart is a crash and a start: what was not in rows, held or told is gone.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.mu.Lock()
	w.crashAt = 0
	w.mu.Unlock()
	w.start()
}

// teller is the journal: it tells the network what there are rows for.
func (w *world) teller(ctx context.Context, _ *work.Progress) error {
	for {
		if err := w.tellAll(ctx); err != nil && !errors.Is(err, errCrash) && ctx.Err() == nil {
			w.t.Errorf("tell: %v", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// skip has the rows up to a number not told.
func (w *world) skip(to uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skipped = to
}

// mute has nothing told, as without a majority.
func (w *world) mute(muted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.muted = muted
}

func (w *world) tellAll(ctx context.Context) error {
	w.mu.Lock()
	muted := w.muted
	w.told = max(w.told, w.skipped)
	w.mu.Unlock()
	if muted {
		return nil
	}
	type row struct {
		number uint64
		fact   journal.PackFact
	}
	var all []row
	err := w.After(ctx, w.told, func(number uint64, f journal.PackFact) error {
		if number <= w.told || len(all) > 0 && number <= all[len(all)-1].number {
			return fmt.Errorf("row %d behind %d", number, w.told)
		}
		all = append(all, row{number, f})
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range all {
		var change any = r.fact.Key
		if r.fact.Seal != nil {
			short, err := w.catalog.News(r.fact.Seal)
			if err != nil {
				return err
			}
			if short == nil {
				w.told = r.number
				continue
			}
			change = short
		} else if lacks, err := w.catalog.LacksKey(r.fact.Key); err != nil || !lacks {
			w.told = r.number
			continue
		}
		if err := w.step(); err != nil {
			return err
		}
		results, err := w.solo.Do(change)
		if err != nil {
			return err
		}
		w.told = r.number
		if err := errors.Join(results...); err != nil {
			w.Refused(r.fact, results[0])
		} else {
			w.facts++
		}
	}
	return nil
}

// pack has a pack of random bytes come to rest.
func (w *world) pack(n int, plaintext int) pack.ID {
	w.t.Helper()
	o := makePack(w.t, n, plaintext)
	id := pack.ID(o.record.Id)
	w.packs.put(o)
	if w.Spread != nil {
		w.Packed([]pack.ID{id})
	}
	return id
}

// until waits for something, at most two hours.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	synctest.Wait() // what is at work now must not go on while its rows are looked at
	for end := time.Now().Add(2 * time.Hour); !done(); {
		if time.Now().After(end) {
			w.t.Fatalf("not %s in two hours", what)
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
}

// seals are what is committed of a pack.
func (w *world) seals(id pack.ID) []catalog.Seal {
	w.t.Helper()
	v := w.catalog.View()
	defer v.Close()
	all, err := v.Pack(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// complete reports whether a pack has one stripe of a code, with all its shards.
func (w *world) complete(id pack.ID, code shard.Code) bool {
	seals := w.seals(id)
	return len(seals) == 1 && seals[0].Code == code && seals[0].Spare() == code.M
}

// settled waits until nothing waits, and checks what there is of a pack.
func (w *world) settled(id pack.ID, code shard.Code) catalog.Seal {
	w.t.Helper()
	w.until("complete", func() bool {
		n, _ := w.Waiting()
		return w.complete(id, code) && n == 0
	})
	return w.check(id)
}

// check checks that what is told of the latest stripe of a pack is true: every shard
// of it with a receipt is where it is said to be, at sites of its own, and leads to
// the root; and so many are enough to read it.
func (w *world) check(id pack.ID) catalog.Seal {
	w.t.Helper()
	seals := w.seals(id)
	if len(seals) == 0 {
		w.t.Fatalf("pack %x is not sealed", id)
	}
	f := seals[0]
	head, err := w.Head(f.Stripe)
	if err != nil {
		w.t.Fatal(err)
	}
	if head.Root() != f.Root || head.Code != f.Code || head.Size != f.Size {
		w.t.Fatal("the head is another stripe's")
	}
	o := w.packs.all[id]
	if f.Series != o.record.Series || f.Study != o.record.Study || f.Origin != self || f.Instances != uint64(o.record.Instances) || f.Size != int64(len(o.bytes)) {
		w.t.Errorf("the seal is %+v", f)
	}
	v := w.catalog.View()
	if _, ok, err := v.Key(f.Key); err != nil || !ok {
		w.t.Errorf("its key is not known: %v", err)
	}
	v.Close()
	row := rowOf(w.place.State(), &f.SealFact)
	at := map[string]int{}
	for i := range f.Code.N() {
		if f.Receipts>>i&1 == 0 {
			continue
		}
		node := ""
		if i < len(row) {
			node = row[i].ID
		}
		for _, e := range f.Elsewhere {
			if e.Shard == i {
				node = e.Node
			}
		}
		if f.Virtual == i {
			node = self
		}
		if before, ok := at[node]; ok {
			w.t.Errorf("shards %d and %d are at %s", before, i, node)
		}
		at[node] = i
		if cut := node == self && f.Virtual == i; cut || node == self && !o.record.Evicted {
			if !cut || o.record.Evicted {
				w.t.Errorf("shard %d is at its origin, virtual %v, evicted %v", i, cut, o.record.Evicted)
			}
			continue
		}
		sh, err := w.stores[node].Shard(held.Name{Stripe: f.Stripe, Index: i})
		if err != nil {
			w.t.Errorf("shard %d at %s: %v", i, node, err)
			continue
		}
		if sh.Head().Root() != f.Root {
			w.t.Errorf("shard %d at %s is another's", i, node)
		}
	}
	return f
}

// rowOf are the nodes of a pack's row.
func (w *world) rowOf(id pack.ID) []string { return rowIn(w.place.State(), id) }

// one is a pack. It is not changed.
type one struct {
	record *archivepb.Pack
	bytes  []byte
	from   io.ReaderAt // nil: bytes; else what reads it once it is evicted
}

func studyOf(n int) string { return fmt.Sprintf("1.2.%d", n/10) }

func makePack(t testing.TB, n, plaintext int) *one {
	t.Helper()
	id := idOf(n)
	study := studyOf(n)
	plain := make([]byte, plaintext)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(plain)
	var b bytes.Buffer
	sw := seal.NewWriter(&b, seal.PackKey(seal.Key(sha256.Sum256([]byte(study))), id))
	if _, err := sw.Write(plain); err != nil {
		t.Fatal(err)
	}
	root, _, err := sw.Close()
	if err != nil {
		t.Fatal(err)
	}
	key := keyOf(study)
	return &one{bytes: b.Bytes(), record: &archivepb.Pack{
		Version: 1, Id: id[:], Study: study, Series: fmt.Sprintf("%s.%d", study, n), Key: key[:], Root: root[:], BlobBytes: int64(b.Len()),
		Plaintext: int64(plaintext), Manifest: int64(plaintext - plaintext/10), Instances: uint32(3 + n%5),
	}}
}

func keyOf(study string) [16]byte { return sixteen("key" + study) }

func idOf(n int) pack.ID { return sixteen(fmt.Sprint("pack", n)) }

func sixteen(s string) [16]byte {
	sum := sha256.Sum256([]byte(s))
	return [16]byte(sum[:16])
}

// ring has the keys of all studies.
type ring struct{}

func (ring) Wrapped(id [16]byte) (keys.StudyKey, error) {
	for n := 0; n < 5000; n += 10 {
		if study := studyOf(n); keyOf(study) == id {
			k := keys.StudyKey{ID: id, Study: study, Epoch: 1}
			copy(k.Wrapped[:], study)
			return k, nil
		}
	}
	return keys.StudyKey{}, fault.New(fault.NotFound, "no key")
}

// packs is an archive.
type packs struct {
	mu   sync.Mutex
	all  map[pack.ID]*one
	busy bool
}

func (p *packs) put(o *one) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[pack.ID(o.record.Id)] = o
}

func (p *packs) setBusy(busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = busy
}

func (p *packs) Busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}

func (p *packs) EachPack(ctx context.Context, after pack.ID, visit func(*archivepb.Pack) (bool, error)) error {
	p.mu.Lock()
	ids := slices.SortedFunc(maps.Keys(p.all), func(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) })
	p.mu.Unlock()
	for _, id := range ids {
		if bytes.Compare(id[:], after[:]) <= 0 {
			continue
		}
		p.mu.Lock()
		o := p.all[id]
		p.mu.Unlock()
		if o == nil {
			continue
		}
		if more, err := visit(o.record); err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

func (p *packs) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.all[id]
	if o == nil {
		return nil, nil, fault.New(fault.NotFound, "no pack")
	}
	if o.from != nil {
		return o.record, o.from, nil
	}
	return o.record, bytes.NewReader(o.bytes), nil
}

// places is a placement.
type places struct {
	mu      sync.Mutex
	state   *placement.State
	changed chan struct{}
}

func (p *places) State() *placement.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		p.state = &placement.State{}
	}
	return p.state
}

func (p *places) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *places) set(s *placement.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// holder is a node that holds shards.
type holder struct {
	*held.Store
	bulk *bulk.Store

	mu      sync.Mutex
	down    error         // what it answers; nil: it is there
	slow    time.Duration // before it answers
	hangs   bool          // it answers never
	uploads int           // that came
	shards  int           // in them
}

func openHolder(t testing.TB, node string) *holder {
	t.Helper()
	h := &holder{}
	var err error
	if h.bulk, err = bulk.Open(bulk.Options{FS: vfs.NewMem(), Dir: "bulk", CacheBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	h.Store, err = held.Open(held.Options{Self: signer(node), Bulk: h.bulk, Rows: &volatile.Rows{}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *holder) set(change func(h *holder)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// fail has a holder answer with an error; nil: it answers again.
func (h *holder) fail(err error) { h.set(func(h *holder) { h.down = err }) }

var errDown = fault.New(fault.Unavailable, "it does not answer")

type signer string

func (s signer) ID() string         { return string(s) }
func (s signer) Sign([]byte) []byte { return make([]byte, 64) }

// holders asks the stores, over nothing.
type holders struct{ w *world }

// reach is a call: when it returns nil the holder answers.
func (h holders) reach(ctx context.Context, node string) (*holder, error) {
	h.w.mu.Lock()
	one := h.w.stores[node]
	h.w.mu.Unlock()
	if one == nil || node == self {
		return nil, fmt.Errorf("%q is asked", node)
	}
	one.mu.Lock()
	down, slow, hangs := one.down, one.slow, one.hangs
	one.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if down != nil {
		return nil, down
	}
	select {
	case <-time.After(slow):
		return one, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (h holders) Upload(ctx context.Context, node string, offers []held.Offer) (*held.Landed, error) {
	if err := h.w.step(); err != nil {
		return nil, err
	}
	one, err := h.reach(ctx, node)
	if err != nil {
		return nil, err
	}
	one.set(func(one *holder) { one.uploads++; one.shards += len(offers) })
	claims := make([]held.Claim, len(offers))
	for i, o := range offers {
		claims[i] = o.Claim
	}
	from, to := io.Pipe()
	var writing sync.WaitGroup
	var own error
	writing.Go(func() {
		for _, o := range offers {
			if own = o.Write(ctx, to); own != nil {
				break
			}
		}
		to.CloseWithError(own) //nolint:errcheck // never fails
	})
	landed, err := one.Land(ctx, claims, from)
	from.CloseWithError(io.ErrClosedPipe) //nolint:errcheck // never fails
	writing.Wait()
	if err != nil {
		return nil, errors.Join(own, err)
	}
	return landed, h.w.step() // it landed, and nobody heard of it
}

func (h holders) Receipts(ctx context.Context, node string, entries []held.Entry) (*held.Landed, error) {
	if err := h.w.step(); err != nil {
		return nil, err
	}
	one, err := h.reach(ctx, node)
	if err != nil {
		return nil, err
	}
	return one.Ask(entries)
}

// ownStore is what rests at the node itself.
type ownStore struct {
	*holder
	w *world
}

func (o ownStore) Land(ctx context.Context, claims []held.Claim, from io.Reader) (*held.Landed, error) {
	if err := o.w.step(); err != nil {
		return nil, err
	}
	o.mu.Lock()
	down := o.down
	o.mu.Unlock()
	if down != nil {
		return nil, down
	}
	landed, err := o.holder.Land(ctx, claims, from)
	return landed, errors.Join(err, o.w.step())
}

// rows are durable rows in memory.
type rows struct {
	volatile.Rows
	step func() error // nil: never fails

	mu      sync.Mutex
	commits int
}

func (r *rows) Commit(rows map[string][]byte) error {
	if r.step != nil {
		if err := r.step(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits++
	return r.Rows.Commit(rows)
}

// keys are those of the rows of a kind.
func (r *rows) keys(kind byte) []string {
	return slices.DeleteFunc(r.Keys(), func(key string) bool { return key[0] != kind })
}

// clear drops all rows, as if they had never been.
func (r *rows) clear(t testing.TB) {
	t.Helper()
	none := map[string][]byte{}
	for _, key := range r.Keys() {
		none[key] = nil
	}
	if err := r.Rows.Commit(none); err != nil {
		t.Fatal(err)
	}
}
