package evict

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const self = "n0"

// errStep is what a step fails with that the test lets fail.
var errStep = errors.New("the step was cut off")

// made is a pack of this node, all of whose shards but the virtual one are held.
type made struct {
	id         pack.ID
	head       *stripe.Head
	ciphertext []byte
	shards     [][]byte
	seal       catalog.SealFact
	told       *catalog.SealFact // not committed yet
	evicted    bool
	deleted    bool
	table      uint64
}

// world is a network of which one node evicts.
type world struct {
	t      *testing.T
	state  *placement.State
	sites  map[string]string // by node
	lost   map[string]bool
	packs  map[pack.ID]*made
	shards map[string]map[held.Name][]byte // what nodes really hold
	rows   map[string][]byte
	more   int // further stripes that stand

	used, size int64
	returning  int64 // of used, what is dead in tables that are rewritten in the end
	ballast    int64
	room       int64 // kept for shards
	slow       bool  // what goes is dead, and comes back later
	survives   error
	doubted    []held.Name
	refused    error // what holders answer to uploads

	// calls counts what evicting does outside; the one numbered fail is cut off, before
	// it has an effect or behind it.
	calls, fail int
	behind      bool
	proved      func() // called in each proof
}

func newWorld(t *testing.T, nodes map[string]string, width int) *world {
	w := &world{t: t, sites: nodes, lost: map[string]bool{}, packs: map[pack.ID]*made{}, shards: map[string]map[held.Name][]byte{}, rows: map[string][]byte{}, used: 95, size: 100}
	var all []layout.Holder
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		all = append(all, layout.Holder{Node: layout.Node{ID: id, Site: nodes[id], Pledge: 1 << 40}})
		w.shards[id] = map[held.Name][]byte{}
	}
	l, err := layout.Compute(nil, all, width)
	if err != nil {
		t.Fatal(err)
	}
	w.state = &placement.State{View: layout.View{New: l}, Code: shard.Code{K: 2, M: width - 2}, Survives: 1}
	return w
}

// four is a network of four sites.
func four(t *testing.T) *world {
	return newWorld(t, map[string]string{"n0": "s0", "n1": "s1", "n2": "s2", "n3": "s3"}, 4)
}

// add adds a pack whose stripe is committed with all receipts.
func (w *world) add(seed byte) *made {
	w.t.Helper()
	const plaintext = 600_000
	code := w.state.Code
	head, ciphertext := stripetest.Random([32]byte{seed}, stripe.Head{Code: code, Plaintext: plaintext, Manifest: plaintext - 5000})
	m := &made{id: head.Stripe.Pack, ciphertext: ciphertext, table: uint64(seed)}
	m.head, m.shards = stripetest.Encode(w.t, stripe.NewCoder(), bytes.NewReader(ciphertext), head)
	m.seal = catalog.SealFact{By: self, Stripe: head.Stripe, Origin: self, Size: head.Size, Code: code, Root: m.head.Root(),
		Revision: 3, Layout: w.state.View.New.Version, Receipts: 1<<code.N() - 1, Virtual: catalog.NoShard}
	for i := range m.shards {
		owner, ok := w.state.Owner(head.Stripe, i)
		if !ok {
			w.t.Fatal("the row is too short")
		}
		if w.sites[owner.ID] == w.sites[self] {
			m.seal.Virtual = i
			continue
		}
		w.shards[owner.ID][m.name(i)] = m.shards[i]
	}
	w.packs[m.id] = m
	return m
}

func (m *made) name(i int) held.Name { return held.Name{Stripe: m.head.Stripe, Index: i} }

// step counts something that evicting does outside.
func (w *world) step(do func() error) error {
	w.calls++
	if w.calls == w.fail && !w.behind {
		return errStep
	}
	if err := do(); err != nil {
		return err
	}
	if w.calls == w.fail {
		return errStep
	}
	return nil
}

// commit has the network commit what was told.
func (w *world) commit() {
	for _, m := range w.packs {
		if m.told != nil && m.told.Revision > m.seal.Revision && m.told.Base == m.seal.Revision {
			m.seal = *m.told
		}
		m.told = nil
	}
}

