package virtual

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/bulk/bulktest"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
	"pelago/shard/stripe/stripetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a pack's ciphertext, its stripe, and the shards as they travel.
type made struct {
	head       *stripe.Head
	ciphertext []byte
	shards     [][]byte
}

func encode(t testing.TB, seed byte, c shard.Code, plaintext int64) *made {
	t.Helper()
	head, ciphertext := stripetest.Random([32]byte{seed, 7}, stripe.Head{Code: c, Plaintext: plaintext})
	m := &made{ciphertext: ciphertext}
	m.head, m.shards = stripetest.Encode(t, stripe.NewCoder(), bytes.NewReader(ciphertext), head)
	return m
}

func (m *made) name(i int) held.Name { return held.Name{Stripe: m.head.Stripe, Index: i} }

// sameAs reports whether a shard is, leaf for leaf, the one that was encoded, and
// proves itself by the head.
func (m *made) sameAs(t testing.TB, sh held.Shard, index int) {
	t.Helper()
	want, err := stripe.Open(bytes.NewReader(m.shards[index]), int64(len(m.shards[index])))
	if err != nil {
		t.Fatal(err)
	}
	if sh.Index() != index || sh.Head().Root() != m.head.Root() {
		t.Fatalf("shard %d of another root, want %d", sh.Index(), index)
	}
	g, err := m.head.Geometry()
	if err != nil {
		t.Fatal(err)
	}
	leaves := (g.ShardBytes(index) + shard.LeafBytes - 1) / shard.LeafBytes
	data, proof, err := sh.Range(0, leaves)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.head.VerifyRange(index, 0, data, proof); err != nil {
		t.Error(err)
	}
	if plain, _, err := want.Range(0, leaves); err != nil || !bytes.Equal(plain, data) {
		t.Errorf("shard %d has other bytes, %v", index, err)
	}
	tail, wantTail := sh.Tail(), want.Tail()
	if (tail == nil) != (wantTail == nil) {
		t.Fatalf("shard %d: its tail is %v", index, tail)
	}
	if tail != nil {
		a, err1 := io.ReadAll(tail)
		b, err2 := io.ReadAll(wantTail)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("shard %d has another tail, %v, %v", index, err1, err2)
		}
	}
}

// origin has the packs of a node and their heads, as archive and spread do. Its
// packs are in memory, or in a real bulk store.
type origin struct {
	mu    sync.Mutex
	packs map[pack.ID]*archivepb.Pack
	bytes map[pack.ID]io.ReaderAt
	heads map[shard.Stripe]*stripe.Head
	bulk  *bulk.Store

	read   atomic.Int64 // bytes, from memory
	rotten []shard.Stripe
}

func newOrigin() *origin {
	return &origin{packs: map[pack.ID]*archivepb.Pack{}, bytes: map[pack.ID]io.ReaderAt{}, heads: map[shard.Stripe]*stripe.Head{}}
}

func record(m *made, ref bulk.Ref) *archivepb.Pack {
	return &archivepb.Pack{Id: m.head.Stripe.Pack[:], Space: uint32(ref.Space), Table: ref.Table, Blob: ref.Blob,
		BlobBytes: int64(len(m.ciphertext)), Root: m.head.Pack[:]}
}

// add adds a pack at a place.
func (o *origin) add(m *made, from io.ReaderAt, ref bulk.Ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := pack.ID(m.head.Stripe.Pack)
	o.packs[id], o.bytes[id], o.heads[m.head.Stripe] = record(m, ref), from, m.head
}

// inMemory adds a pack whose reading is counted.
func (o *origin) inMemory(m *made, table uint64) {
	o.add(m, &counted{o, bytes.NewReader(m.ciphertext)}, bulk.Ref{Space: bulk.Hot, Table: table})
}

type counted struct {
	of   *origin
	from io.ReaderAt
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.from.ReadAt(p, off)
	c.of.read.Add(int64(n))
	return n, err
}

// atRest adds packs that rest in a real store, in one table.
func (o *origin) atRest(t testing.TB, all ...*made) {
	t.Helper()
	table, err := o.bulk.NewTable(bulk.Hot)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		w, err := table.Add()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.ciphertext); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	refs, err := table.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		o.add(m, o.bulk.Reader(refs[i]), refs[i])
	}
}

