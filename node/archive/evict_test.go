package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/bulk"
	"pelago/shard/bulk/bulktest"
	"pelago/shard/pack"
)

// shardsOf stands for the shards of packs: their ciphertexts, as they were before
// eviction.
type shardsOf struct {
	mu    sync.Mutex
	bytes map[pack.ID][]byte
	down  bool
	reads int
}

func newShards() *shardsOf { return &shardsOf{bytes: map[pack.ID][]byte{}} }

// spread keeps the ciphertext of every pack of an archive.
func (s *shardsOf) spread(t testing.TB, a *Archive) (ids []pack.ID) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := a.EachPack(context.Background(), pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		id := pack.ID(p.Id)
		ids = append(ids, id)
		_, from, err := a.Ciphertext(id)
		if fault.Is(err, fault.NotFound) { // evicted
			return true, nil
		}
		if err != nil {
			return false, err
		}
		s.bytes[id] = make([]byte, p.BlobBytes)
		_, err = from.ReadAt(s.bytes[id], 0)
		return true, err
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}

// read is Options.Evicted.
func (s *shardsOf) read(p *archivepb.Pack) (io.ReaderAt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.bytes[pack.ID(p.Id)]
	if !ok || s.down {
		return nil, fault.New(fault.Unavailable, "no shards")
	}
	s.reads++
	return bytes.NewReader(b), nil
}

func evicting(fs vfs.FS, keys Keys, s *shardsOf) Options {
	o := testOptions(fs, keys)
	o.Evicted, o.ChunkBytes = s.read, 1
	return o
}

func TestAnEvictedPackIsReadFromItsShards(t *testing.T) {
	fs, keys, shards := vfs.NewMem(), newRing(), newShards()
	images := restingImages(t, evicting(fs, keys, shards), 16)
	b := open(t, evicting(fs, keys, shards))
	ids := shards.spread(t, b.Archive)
	if len(ids) != 4 {
		t.Fatalf("%d packs", len(ids))
	}
	before, err := b.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		freed, err := b.Evict(id)
		if err != nil || freed <= 0 {
			t.Fatalf("%d, %v", freed, err)
		}
		if again, err := b.Evict(id); err != nil || again != 0 {
			t.Errorf("again: %d, %v", again, err)
		}
		if _, _, err := b.Ciphertext(id); !fault.Is(err, fault.NotFound) {
			t.Errorf("its ciphertext: %v", err)
		}
		b.recalls(id, shards.bytes[id])
		if i == 1 {
			break // two of four
		}
	}
	b.recalls(ids[3], shards.bytes[ids[3]]) // a whole one
	if _, err := b.Evict(pack.ID{1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a pack that is not here: %v", err)
	}
	if _, _, err := b.Recall(pack.ID{1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a pack that is not here: %v", err)
	}
	for range 2 {
		for _, m := range images {
			b.same(m)
		}
		if r := b.sound(); r.Evicted != 2 || r.Packs != 4 || r.Instances != 16 {
			t.Errorf("%+v", r)
		}
		b.close()
		b = open(t, evicting(fs, keys, shards))
	}
	defer b.close()
	if shards.reads == 0 {
		t.Error("the shards were not read")
	}
	after, err := b.Usage()
	if err != nil || after.Hot > before.Hot {
		t.Errorf("%d bytes of hot copies, %d before, %v", after.Hot, before.Hot, err)
	}
	blobs := 0
	if err := b.bulk.Refs(bulk.Hot, func(bulk.Ref) error { blobs++; return nil }); err != nil || blobs != 2 {
		t.Errorf("%d blobs are left, %v", blobs, err)
	}
	// A lost table does not make an evicted pack lost.
	if evicted, err := b.Archive.pack(ids[0]); err != nil {
		t.Error(err)
	} else if b.lost([]bulk.Ref{packRef(evicted)}, errors.New("a test")); b.damage.noted.Load() {
		t.Error("an evicted pack is lost")
	}
	shards.down = true
	failed := 0
	for _, m := range images {
		if _, err := b.read(m); fault.Is(err, fault.Unavailable) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if failed != 8 {
		t.Errorf("%d images are unavailable without shards", failed)
	}
	// What is evicted is purged like any other.
	if err := b.Delete(t.Context(), images[0].study, "", "", "a test"); err != nil {
		t.Fatal(err)
	}
}

// recalls checks that all of a pack's ciphertext can be read.
func (b *bench) recalls(id pack.ID, want []byte) {
	b.t.Helper()
	p, from, err := b.Recall(id)
	if err != nil {
		b.t.Error(err)
		return
	}
	got := make([]byte, p.BlobBytes)
	if n, err := from.ReadAt(got, 0); n != len(got) || !bytes.Equal(got, want) {
		b.t.Errorf("%d bytes of its ciphertext, %v", n, err)
	}
}

func TestAReaderOutlivesTheEvictionOfItsPack(t *testing.T) {
	fs, keys, shards := vfs.NewMem(), newRing(), newShards()
	images := restingImages(t, evicting(fs, keys, shards), 8)
	b := open(t, evicting(fs, keys, shards))
	defer b.close()
	ids := shards.spread(t, b.Archive)
	type reader struct {
		m  image
		in Instance
	}
	var open []reader
	for _, m := range images {
		for ref, err := range b.Select(t.Context(), m.study, m.series, m.sop) {
			if err != nil {
				t.Fatal(err)
			}
			in, err := b.Open(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			open = append(open, reader{m, in})
		}
	}
	var reading sync.WaitGroup
	for _, r := range open {
		reading.Go(func() {
			want := r.m.encode(t)
			for range 20 {
				got := make([]byte, len(want))
				if n, err := r.in.Stored().ReadAt(got, 0); n != len(got) || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", r.m.sop, n, err)
					return
				}
			}
		})
	}
	for _, id := range ids {
		if _, err := b.Evict(id); err != nil {
			t.Error(err)
		}
	}
	reading.Wait()
	for _, m := range images {
		b.same(m)
	}
}

func TestALostPackIsNotEvictedAndNoneIsWhereNothingReadsShards(t *testing.T) {
	fs, keys, shards := vfs.NewMem(), newRing(), newShards()
	images := restingImages(t, evicting(fs, keys, shards), 4)
	b := open(t, evicting(fs, keys, shards))
	ids := shards.spread(t, b.Archive)
	b.lost([]bulk.Ref{b.refOf(images[0])}, errors.New("a test"))
	if _, err := b.Evict(ids[0]); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a lost pack: %v", err)
	}
	if _, _, err := b.Recall(ids[0]); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a lost pack: %v", err)
	}
	b.close()
	b = open(t, testOptions(fs, keys))
	defer b.close()
	if _, err := b.Evict(ids[0]); !fault.Is(err, fault.Unsupported) {
		t.Errorf("where nothing reads shards: %v", err)
	}
}