func (w *world) EachPack(_ context.Context, _ pack.ID, visit func(*archivepb.Pack) (bool, error)) error {
	for _, id := range slices.SortedFunc(maps.Keys(w.packs), func(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) }) {
		m := w.packs[id]
		if more, err := visit(&archivepb.Pack{Id: id[:], Evicted: m.evicted, Table: m.table, BlobBytes: 10}); err != nil || !more {
			return err
		}
	}
	return nil
}

// Evict is where the invariants must hold.
func (w *world) Evict(id pack.ID) (freed int64, err error) {
	m := w.packs[id]
	err = w.step(func() error {
		if m.seal.Virtual != catalog.NoShard {
			w.t.Error("the network still takes a shard to be cut from a copy that goes")
		}
		sites := map[string]bool{}
		for i := range m.shards {
			for node, has := range w.shards {
				if bytes.Equal(has[m.name(i)], m.shards[i]) && m.seal.Receipts>>i&1 == 1 && !w.lost[node] {
					sites[fmt.Sprint(i)] = true
					sites[w.sites[node]] = true
				}
			}
		}
		if len(sites) < 2*len(m.shards) {
			w.t.Errorf("a copy goes while its shards are at %v", slices.Sorted(maps.Keys(sites)))
		}
		if !m.evicted {
			freed = 10
			if w.slow {
				w.returning += freed
			} else {
				w.used -= freed
			}
		}
		m.evicted = true
		return nil
	})
	return freed, err
}

func (w *world) Cut(ctx context.Context, n held.Name) (cut *stripe.Shard, err error) {
	err = w.step(func() error {
		m := w.packs[pack.ID(n.Pack)]
		if m.evicted {
			return fault.New(fault.NotFound, "no copy")
		}
		y, err := stripe.NewCoder().Copy(ctx, bytes.NewReader(m.ciphertext), m.head)
		if err == nil {
			cut, err = y.Shard(ctx, n.Index)
		}
		return err
	})
	return cut, err
}

func (w *world) Head(of shard.Stripe) (*stripe.Head, error) {
	return w.packs[pack.ID(of.Pack)].head, nil
}

func (w *world) Tell(f *catalog.SealFact) error {
	return w.step(func() error {
		m := w.packs[pack.ID(f.Stripe.Pack)]
		if m.told != nil && f.Revision <= m.told.Revision {
			return fault.New(fault.Conflict, "told before")
		}
		m.told = f
		return nil
	})
}

// take is a node that takes a shard as it comes.
func (w *world) take(node string, claim held.Claim, b []byte) (*held.Landed, error) {
	if w.refused != nil {
		return nil, w.refused
	}
	head, index, err := stripe.Receive(bytes.NewReader(b), io.Discard, claim.Bytes)
	if err != nil || head.Root() != claim.Root || index != claim.Index || int64(len(b)) != claim.Bytes {
		w.t.Errorf("shard %v at %s: %v", claim.Name, node, err)
		return nil, err
	}
	w.shards[node][claim.Name] = b
	return &held.Landed{Outcomes: []held.Outcome{held.Stored}, Receipt: &held.Receipt{Holder: node, Entries: []held.Entry{claim.Entry}}}, nil
}

func (w *world) Upload(ctx context.Context, node string, offers []held.Offer) (l *held.Landed, err error) {
	err = w.step(func() error {
		var b bytes.Buffer
		if err := offers[0].Write(ctx, &b); err != nil {
			return err
		}
		l, err = w.take(node, offers[0].Claim, b.Bytes())
		return err
	})
	return l, err
}

func (w *world) Prove(_ context.Context, node string, all []held.Audit) (errs []error, err error) {
	if w.proved != nil {
		w.proved()
	}
	err = w.step(func() error {
		for _, a := range all {
			m := w.packs[pack.ID(a.Head.Stripe.Pack)]
			b, ok := w.shards[node][m.name(a.Index)]
			switch {
			case !ok:
				errs = append(errs, fault.New(fault.NotFound, "not here"))
			case !bytes.Equal(b, m.shards[a.Index]):
				errs = append(errs, fault.New(fault.Corrupt, "rotten"))
			default:
				errs = append(errs, nil)
			}
		}
		return nil
	})
	return errs, err
}

// own is what rests at the node that evicts.
type own struct{ *world }