// lost is bulk's report.
func (o *origin) lost(refs []bulk.Ref, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.packs {
		for _, r := range refs {
			if refOf(p) == r {
				p.Lost = true
			}
		}
	}
}

func (o *origin) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.packs[id]
	if p == nil {
		return nil, nil, fault.New(fault.NotFound, "no such pack")
	}
	if p.Lost {
		return nil, nil, fault.New(fault.Corrupt, "the pack is lost")
	}
	return p, o.bytes[id], nil
}

func (o *origin) Head(of shard.Stripe) (*stripe.Head, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.heads[of]; h != nil {
		return h, nil
	}
	return nil, fault.New(fault.NotFound, "no head")
}

// told is Options.Rotten.
func (o *origin) told(of shard.Stripe, _ error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rotten = append(o.rotten, of)
}

// none holds no shards.
type none struct{}

func (none) Shard(n held.Name) (held.Shard, error) {
	return nil, fault.New(fault.NotFound, "shard %v is not here", n)
}

// source makes a source of an origin.
func (o *origin) source(t testing.TB, change func(*Options)) *Source {
	t.Helper()
	opts := Options{Held: none{}, Hot: o, Heads: o, Rotten: o.told}
	if change != nil {
		change(&opts)
	}
	s := New(opts)
	t.Cleanup(s.Close)
	return s
}

