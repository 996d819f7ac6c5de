package cached

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/shard/bulk"
	"pelago/shard/bulk/bulktest"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ring wraps keys as the node's does.
type ring struct{ epoch seal.Key }

func (r ring) Ready() error {
	if r.epoch == (seal.Key{}) {
		return fault.New(fault.Unavailable, "no epoch key")
	}
	return nil
}

func (r ring) Wrap(id [16]byte, key seal.Key) ([]byte, error) { return seal.Wrap(r.epoch, id, key) }

func (r ring) Unwrap(id [16]byte, wrapped []byte) (seal.Key, error) {
	if err := r.Ready(); err != nil {
		return seal.Key{}, err
	}
	return seal.Unwrap(r.epoch, id, wrapped)
}

// rows are rows of a Pebble, as *archive.Rows are.
type rows struct {
	db     *pebble.DB
	prefix string
}

func (r rows) Note(changes map[string][]byte) error {
	batch := r.db.NewBatch()
	defer batch.Close()
	for key, value := range changes {
		var err error
		if value == nil {
			err = batch.Delete([]byte(r.prefix+key), nil)
		} else {
			err = batch.Set([]byte(r.prefix+key), value, nil)
		}
		if err != nil {
			return err
		}
	}
	return batch.Commit(pebble.NoSync)
}