func (o own) Land(_ context.Context, claims []held.Claim, from io.Reader) (l *held.Landed, err error) {
	err = o.step(func() error {
		b, err := io.ReadAll(from)
		if err != nil {
			return err
		}
		l, err = o.take(self, claims[0], b)
		return err
	})
	return l, err
}

func (o own) Ask([]held.Entry) (*held.Landed, error) { panic("not asked") }

func (o own) List(uint64, uint64, *held.Name, func(held.Status) (bool, error)) error {
	panic("not asked")
}

func (o own) Shard(n held.Name) (sh held.Shard, err error) {
	err = o.step(func() error {
		b, ok := o.shards[self][n]
		if !ok {
			return fault.New(fault.NotFound, "not here")
		}
		sh, err = stripe.Open(bytes.NewReader(b), int64(len(b)))
		return err
	})
	return sh, err
}

func (w *world) Commit(rows map[string][]byte) error {
	return w.step(func() error { maps.Copy(w.rows, rows); return nil })
}

func (w *world) Get(key string) ([]byte, bool, error) { v, ok := w.rows[key]; return v, ok, nil }

// evict makes what evicts, as after a start.
func (w *world) evict() *Evict {
	return New(Options{
		Self: self, Rule: Rule{Above: 90, Below: 80, Untouched: 24 * time.Hour},
		Packs: w, Copies: w, Spread: w, Holders: w, Own: own{w}, Rows: w,
		Placement: func() *placement.State { return w.state },
		Site:      func(node string) (string, bool) { return w.sites[node], !w.lost[node] },
		Seals: func(id [16]byte) (all []catalog.Seal, err error) {
			m := w.packs[id]
			for range 1 + w.more {
				all = append(all, catalog.Seal{SealFact: m.seal, Deleted: m.deleted})
			}
			return all, nil
		},
		Survives: func(context.Context, pack.ID) error { return w.step(func() error { return w.survives }) },
		Disk: func() (Disk, error) {
			return Disk{Used: w.used, Size: w.size, Returning: w.returning, Ballast: w.ballast, Room: w.room}, nil
		},
		Doubt: func(n held.Name, _ string) { w.doubted = append(w.doubted, n) },
	})
}

func TestACopyGoesOnceItsShardIsWrittenAndTheNetworkKnows(t *testing.T) {
	w := four(t)
	m := w.add(1)
	e := w.evict()
	for range 3 { // told, and not committed
		if freed, err := e.Pack(t.Context(), m.id); freed != 0 || err != nil && !fault.Is(err, fault.Conflict) {
			t.Fatalf("%d, %v", freed, err)
		}
	}
	if m.evicted || m.told == nil || m.told.Virtual != catalog.NoShard || m.told.Receipts != m.seal.Receipts || m.told.Base != 3 || m.told.Revision != 4 {
		t.Fatalf("evicted %v, told %+v", m.evicted, m.told)
	}
	if _, ok := w.shards[self][m.name(m.seal.Virtual)]; !ok {
		t.Error("its shard is not here")
	}
	w.commit()
	if freed, err := e.Pack(t.Context(), m.id); freed != 10 || err != nil || !m.evicted {
		t.Errorf("%d, %v", freed, err)
	}
	if len(w.doubted) != 0 {
		t.Errorf("doubted %v", w.doubted)
	}
}

// At whatever step the process ends, before it had an effect or behind it, the next one
// goes on, and a copy never goes before its time ([world.Evict]).
func TestWhereverItIsCutOffNothingIsLostAndTheNextGoesOn(t *testing.T) {
	for _, behind := range []bool{false, true} {
		for fail := 1; ; fail++ {
			w := four(t)
			m := w.add(byte(fail))
			w.fail, w.behind = fail, behind
			for range 6 {
				if _, err := w.evict().Pack(t.Context(), m.id); err != nil && !errors.Is(err, errStep) {
					t.Errorf("cut off at %d, behind it %v: %v", fail, behind, err)
				}
				if m.evicted {
					break
				}
				w.commit()
			}
			if !m.evicted {
				t.Errorf("cut off at %d, behind it %v: it does not go on", fail, behind)
			}
			if w.calls < fail { // all of it went without
				if fail < 12 {
					t.Errorf("an eviction has %d steps", fail)
				}
				break
			}
		}
	}
}