func wantKind(t testing.TB, what string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestEveryShardIsCutAsItWasEncoded(t *testing.T) {
	for _, c := range []shard.Code{{K: 1, M: 2}, {K: 2, M: 2}, {K: 3, M: 3}, {K: 5, M: 4}} {
		m := encode(t, byte(c.K), c, 1<<20+77)
		o := newOrigin()
		o.inMemory(m, 1)
		s := o.source(t, nil)
		for i := range c.N() {
			sh, err := s.Shard(m.name(i))
			if err != nil {
				t.Fatalf("%v, shard %d: %v", c, i, err)
			}
			m.sameAs(t, sh, i)
		}
		for _, i := range []int{c.N(), shard.MaxShards, -1} {
			_, err := s.Shard(m.name(i))
			wantKind(t, "a shard that the stripe does not have", err, fault.NotFound)
		}
		other := m.name(0)
		other.Generation++
		_, err := s.Shard(other)
		wantKind(t, "a generation without a head", err, fault.NotFound)
		other.Pack[0]++
		_, err = s.Shard(other)
		wantKind(t, "another node's pack", err, fault.NotFound)
	}
}

// one is a holder of one shard.
type one struct {
	name held.Name
	is   held.Shard
	err  error
}

func (o one) Shard(n held.Name) (held.Shard, error) {
	if n == o.name {
		return o.is, o.err
	}
	return none{}.Shard(n)
}

func TestWhatRestsHereGoesBeforeWhatWouldBeCut(t *testing.T) {
	m := encode(t, 1, shard.Code{K: 2, M: 2}, 1<<20)
	rests, err := stripe.Open(bytes.NewReader(m.shards[1]), int64(len(m.shards[1])))
	if err != nil {
		t.Fatal(err)
	}
	o := newOrigin()
	o.inMemory(m, 1)
	s := o.source(t, func(o *Options) { o.Held = one{name: m.name(1), is: rests} })
	if sh, err := s.Shard(m.name(1)); err != nil || sh != held.Shard(rests) {
		t.Errorf("%v, %v", sh, err)
	}
	if o.read.Load() != 0 {
		t.Error("the copy was read for nothing")
	}
	for what, err := range map[string]error{"not here": fault.New(fault.NotFound, "gone"), "lost": fault.New(fault.Corrupt, "rotten")} {
		s := o.source(t, func(o *Options) { o.Held = one{name: m.name(1), err: err} })
		sh, err := s.Shard(m.name(1))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		m.sameAs(t, sh, 1)
	}
	// Without a copy the answer is that of the one at rest.
	s = newOrigin().source(t, func(o *Options) { o.Held = one{name: m.name(1), err: fault.New(fault.Corrupt, "rotten")} })
	_, err = s.Shard(m.name(1))
	wantKind(t, "rotten, and no copy", err, fault.Corrupt)
	s = o.source(t, func(o *Options) { o.Held = one{name: m.name(1), err: fault.New(fault.Unavailable, "disk")} })
	_, err = s.Shard(m.name(1))
	wantKind(t, "a disk that does not answer", err, fault.Unavailable)
}

func TestACopyIsVerifiedOnceForAllWhoAsk(t *testing.T) {
	m := encode(t, 1, shard.Code{K: 3, M: 3}, 2<<20)
	o := newOrigin()
	o.inMemory(m, 1)
	s := o.source(t, nil)
	var asking sync.WaitGroup
	for i := range 48 {
		asking.Go(func() {
			sh, err := s.Shard(m.name(i % 3)) // columns: none of them reads the copy again
			if err != nil {
				t.Error(err)
				return
			}
			if _, _, err := sh.Range(int64(i%2), 1); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if read, most := o.read.Load(), int64(len(m.ciphertext)+48*shard.LeafBytes); read > most || read < int64(len(m.ciphertext)) {
		t.Errorf("%d bytes were read, of a copy of %d", read, len(m.ciphertext))
	}
}

func TestMemoryOfWhatWasVerifiedIsBounded(t *testing.T) {
	o := newOrigin()
	var all []*made
	for i := range 8 {
		all = append(all, encode(t, byte(i), shard.Code{K: 2, M: 1}, 1<<20))
		o.inMemory(all[i], uint64(i+1))
	}
	// Room for about two copies and what is cut from them.
	s := o.source(t, func(o *Options) { o.Bytes = 2 * (64*70 + 1024) })
	once := func(m *made) int64 {
		before := o.read.Load()
		if _, err := s.Shard(m.name(0)); err != nil {
			t.Fatal(err)
		}
		return o.read.Load() - before
	}
	for _, m := range all {
		if once(m) == 0 {
			t.Error("it was not verified")
		}
	}
	if once(all[7]) != 0 {
		t.Error("what was asked for last is verified again")
	}
	if once(all[0]) == 0 {
		t.Error("eight copies are kept where two have room")
	}
}

func TestRotIsMetBeforeAnythingIsCut(t *testing.T) {
	fs := vfs.NewMem()
	o := newOrigin()
	open := func() {
		var err error
		if o.bulk, err = bulk.Open(bulk.Options{FS: fs, Dir: "bulk", Lost: o.lost}); err != nil {
			t.Fatal(err)
		}
	}
	open()
	defer func() { o.bulk.Close() }()
	rotten, whole := encode(t, 1, shard.Code{K: 2, M: 1}, 1<<20), encode(t, 2, shard.Code{K: 2, M: 1}, 1<<20)
	o.atRest(t, rotten, whole)
	if err := o.bulk.Close(); err != nil { // nothing stays in its cache
		t.Fatal(err)
	}
	names, err := fs.List("bulk/tables")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			bulktest.Rot(t, fs, "bulk/tables/"+name, 700_000) // in the second column of the first
		}
	}
	open()
	for _, m := range []*made{rotten, whole} {
		o.add(m, o.bulk.Reader(refOf(o.packs[pack.ID(m.head.Stripe.Pack)])), refOf(o.packs[pack.ID(m.head.Stripe.Pack)]))
	}
	s := o.source(t, nil)
	_, err = s.Shard(rotten.name(0))
	wantKind(t, "a column that is whole, of a copy that is not", err, fault.Corrupt)
	if !o.packs[pack.ID(rotten.head.Stripe.Pack)].Lost {
		t.Error("the archive was not told")
	}
	_, err = s.Shard(rotten.name(1))
	wantKind(t, "later", err, fault.Corrupt)
	wantKind(t, "its verification", s.Verify(t.Context(), rotten.head.Stripe), fault.Corrupt)
	sh, err := s.Shard(whole.name(2))
	if err != nil {
		t.Fatal(err)
	}
	whole.sameAs(t, sh, 2)
	if err := s.Verify(t.Context(), whole.head.Stripe); err != nil {
		t.Error(err)
	}
}

func TestOtherBytesAreToldOfAndNotReadAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := encode(t, 1, shard.Code{K: 2, M: 1}, 1<<20)
		o := newOrigin()
		o.inMemory(m, 1)
		m.ciphertext[900_000] ^= 1 // checksums of bulk/ would not notice
		s := o.source(t, nil)
		defer s.Close()
		_, err := s.Shard(m.name(0))
		wantKind(t, "a copy with a wrong bit", err, fault.Corrupt)
		read := o.read.Load()
		for range 5 {
			_, err := s.Shard(m.name(0))
			wantKind(t, "asked again", err, fault.Corrupt)
		}
		if o.read.Load() != read || len(o.rotten) != 1 || o.rotten[0] != m.head.Stripe {
			t.Errorf("%d bytes more were read; told of %v", o.read.Load()-read, o.rotten)
		}
		time.Sleep(2 * doubted)
		m.ciphertext[900_000] ^= 1
		sh, err := s.Shard(m.name(0))
		if err != nil {
			t.Fatalf("it was mended: %v", err)
		}
		m.sameAs(t, sh, 0)
		m.ciphertext[100] ^= 1 // of a copy that was verified
		_, _, err = sh.Range(0, 1)
		wantKind(t, "a leaf that changed", err, fault.Corrupt)
		if len(o.rotten) != 2 {
			t.Errorf("told of %v", o.rotten)
		}
		_, err = s.Shard(m.name(0))
		wantKind(t, "the copy since", err, fault.Corrupt)
	})
}

