package held

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/shard"
	"pelago/shard/bulk"
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
}

// encode makes a stripe of random bytes of a plaintext's length, a tenth of it its
// manifest.
func encode(t testing.TB, seed uint64, c shard.Code, plaintext int64) *made {
	t.Helper()
	seeds := [32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 7}
	head, ciphertext := stripetest.Random(seeds, stripe.Head{Code: c, Plaintext: plaintext})
	m := &made{ciphertext: ciphertext}
	m.head, m.shards = stripetest.Encode(t, stripe.NewCoder(), bytes.NewReader(ciphertext), head)
	return m
}

func (m *made) name(i int) Name   { return Name{m.head.Stripe, i} }
func (m *made) entry(i int) Entry { return Entry{m.name(i), m.head.Root()} }
func (m *made) claim(i int) Claim { return Claim{m.entry(i), int64(len(m.shards[i]))} }

// offered is a shard with its claim.
type offered struct {
	Claim
	bytes []byte
}

func (m *made) offer(i int) offered { return offered{m.claim(i), m.shards[i]} }

// batch puts shards in order, as claims and bytes.
func batch(shards ...offered) (claims []Claim, body []byte) {
	slices.SortFunc(shards, func(a, b offered) int { return Compare(a.Name, b.Name) })
	for _, s := range shards {
		claims, body = append(claims, s.Claim), append(body, s.bytes...)
	}
	return claims, body
}

// pebbleRows are rows in a Pebble of their own, as those of store/ are.
type pebbleRows struct{ db *pebble.DB }

func openRows(t testing.TB, fs vfs.FS, dir string) *pebbleRows {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	return &pebbleRows{db}
}

type silent struct{}

func (silent) Infof(string, ...any)      {}
func (silent) Errorf(string, ...any)     {}
func (silent) Fatalf(f string, a ...any) { panic(f) }