func (r rows) Get(key string) ([]byte, bool, error) {
	value, closer, err := r.db.Get([]byte(r.prefix + key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return bytes.Clone(value), true, closer.Close()
}

func (r rows) Each(visit func(key string, value []byte) error) error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: []byte(r.prefix), UpperBound: []byte(r.prefix[:1] + "0")}) // the character after the slash
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if err := visit(strings.TrimPrefix(string(it.Key()), r.prefix), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// disk is what copies rest on.
type disk struct {
	t     testing.TB
	fs    vfs.FS
	db    *pebble.DB
	bulk  *bulk.Store
	ring  ring
	full  bool
	press bool
	*Store
}

func open(t testing.TB, fs vfs.FS, epoch seal.Key, limit int64) *disk {
	t.Helper()
	d := &disk{t: t, fs: fs, ring: ring{epoch}}
	var err error
	if d.db, err = pebble.Open("store", &pebble.Options{FS: fs}); err != nil {
		t.Fatal(err)
	}
	if d.bulk, err = bulk.Open(bulk.Options{FS: fs, Dir: "bulk"}); err != nil {
		t.Fatal(err)
	}
	d.Store, err = Open(Options{
		Bulk: d.bulk, Ring: d.ring, Limit: limit,
		Copies: rows{d.db, "c/"}, Told: rows{d.db, "t/"}, Opened: rows{d.db, "o/"},
		Reserve: func(int64) error {
			if d.full {
				return fault.New(fault.Full, "the disk is full")
			}
			return nil
		},
		Pressed: func() bool { return d.press },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) close() {
	d.Close()
	if err := errors.Join(d.bulk.Close(), d.db.Close()); err != nil {
		d.t.Error(err)
	}
}

// sealed is a pack with its ciphertext.
type sealed struct {
	far.Pack
	plain, cipher []byte
}

// newPack seals n random bytes.
func newPack(t testing.TB, study string, n int) sealed {
	t.Helper()
	s := sealed{plain: make([]byte, n)}
	rand.Read(s.plain)
	rand.Read(s.ID[:])
	rand.Read(s.KeyID[:])
	s.Key, s.Study, s.Series = seal.NewKey(), study, study+".1"
	var out bytes.Buffer
	w := seal.NewWriter(&out, seal.PackKey(s.Key, s.ID))
	if _, err := w.Write(s.plain); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Root, s.Bytes, err = w.Close(); err != nil {
		t.Fatal(err)
	}
	s.cipher, s.Plaintext, s.Manifest, s.Instances = out.Bytes(), int64(n), int64(n), 1
	return s
}

// keep keeps packs and makes them readable.
func (d *disk) keep(packs ...sealed) {
	d.t.Helper()
	for _, p := range packs {
		if err := d.Keep(context.Background(), p.Pack, bytes.NewReader(p.cipher)); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := d.Flush(context.Background()); err != nil {
		d.t.Fatal(err)
	}
}

// read reads a kept pack by what is kept of it alone.
func (d *disk) read(p sealed) error {
	record, ciphertext, err := d.Ciphertext(p.ID)
	if err != nil {
		return err
	}
	key, err := d.Key(p.ID)
	if err != nil {
		return err
	}
	plain := make([]byte, len(p.plain))
	if _, err := seal.Reader(ciphertext, record.BlobBytes, seal.PackKey(key, p.ID)).ReadAt(plain, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(plain, p.plain) || !bytes.Equal(record.Root, p.Root[:]) || record.Study != p.Study {
		return errors.New("another pack")
	}
	return nil
}

// sound checks that rows and blobs name each other.
func (d *disk) sound() {
	d.t.Helper()
	var blobs int64
	if err := d.bulk.Refs(bulk.Cached, func(r bulk.Ref) error { blobs += r.Bytes; return nil }); err != nil {
		d.t.Fatal(err)
	}
	named := 0
	if err := d.o.Copies.Each(func(string, []byte) error { named++; return nil }); err != nil {
		d.t.Fatal(err)
	}
	if blobs != d.Bytes() || named != len(d.kept) {
		d.t.Errorf("%d bytes in blobs, %d kept; %d rows, %d copies", blobs, d.Bytes(), named, len(d.kept))
	}
}

func TestWhatIsKeptReadsBackAfterARestart(t *testing.T) {
	fs, epoch := vfs.NewMem(), seal.NewKey()
	d := open(t, fs, epoch, 64<<20)
	packs := []sealed{newPack(t, "1", 10), newPack(t, "1", 100_000), newPack(t, "2", 1)}
	d.keep(packs...)
	d.keep(packs[0]) // again: no second copy
	for range 2 {
		for _, p := range packs {
			if err := d.read(p); err != nil {
				t.Error(err)
			}
		}
		d.sound()
		d.close()
		d = open(t, fs, epoch, 64<<20)
	}
	defer d.close()
	if _, ok := d.Reader(packs[0].ID, packs[0].Bytes+1); ok {
		t.Error("a pack of another length is the same")
	}
	if _, err := d.Key(pack.ID{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown pack: %v", err)
	}
}

func TestWhatWasReadLongestAgoGoesFirst(t *testing.T) {
	const size = 50_000
	fs, epoch := vfs.NewMem(), seal.NewKey()
	limit := int64(10 * size)
	d := open(t, fs, epoch, limit)
	var packs []sealed
	for i := range 9 {
		packs = append(packs, newPack(t, fmt.Sprint(i), size))
		d.keep(packs[i])
	}
	if err := d.read(packs[0]); err != nil { // it is the newest now
		t.Fatal(err)
	}
	for i := range 5 {
		p := newPack(t, fmt.Sprint("more", i), size)
		d.keep(p)
		if d.Bytes() > limit {
			t.Errorf("%d bytes are kept, of %d", d.Bytes(), limit)
		}
	}
	for i, p := range packs {
		if want := i == 0 || i > 5; d.Has(p.ID) != want {
			t.Errorf("pack %d: kept %t", i, !want)
		}
	}
	d.sound()
	d.close()
	// A smaller limit after a restart is kept to with the next pack.
	d = open(t, fs, epoch, 4*size+4000)
	defer d.close()
	d.keep(newPack(t, "last", size))
	if d.Bytes() > 4*size+4000 {
		t.Errorf("%d bytes are kept", d.Bytes())
	}
	if err := d.Keep(context.Background(), newPack(t, "large", 2*size).Pack, nil); !fault.Is(err, fault.Full) {
		t.Errorf("a pack that is too large for all: %v", err)
	}
}

func TestAFullDiskKeepsNothingAndTakesCopiesBack(t *testing.T) {
	d := open(t, vfs.NewMem(), seal.NewKey(), 64<<20)
	defer d.close()
	p, q := newPack(t, "1", 1000), newPack(t, "2", 1000)
	d.keep(p)
	d.full = true
	if err := d.Keep(context.Background(), q.Pack, bytes.NewReader(q.cipher)); !fault.Is(err, fault.Full) {
		t.Errorf("keep on a full disk: %v", err)
	}
	if err := d.read(p); err != nil {
		t.Error(err)
	}
	if err := d.giveWay(); err != nil || !d.Has(p.ID) {
		t.Errorf("a copy goes without need: %v", err)
	}
	d.press = true
	if err := d.giveWay(); err != nil || d.Has(p.ID) {
		t.Errorf("a copy stays while the disk is nearly full: %v", err)
	}
	d.sound()
}

func TestACiphertextThatIsShortIsNotKept(t *testing.T) {
	d := open(t, vfs.NewMem(), seal.NewKey(), 64<<20)
	defer d.close()
	p, q := newPack(t, "1", 100_000), newPack(t, "2", 1000)
	if err := d.Keep(context.Background(), p.Pack, bytes.NewReader(p.cipher[:50_000])); !fault.Is(err, fault.Corrupt) {
		t.Errorf("keep: %v", err)
	}
	d.keep(q)
	if d.Has(p.ID) || d.read(q) != nil {
		t.Error("what came after it is not kept")
	}
	d.sound()
}

func TestARottenCopyIsDroppedAndKeptAgain(t *testing.T) {
	d := open(t, vfs.NewMem(), seal.NewKey(), 64<<20)
	defer d.close()
	p := newPack(t, "1", 300_000)
	d.keep(p)
	ref, _ := d.use(p.ID)
	if err := d.bulk.Delete(ref); err != nil { // as bulk does with what is rotten
		t.Fatal(err)
	}
	err := d.read(p)
	if !fault.Is(err, fault.NotFound) {
		t.Fatalf("read: %v", err)
	}
	d.Discard(p.ID, err)
	if d.Has(p.ID) {
		t.Error("it is still there")
	}
	d.keep(p)
	if err := d.read(p); err != nil {
		t.Error(err)
	}
	d.sound()
}

func TestVerifyDropsWhatIsNotWhatWasKept(t *testing.T) {
	d := open(t, vfs.NewMem(), seal.NewKey(), 64<<20)
	defer d.close()
	sound, rotten, gone := newPack(t, "1", 300_000), newPack(t, "2", 300_000), newPack(t, "3", 1000)
	rotten.cipher[200_000] ^= 1
	d.keep(sound, rotten, gone)
	ref, _ := d.use(gone.ID)
	if err := d.bulk.Delete(ref); err != nil { // as bulk does with what is rotten
		t.Fatal(err)
	}
	var done, total uint64
	checked, err := d.Verify(t.Context(), func(at, of uint64) { done, total = at, of })
	if err != nil || checked.Copies != 3 || checked.Dropped != 2 || checked.Bytes != uint64(sound.Bytes) || done != 3 || total != 3 {
		t.Errorf("%+v, %d of %d, %v", checked, done, total, err)
	}
	if d.Has(rotten.ID) || d.Has(gone.ID) || d.read(sound) != nil {
		t.Error("another is left than what is sound")
	}
	if kept, dropped := d.Counters().Kept.Load(), d.Counters().Dropped.Load(); kept != 3 || dropped != 2 {
		t.Errorf("counted %d kept and %d dropped", kept, dropped)
	}
	if again, err := d.Verify(t.Context(), nil); err != nil || again.Copies != 1 || again.Dropped != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	d.sound()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Verify(ctx, nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

func TestWhatIsOpenedTogetherRestsTogetherAndSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, vfs.NewMem(), seal.NewKey(), 64<<20)
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() {
			if err := d.Run(ctx, nil); err != nil {
				t.Error(err)
			}
		})
		give := func(p sealed) {
			if err := d.Keep(ctx, p.Pack, bytes.NewReader(p.cipher)); err != nil {
				t.Error(err)
			}
		}
		p, q, last := newPack(t, "1", 1000), newPack(t, "1", 1000), newPack(t, "2", 1000)
		give(p)
		time.Sleep(quiet / 2)
		give(q)
		time.Sleep(quiet * 3 / 4)
		if d.Has(p.ID) {
			t.Error("the table was closed while more came")
		}
		time.Sleep(quiet)
		first, _ := d.use(p.ID)
		second, ok := d.use(q.ID)
		if !ok || first.Table != second.Table {
			t.Errorf("kept in tables %d and %d, %t", first.Table, second.Table, ok)
		}
		give(last)
		cancel() // a clean end keeps what came
		run.Wait()
		if !d.Has(last.ID) {
			t.Error("what came last is not kept")
		}
		d.close()
	})
}

func TestWhenACopyWasOpenedSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, epoch := vfs.NewMem(), seal.NewKey()
		d := open(t, fs, epoch, 64<<20)
		p, q := newPack(t, "1", 1000), newPack(t, "2", 1000)
		d.keep(p, q)
		time.Sleep(2 * noteAfter)
		if err := d.read(p); err != nil {
			t.Fatal(err)
		}
		if err := d.noteOpened(); err != nil {
			t.Fatal(err)
		}
		d.close()
		d = open(t, fs, epoch, 64<<20)
		if err := d.evict(p.Bytes); err != nil {
			t.Fatal(err)
		}
		if !d.Has(p.ID) || d.Has(q.ID) {
			t.Error("the one that was read last went")
		}
		d.close()
	})
}