func TestAHeadOfOtherBytesIsNotTheCopysFault(t *testing.T) {
	m, other := encode(t, 1, shard.Code{K: 2, M: 1}, 1<<20), encode(t, 2, shard.Code{K: 2, M: 1}, 1<<20)
	o := newOrigin()
	o.inMemory(m, 1)
	head := *other.head
	head.Stripe = m.head.Stripe
	o.heads[m.head.Stripe] = &head
	s := o.source(t, nil)
	_, err := s.Shard(m.name(0))
	wantKind(t, "a head of another pack", err, fault.Corrupt)
	wantKind(t, "its verification", s.Verify(t.Context(), m.head.Stripe), fault.Corrupt)
	if len(o.rotten) != 0 {
		t.Error("the copy was called rotten")
	}
}

func TestACopyThatMovedIsVerifiedWhereItIs(t *testing.T) {
	m := encode(t, 1, shard.Code{K: 2, M: 1}, 1<<20)
	o := newOrigin()
	o.inMemory(m, 1)
	s := o.source(t, nil)
	if _, err := s.Shard(m.name(0)); err != nil {
		t.Fatal(err)
	}
	before := o.read.Load()
	o.inMemory(m, 2)
	sh, err := s.Shard(m.name(0))
	if err != nil {
		t.Fatal(err)
	}
	m.sameAs(t, sh, 0)
	if o.read.Load()-before < int64(len(m.ciphertext)) {
		t.Error("it was not verified at its new place")
	}
	o.mu.Lock()
	delete(o.packs, pack.ID(m.head.Stripe.Pack))
	o.mu.Unlock()
	_, err = s.Shard(m.name(0))
	wantKind(t, "a copy that went", err, fault.NotFound)
	wantKind(t, "its verification", s.Verify(t.Context(), m.head.Stripe), fault.NotFound)
}

// stuck is a disk that does not answer until it is let go.
type stuck struct {
	from    io.ReaderAt
	reading chan struct{}
	once    sync.Once
	letGo   chan struct{}
}

func (s *stuck) ReadAt(p []byte, off int64) (int, error) {
	s.once.Do(func() { close(s.reading) })
	<-s.letGo
	return s.from.ReadAt(p, off)
}

func TestCloseEndsWhoWaits(t *testing.T) {
	m := encode(t, 1, shard.Code{K: 2, M: 1}, 1<<20)
	o := newOrigin()
	disk := &stuck{from: bytes.NewReader(m.ciphertext), reading: make(chan struct{}), letGo: make(chan struct{})}
	o.add(m, disk, bulk.Ref{Space: bulk.Hot, Table: 1})
	s := New(Options{Held: none{}, Hot: o, Heads: o, Rotten: o.told})
	failed := make(chan error)
	go func() {
		_, err := s.Shard(m.name(0))
		failed <- err
	}()
	<-disk.reading
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	wantKind(t, "who waited", <-failed, fault.Unavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	close(disk.letGo)
	<-closed
	_, err := s.Shard(m.name(0))
	wantKind(t, "who asks afterwards", err, fault.Unavailable)
	if err := s.Verify(ctx, m.head.Stripe); err == nil {
		t.Error("a verification whose context ended is a success")
	}
	if len(o.rotten) != 0 {
		t.Error("ending a verification is no rot")
	}
}