func (r *pebbleRows) Commit(rows map[string][]byte) error {
	b := r.db.NewBatch()
	defer b.Close()
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		var err error
		if rows[k] == nil {
			err = b.Delete([]byte(k), nil)
		} else {
			err = b.Set([]byte(k), rows[k], nil)
		}
		if err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (r *pebbleRows) Get(key string) ([]byte, bool, error) {
	v, c, err := r.db.Get([]byte(key))
	if err == pebble.ErrNotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	return bytes.Clone(v), true, nil
}

func (r *pebbleRows) From(key string, visit func(string, []byte) (bool, error)) error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: []byte(key)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		more, err := visit(string(it.Key()), it.Value())
		if err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// memRows are rows in memory, for tests on virtual time.
type memRows struct {
	volatile.Rows
	mu   sync.Mutex
	fail error // of the next Commit
	// failAt counts down: the Commit at which it is 1 fails.
	failAt int
}

func newMemRows() *memRows { return &memRows{} }

func (m *memRows) Commit(rows map[string][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	if m.failAt > 0 {
		if m.failAt--; m.failAt == 0 {
			return errors.New("no rows")
		}
	}
	return m.Rows.Commit(rows)
}

// holder is a node that holds shards, on a file system.
type holder struct {
	*Store
	t    testing.TB
	fs   vfs.FS
	self *identity.Node
	rows Rows
	bulk *bulk.Store
	o    Options

	mu        sync.Mutex
	lost      []Name
	conflicts []Entry
}

// open opens a holder in a file system; change sets options.
func open(t testing.TB, fs vfs.FS, change func(*Options)) *holder {
	t.Helper()
	h := &holder{t: t, fs: fs, self: testIdentity(t)}
	h.rows = openRows(t, fs, "data/store")
	h.start(change)
	return h
}

// testIdentity is one for all tests of a process: making keys is not what they test.
var testIdentity = func() func(testing.TB) *identity.Node {
	var once sync.Once
	var self *identity.Node
	return func(t testing.TB) *identity.Node {
		once.Do(func() {
			var err error
			if self, err = identity.Open(vfs.NewMem(), "keys"); err != nil {
				t.Fatal(err)
			}
		})
		return self
	}
}()

func (h *holder) start(change func(*Options)) {
	h.t.Helper()
	var err error
	var late *Store
	h.bulk, err = bulk.Open(bulk.Options{FS: h.fs, Dir: "data/bulk", CacheBytes: 1 << 20, Lost: func(refs []bulk.Ref, cause error) {
		var err error
		if late == nil {
			err = NoteLost(h.rows, refs, cause)
		} else {
			err = late.BulkLost(refs, cause)
		}
		if err != nil {
			h.t.Error(err)
		}
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.o = Options{Self: h.self, Bulk: h.bulk, Rows: h.rows,
		OnLost: func(n Name, cause error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lost = append(h.lost, n)
			if cause == nil {
				h.t.Error("lost for no cause")
			}
		},
		OnConflict: func(e Entry, _ [32]byte) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.conflicts = append(h.conflicts, e)
		}}
	if change != nil {
		change(&h.o)
	}
	if h.Store, err = Open(h.o); err != nil {
		h.t.Fatal(err)
	}
	late = h.Store
}

func (h *holder) close() {
	h.t.Helper()
	if err := h.bulk.Close(); err != nil {
		h.t.Error(err)
	}
	if p, ok := h.rows.(*pebbleRows); ok {
		if err := p.db.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *holder) reopen() *holder {
	h.t.Helper()
	h.close()
	return open(h.t, h.fs, nil)
}

func (h *holder) told() []Name {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lost)
}

// land lands shards and checks that all are held afterwards, with a receipt that
// anybody can verify.
func (h *holder) land(shards ...offered) *Landed {
	h.t.Helper()
	claims, body := batch(shards...)
	l, err := h.Land(h.t.Context(), claims, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	h.checkReceipt(l, claims)
	return l
}

func (h *holder) checkReceipt(l *Landed, claims []Claim) {
	h.t.Helper()
	for i, c := range claims {
		if !l.Outcomes[i].Here() || l.Receipt == nil || !l.Receipt.Covers(c.Entry) {
			h.t.Fatalf("shard %v: %v, receipt %v", c.Name, l.Outcomes[i], l.Receipt)
		}
	}
	if err := l.Receipt.Verify(h.self.Public()); err != nil {
		h.t.Fatal(err)
	}
}

// check reads a held shard whole, and compares.
func (h *holder) check(m *made, i int) {
	h.t.Helper()
	sh, err := h.Shard(m.name(i))
	if err != nil {
		h.t.Fatalf("shard %v: %v", m.name(i), err)
	}
	var b bytes.Buffer
	if err := sh.(*readable).Write(context.Background(), &b); err != nil || !bytes.Equal(b.Bytes(), m.shards[i]) {
		h.t.Fatalf("shard %v: %d of %d bytes: %v", m.name(i), b.Len(), len(m.shards[i]), err)
	}
}

func (h *holder) checkGone(n Name) {
	h.t.Helper()
	if _, err := h.Shard(n); !fault.Is(err, fault.NotFound) {
		h.t.Fatalf("shard %v: %v, want not found", n, err)
	}
}

// listed are the shards that a holder lists, by name.
func (h *holder) listed() map[Name]State {
	h.t.Helper()
	all := map[Name]State{}
	if err := h.List(0, 1<<64-1, nil, func(st Status) (bool, error) { all[st.Name] = st.State; return true, nil }); err != nil {
		h.t.Fatal(err)
	}
	return all
}

// blobs are those of held shards in bulk/.
func (h *holder) blobs() (refs []bulk.Ref) {
	h.t.Helper()
	if err := h.bulk.Refs(bulk.Held, func(r bulk.Ref) error { refs = append(refs, r); return nil }); err != nil {
		h.t.Fatal(err)
	}
	return refs
}

// spreadOf is where a shard's pack is among all.
func spreadOf(n Name) uint64 { return binary.BigEndian.Uint64([]byte(keyShard(n)[1:9])) }

func bySpread(a, b Name) int {
	return cmp.Or(cmp.Compare(spreadOf(a), spreadOf(b)), Compare(a, b))
}

// otherKey is a node's key that is not the holder's.
func otherKey(t testing.TB) (ed25519.PublicKey, testSigner) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return public, testSigner{private}
}

type testSigner struct{ key ed25519.PrivateKey }

func (s testSigner) ID() string           { return identity.IDOf(s.key.Public().(ed25519.PublicKey)) }
func (s testSigner) Sign(m []byte) []byte { return ed25519.Sign(s.key, m) }

// syncs counts what waits for the disk.
type syncs struct{ n atomic.Int64 }

func (s *syncs) String() string { return "syncs" }

func (s *syncs) MaybeError(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		s.n.Add(1)
	}
	return nil
}

// inFolder makes relative paths those of a temporary folder.
func inFolder(t testing.TB) vfs.FS {
	t.Chdir(t.TempDir())
	return vfs.Default
}