func TestTheShardGoesToItsOwnerAtAnotherNodeOfTheSite(t *testing.T) {
	w := newWorld(t, map[string]string{"n0": "s0", "n1": "s1", "n2": "s2", "n3": "s3", "n9": "s0"}, 4)
	owners := map[string]int{}
	for seed := range 12 {
		m := w.add(byte(seed))
		owner, _ := w.state.Owner(m.head.Stripe, m.seal.Virtual)
		owners[owner.ID]++
		virtual := m.seal.Virtual
		for range 2 {
			if _, err := w.evict().Pack(t.Context(), m.id); err != nil {
				t.Fatal(err)
			}
			w.commit()
		}
		if _, ok := w.shards[owner.ID][m.name(virtual)]; !ok || !m.evicted {
			t.Errorf("its shard is not at %s, evicted %v", owner.ID, m.evicted)
		}
	}
	if owners["n9"] == 0 || owners["n0"] == 0 || len(owners) != 2 {
		t.Fatalf("owners %v: the test proves nothing", owners)
	}
}

func TestNothingGoesThatMightNotSurvive(t *testing.T) {
	for name, change := range map[string]func(w *world, m *made){
		"a receipt is missing":           func(_ *world, m *made) { m.seal.Receipts &^= 1 },
		"a shard is not at its holder":   func(w *world, m *made) { clear(w.shards["n2"]) },
		"a shard is rotten":              func(w *world, m *made) { clear(w.shards["n3"]); w.shards["n3"] = rotten(w, m, "n3") },
		"a holder is lost":               func(w *world, _ *made) { w.lost["n1"] = true },
		"a holder is no member any more": func(w *world, _ *made) { delete(w.sites, "n1") },
		"two shards are at one site":     func(w *world, _ *made) { w.sites["n1"] = "s2" },
		"one stands in at the same site": func(w *world, m *made) { m.seal.Elsewhere = []catalog.Elsewhere{{Shard: other(m), Node: self}} },
		"the layout is changing":         func(w *world, _ *made) { w.state.View.Old = w.state.View.New },
		"they are placed by a later row": func(_ *world, m *made) { m.seal.Layout++ },
		"the network wants another code": func(w *world, _ *made) { w.state.Code = shard.Code{K: 3, M: 3} },
		"the network survives more":      func(w *world, _ *made) { w.state.Survives = 3 },
		"it is striped anew":             func(w *world, _ *made) { w.more = 1 },
		"it was never striped":           func(w *world, _ *made) { w.more = -1 },
		"it is deleted":                  func(_ *world, m *made) { m.deleted = true },
		"it is another node's":           func(_ *world, m *made) { m.seal.Origin = "n1" },
		"the head is of another stripe":  func(_ *world, m *made) { m.seal.Root[0] ^= 1 },
		"commitment would not be given":  func(w *world, _ *made) { w.survives = fault.New(fault.Unavailable, "too few keys") },
		"there is no room for its shard": func(w *world, _ *made) { w.refused = fault.New(fault.Full, "no room") },
		"the copy is rotten":             func(_ *world, m *made) { m.ciphertext[1000] ^= 1 },
	} {
		w := four(t)
		m := w.add(7)
		change(w, m)
		var last error
		for range 5 {
			if _, err := w.evict().Pack(t.Context(), m.id); err != nil {
				last = err
			}
			w.commit()
		}
		if m.evicted || last == nil {
			t.Errorf("%s: it goes, %v", name, last)
		}
		if missing := name == "a shard is not at its holder" || name == "a shard is rotten"; missing != (len(w.doubted) > 0) {
			t.Errorf("%s: doubted %v", name, w.doubted)
		}
	}
}

// Seals are not told anew when a change of the layout is complete: copies of packs that
// were sealed before one go all the same, by where their shards are now.
func TestACopyGoesThatWasSealedBeforeTheLayoutChanged(t *testing.T) {
	w := four(t)
	m := w.add(7)
	m.seal.Layout--
	if _, err := w.evict().Pack(t.Context(), m.id); err != nil {
		t.Fatal(err)
	}
	w.commit()
	if m.seal.Layout != w.state.View.New.Version || m.seal.Virtual != catalog.NoShard {
		t.Errorf("told %+v", m.seal)
	}
	if _, err := w.evict().Pack(t.Context(), m.id); err != nil || !m.evicted {
		t.Errorf("evicted %v, %v", m.evicted, err)
	}
}