func TestManifestsComeBackAndStayBelowTheirShare(t *testing.T) {
	fs, epoch := vfs.NewMem(), seal.NewKey()
	const limit = 4 << 20
	d := open(t, fs, epoch, limit)
	manifest := func(i int) Told {
		p := newPack(t, fmt.Sprint(i), 100)
		header := make([]byte, 20_000)
		rand.Read(header)
		return Told{
			Manifest: &far.Manifest{
				Node: "a", Study: p.Study, Series: p.Series, Packs: []far.Pack{p.Pack},
				Instances: []far.Instance{
					{Record: &archivepb.Instance{Number: 7, Sop: "1.1", Hash: make([]byte, 32)}, Header: header, Chunks: []pack.Chunk{{Length: 100, Compressed: 100}}},
					{Record: &archivepb.Instance{Number: 8, Sop: "1.2", Hash: make([]byte, 32)}, Pack: -1, Lost: true},
				},
			},
			AsOf: 9, UIDHash: [16]byte{1, 2}, Asked: time.UnixMicro(1234567),
		}
	}
	one := manifest(0)
	if err := d.Tell(one); err != nil {
		t.Fatal(err)
	}
	d.close()
	d = open(t, fs, epoch, limit)
	defer func() { d.close() }()
	got, err := d.Recall(one.Study, one.Series, "a")
	if err != nil {
		t.Fatal(err)
	}
	first, second := got.Instances[0], got.Instances[1]
	if got.Packs[0] != one.Packs[0] || got.AsOf != 9 || got.UIDHash != one.UIDHash || !got.Asked.Equal(one.Asked) ||
		first.Record.Number != 7 || !bytes.Equal(first.Header, one.Instances[0].Header) || first.Pack != 0 || first.Chunks[0] != one.Instances[0].Chunks[0] ||
		second.Pack != -1 || second.Header != nil || len(second.Chunks) != 0 || !second.Lost || first.Lost {
		t.Errorf("came back as %+v", got)
	}
	for i := range 40 {
		if err := d.Tell(manifest(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	var rest int64
	count := 0
	if err := d.o.Told.Each(func(_ string, value []byte) error { rest += int64(len(value)); count++; return nil }); err != nil {
		t.Fatal(err)
	}
	if rest > limit/toldShare || rest != d.told.Load() || count == 0 {
		t.Errorf("%d bytes in %d manifests, counted as %d", rest, count, d.told.Load())
	}
	if _, err := d.Recall(one.Study, one.Series, "a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("the oldest is still there: %v", err)
	}
	if _, err := d.Recall("40", "40.1", "a"); err != nil {
		t.Errorf("the newest: %v", err)
	}
}

func TestWhatIsDeletedGoes(t *testing.T) {
	d := open(t, vfs.NewMem(), seal.NewKey(), 64<<20)
	defer d.close()
	p, q, late := newPack(t, "1", 1000), newPack(t, "2", 1000), newPack(t, "1", 1000)
	d.keep(p, q)
	if err := d.Keep(context.Background(), late.Pack, bytes.NewReader(late.cipher)); err != nil { // its table is open
		t.Fatal(err)
	}
	for _, study := range []string{"1", "2"} {
		if err := d.Tell(Told{Manifest: &far.Manifest{Node: "a", Study: study, Series: study + ".1"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.DropIf(func(study, _ string, _ time.Time) bool { return study == "1" }); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d.Has(p.ID) || d.Has(late.ID) || !d.Has(q.ID) {
		t.Errorf("kept: %t %t, and the other %t", d.Has(p.ID), d.Has(late.ID), d.Has(q.ID))
	}
	if _, err := d.Recall("1", "1.1", "a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("its manifest: %v", err)
	}
	if _, err := d.Recall("2", "2.1", "a"); err != nil {
		t.Errorf("the other's manifest: %v", err)
	}
	d.sound()
}

func FuzzTold(f *testing.F) {
	d := open(f, vfs.NewMem(), seal.NewKey(), 1<<20)
	f.Cleanup(d.close)
	p := newPack(f, "1", 10)
	err := d.Tell(Told{Manifest: &far.Manifest{
		Node: "a", Study: "1", Series: "1.1", Packs: []far.Pack{p.Pack},
		Instances: []far.Instance{{Record: &archivepb.Instance{Sop: "1.1", Hash: make([]byte, 32)}}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	b, _, _ := d.o.Told.Get(toldKey("1", "1.1", "a"))
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		told, err := d.decodeTold(b)
		if err != nil {
			return
		}
		for _, in := range told.Instances {
			if in.Record == nil || len(in.Record.Hash) != 32 || in.Pack >= len(told.Packs) || in.Pack < -1 {
				t.Errorf("an instance that cannot be opened: %+v", in)
			}
		}
	})
}

// crash copies the disk at one of its operations.
type crash struct {
	disk  *bulktest.Disk
	at    int64
	ops   atomic.Int64
	rng   *mathrand.Rand
	after *vfs.MemFS
	once  sync.Once
}

func (c *crash) MaybeError(errorfs.Op) error {
	if c.ops.Add(1) == c.at {
		c.once.Do(func() {
			c.after = c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(101), RNG: c.rng})
		})
	}
	return nil
}

func (c *crash) String() string { return fmt.Sprintf("crash at operation %d", c.at) }

// TestACrashCostsACopyAtMost keeps, evicts and drops packs, and crashes at every
// so many operations: what is there afterwards is whole, and nothing is there
// that no row names.
func TestACrashCostsACopyAtMost(t *testing.T) {
	const size = 40_000
	epoch := seal.NewKey()
	var packs []sealed
	for i := range 12 {
		packs = append(packs, newPack(t, fmt.Sprint(i%4), size))
	}
	work := func(c *crash) {
		d := open(t, errorfs.Wrap(c.disk, c), epoch, 6*size)
		for i := 0; i < len(packs); i += 2 {
			d.keep(packs[i], packs[i+1])
		}
		if err := d.DropIf(func(study, _ string, _ time.Time) bool { return study == "3" }); err != nil {
			t.Error(err)
		}
		d.keep(packs[0])
		d.close()
	}
	newCrash := func(at int64) *crash {
		return &crash{disk: bulktest.NewDisk(), at: at, rng: mathrand.New(mathrand.NewPCG(uint64(at), 3))}
	}
	whole := newCrash(0)
	work(whole)
	points := int64(60)
	if testing.Short() {
		points = 12
	}
	for i := range points {
		c := newCrash(1 + i*whole.ops.Load()/points)
		work(c)
		if c.after == nil {
			continue
		}
		d := open(t, c.after, epoch, 6*size)
		d.sound()
		for _, p := range packs {
			if err := d.read(p); err != nil && !fault.Is(err, fault.NotFound) || err != nil && d.Has(p.ID) {
				t.Errorf("crash at %d: %v", c.at, err)
			}
		}
		d.keep(packs[5])
		if err := d.read(packs[5]); err != nil {
			t.Errorf("crash at %d: keeping afterwards: %v", c.at, err)
		}
		d.close()
	}
}

func TestALongPackIsKeptInATableOfItsOwn(t *testing.T) {
	fs, epoch := vfs.NewMem(), seal.NewKey()
	d := open(t, fs, epoch, 1<<30)
	long, short := newPack(t, "1", far.InMemory+1), newPack(t, "2", 1000)
	broken := errors.New("the link broke")
	for name, from := range map[string]io.ReaderAt{
		"ends early": bytes.NewReader(long.cipher[:len(long.cipher)/2]),
		"breaks":     breaking{bytes.NewReader(long.cipher), int64(len(long.cipher) / 2), broken},
	} {
		if err := d.Keep(t.Context(), long.Pack, from); err == nil || name == "breaks" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong := long.Pack
	wrong.Root[0] ^= 1
	if err := d.Keep(t.Context(), wrong, bytes.NewReader(long.cipher)); !fault.Is(err, fault.Corrupt) {
		t.Errorf("of another root: %v", err)
	}
	if d.Has(long.ID) || d.long != 0 {
		t.Errorf("kept nevertheless, %d bytes reserved", d.long)
	}
	d.sound()
	// The open table, and those who write into it, need not wait for it.
	during := sync.OnceFunc(func() { d.keep(short) })
	if err := d.Keep(t.Context(), long.Pack, calling{bytes.NewReader(long.cipher), during}); err != nil {
		t.Fatal(err)
	}
	d.sound()
	d.close()
	d = open(t, fs, epoch, 1<<30)
	defer d.close()
	for _, p := range []sealed{long, short} {
		if err := d.read(p); err != nil {
			t.Error(err)
		}
	}
	d.sound()
}

// breaking reads up to a place.
type breaking struct {
	io.ReaderAt
	at  int64
	err error
}

func (b breaking) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.at {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p, off)
}

// calling calls with every read.
type calling struct {
	io.ReaderAt
	call func()
}

func (c calling) ReadAt(p []byte, off int64) (int, error) {
	c.call()
	return c.ReaderAt.ReadAt(p, off)
}