func TestWhatIsEvictedSurvivesABackup(t *testing.T) {
	keys, shards := newRing(), newShards()
	o := onDisk(t, keys)
	o.Evicted = shards.read
	b := open(t, o)
	var images []image
	for n := range 8 {
		images = append(images, serial(n))
		b.store(images[n])
	}
	b.pack()
	for _, id := range shards.spread(t, b.Archive)[:1] {
		if _, err := b.Evict(id); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(t.TempDir(), "backup")
	if err := b.Backup(t.Context(), to, nil); err != nil {
		t.Fatal(err)
	}
	b.close()
	o.Dir = filepath.Join(t.TempDir(), "restored")
	if err := Restore(t.Context(), to, o.Dir, nil); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	defer b.close()
	for _, m := range images {
		b.same(m)
	}
	if r := b.sound(); r.Evicted != 1 {
		t.Errorf("%+v", r)
	}
}

// cut loses power at an operation that is set while the disk is in use.
type cut struct {
	disk  *bulktest.Disk
	ops   atomic.Int64 // since it was armed
	at    atomic.Int64 // 0: never
	armed atomic.Bool
	once  sync.Once
	after *vfs.MemFS // what the disk holds then
	rng   *rand.Rand
}

func (c *cut) String() string { return "a power cut" }

// MaybeError implements [errorfs.Injector]: it injects nothing, but counts.
func (c *cut) MaybeError(errorfs.Op) error {
	if c.armed.Load() && c.ops.Add(1) == c.at.Load() {
		c.once.Do(func() {
			c.after = c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(101), RNG: c.rng})
		})
	}
	return nil
}

// Whatever operation of an eviction the power goes at, every instance can be read
// afterwards: from its pack, or, if the row says so, from the shards; and no blob is
// left that nothing names.
func TestACrashDuringAnEvictionLosesNothing(t *testing.T) {
	total := int64(0)
	for at := int64(0); at <= total; at++ {
		keys, shards := newRing(), newShards()
		c := &cut{disk: bulktest.NewDisk(), rng: rand.New(rand.NewPCG(uint64(at), 9))}
		images := restingImages(t, evicting(c.disk, keys, shards), 12)
		b := open(t, evicting(errorfs.Wrap(c.disk, c), keys, shards))
		ids := shards.spread(t, b.Archive)
		c.at.Store(at)
		c.armed.Store(true)
		for _, id := range ids[:2] {
			if _, err := b.Evict(id); err != nil {
				t.Fatal(err)
			}
		}
		c.armed.Store(false)
		if at == 0 {
			if total = c.ops.Load(); total < 4 {
				t.Fatalf("an eviction has %d operations", total)
			}
		}
		b.close()
		if c.after == nil {
			continue
		}
		b = open(t, evicting(bulktest.Over(c.after), keys, shards))
		for _, m := range images {
			b.same(m)
		}
		r := b.sound()
		blobs := uint64(0)
		if err := b.bulk.Refs(bulk.Hot, func(bulk.Ref) error { blobs++; return nil }); err != nil || blobs+r.Evicted != r.Packs {
			t.Errorf("%d blobs and %d evicted of %d packs, %v", blobs, r.Evicted, r.Packs, err)
		}
		if none, err := b.none([]byte{rowGone}); err != nil || !none {
			t.Errorf("a row says still that a blob is to be deleted: %v", err)
		}
		b.close()
		if t.Failed() {
			t.Fatalf("crash at operation %d of %d", at, total)
		}
	}
}