// Between the news and the eviction days may pass: all is proved again.
func TestWhatWasProvedBeforeIsProvedAgainBeforeTheCopyGoes(t *testing.T) {
	for _, node := range []string{self, "n1", "n2", "n3"} {
		w := four(t)
		m := w.add(7)
		if _, err := w.evict().Pack(t.Context(), m.id); err != nil {
			t.Fatal(err)
		}
		w.commit()
		kept := w.shards[node]
		w.shards[node] = map[held.Name][]byte{}
		if _, err := w.evict().Pack(t.Context(), m.id); !fault.Is(err, fault.NotFound) || m.evicted || len(w.doubted) != 1 {
			t.Errorf("%s lost its shard: evicted %v, doubted %v, %v", node, m.evicted, w.doubted, err)
		}
		w.shards[node] = kept
		if _, err := w.evict().Pack(t.Context(), m.id); err != nil || !m.evicted {
			t.Errorf("%s has it again: evicted %v, %v", node, m.evicted, err)
		}
	}
}

// other is a shard that is not virtual.
func other(m *made) int { return (m.seal.Virtual + 1) % m.head.Code.N() }

func rotten(w *world, m *made, node string) map[held.Name][]byte {
	for i := range m.shards {
		if owner, _ := w.state.Owner(m.head.Stripe, i); owner.ID == node {
			b := bytes.Clone(m.shards[i])
			b[len(b)/2] ^= 1
			return map[held.Name][]byte{m.name(i): b}
		}
	}
	return nil
}

func TestWhatChangesWhileItIsProvedBeginsAnew(t *testing.T) {
	for name, change := range map[string]func(w *world, m *made){
		"other news":       func(_ *world, m *made) { m.seal.Revision++ },
		"another layout":   func(w *world, _ *made) { next := *w.state; w.state = &next },
		"it takes a while": func(*world, *made) { time.Sleep(25 * time.Hour) },
		"a receipt is withdrawn": func(_ *world, m *made) {
			m.seal.Revision++
			m.seal.Receipts &^= 1
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := four(t)
			m := w.add(7)
			if _, err := w.evict().Pack(t.Context(), m.id); err != nil {
				t.Fatal(err)
			}
			w.commit()
			w.proved = func() { change(w, m); w.proved = nil }
			if _, err := w.evict().Pack(t.Context(), m.id); err == nil || m.evicted {
				t.Errorf("%s: evicted %v, %v", name, m.evicted, err)
			}
		})
	}
}

func TestCopiesGoFromTheHighMarkToTheLowOneTheLongestUntouchedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour) // since 1 January 2000
		w := four(t)
		var all []*made
		for i := range 6 {
			all = append(all, w.add(byte(i)))
		}
		hours := func(ago int) []byte {
			return binary.BigEndian.AppendUint32(nil, uint32(hourOf(time.Now()))-uint32(ago))
		}
		w.rows[string(all[1].id[:])] = hours(500) // the others: never, as far as is known
		w.rows[string(all[2].id[:])] = hours(900)
		w.rows[string(all[3].id[:])] = hours(2) // too lately
		e := w.evict()
		e.Touched(all[0].id)
		run := func() (gone []int) {
			for range 2 {
				if err := e.round(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				w.commit()
			}
			for i, m := range all {
				if m.evicted {
					gone = append(gone, i)
				}
			}
			return gone
		}
		w.used = 90 // the mark itself
		if gone := run(); gone != nil {
			t.Errorf("at the mark %v go", gone)
		}
		w.used = 95
		if gone := run(); !slices.Equal(gone, []int{4, 5}) || w.used != 75 {
			t.Errorf("%v went, %d are in use", gone, w.used)
		}
		w.used = 91
		if gone := run(); !slices.Equal(gone, []int{1, 2, 4, 5}) {
			t.Errorf("%v went", gone)
		}
		w.used = 99
		if gone := run(); !slices.Equal(gone, []int{1, 2, 4, 5}) {
			t.Errorf("%v went: of the others one came and one was opened within the day", gone)
		}
		time.Sleep(25 * time.Hour)
		w.used = 99
		if gone := run(); len(gone) != 6 || e.Counters().Packs.Load() != 6 || e.Counters().Bytes.Load() != 60 {
			t.Errorf("%v went", gone)
		}
	})
}

// Room comes back when tables are rewritten, long after the copies in them went: no more
// go meanwhile, unless there is hardly any room for that.
func TestNoMoreGoesThanIsNeededWhileTheRoomIsYetToComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		ballast int64
		want    int
	}{
		"there is room to wait": {2, 2},
		"there is none":         {3, 4},
	} {
		w := four(t)
		var all []*made
		for i := range 4 {
			all = append(all, w.add(byte(i)))
		}
		w.used, w.size, w.ballast, w.slow = 91, 100, test.ballast, true
		e := w.evict()
		gone := func() (n int) {
			for range 6 { // rounds
				if err := e.round(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				w.commit()
			}
			for _, m := range all {
				if m.evicted {
					n++
				}
			}
			return n
		}
		if n := gone(); n != test.want {
			t.Errorf("%s: %d of 4 went", name, n)
		}
		w.used, w.returning = w.used-w.returning, 0 // tables were rewritten
		if n := gone(); n != test.want {
			t.Errorf("%s: %d of 4 went in the end", name, n)
		}
	}
}

func TestAPackThatMayNotGoDoesNotKeepOthersFromGoing(t *testing.T) {
	w := four(t)
	stays, goes := w.add(1), w.add(2)
	stays.seal.Receipts = 1
	e := w.evict()
	for range 2 {
		if err := e.round(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		w.commit()
	}
	if stays.evicted || !goes.evicted || e.Counters().Refused.Load() == 0 {
		t.Errorf("%v, %v", stays.evicted, goes.evicted)
	}
}

// Room that is kept for shards counts as used, with all else as it is: what may not go
// stays, though there is less room than there should be.
func TestRoomForShardsCountsAsUsed(t *testing.T) {
	w := four(t)
	var all []*made
	for i := range 4 {
		all = append(all, w.add(byte(i)))
	}
	e := w.evict()
	run := func() (gone int) {
		for range 6 {
			if err := e.round(t.Context(), &work.Progress{}); err != nil {
				t.Fatal(err)
			}
			w.commit()
		}
		for _, m := range all {
			if m.evicted {
				gone++
			}
		}
		return gone
	}
	w.used, w.room = 70, 20 // the mark itself
	if gone := run(); gone != 0 {
		t.Errorf("%d went at the mark", gone)
	}
	w.room = 21
	old := w.state
	w.state = &placement.State{View: layout.View{New: mustCompute(t, old.View.New, w), Old: old.View.New}, Code: old.Code, Survives: old.Survives}
	if gone := run(); gone != 0 {
		t.Errorf("%d went while the layout changed", gone)
	}
	w.state = old
	w.survives = errStep
	if gone := run(); gone != 0 {
		t.Errorf("%d went that storage commitment would not be given for", gone)
	}
	w.survives = nil
	if gone := run(); gone != 2 || w.used != 50 {
		t.Errorf("%d went above the mark, %d are in use", gone, w.used)
	}
	w.used, w.room, w.returning = 80, 30, 20 // comes back by itself
	if gone := run(); gone != 2 {
		t.Errorf("%d went for what comes back by itself", gone)
	}
}

func mustCompute(t *testing.T, from *layout.Layout, w *world) *layout.Layout {
	var all []layout.Holder
	for _, n := range from.Nodes {
		all = append(all, layout.Holder{Node: n})
	}
	l, err := layout.Compute(from, all, from.Shards)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNothingGoesWithoutARule(t *testing.T) {
	w := four(t)
	m := w.add(1)
	w.used = 100
	e := w.evict()
	e.o.Rule = Rule{}
	for range 3 {
		if err := e.round(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		w.commit()
	}
	if m.evicted || w.calls != 0 {
		t.Errorf("evicted %v, %d calls", m.evicted, w.calls)
	}
}
