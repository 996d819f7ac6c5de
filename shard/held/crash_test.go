package held

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
	"pelago/shard/bulk/bulktest"
)

// crashPoints is how many of a history's operations a crash comes before; `make
// chaos` has 1,000.
func crashPoints() int64 {
	if n, err := strconv.ParseInt(os.Getenv("CRASH_POINTS"), 10, 64); err == nil {
		return n
	}
	if testing.Short() {
		return 5
	}
	return 25
}

// promised is what a history has been told: shards that have receipts, shards that
// are being dropped, and those that are.
type promised struct {
	mu                   sync.Mutex
	held, dropping, gone map[Name]offered
}

func newPromised() *promised {
	return &promised{held: map[Name]offered{}, dropping: map[Name]offered{}, gone: map[Name]offered{}}
}

func (p *promised) clone() *promised {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &promised{held: maps.Clone(p.held), dropping: maps.Clone(p.dropping), gone: maps.Clone(p.gone)}
}

func (p *promised) move(from, to map[Name]offered, all ...offered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range all {
		if from != nil {
			delete(from, o.Name)
		}
		to[o.Name] = o
	}
}

// tellStory lands and drops shards, alone, in batches and at once.
func tellStory(t *testing.T, h *holder, all []*made, p *promised) {
	land := func(shards ...offered) {
		claims, body := batch(shards...)
		if _, err := h.Land(t.Context(), claims, bytes.NewReader(body)); err != nil {
			t.Error(err)
		}
		p.move(nil, p.held, shards...)
	}
	drop := func(why Reason, shards ...offered) {
		var names []Name
		for _, o := range shards {
			names = append(names, o.Name)
		}
		p.move(p.held, p.dropping, shards...)
		if _, err := h.Drop(t.Context(), why, names...); err != nil {
			t.Error(err)
		}
		p.move(p.dropping, p.gone, shards...)
	}
	land(all[0].offer(0))
	land(all[1].offer(1), all[2].offer(1), all[3].offer(1))
	var uploads sync.WaitGroup
	for i := range 4 {
		uploads.Go(func() { land(all[4+i].offer(i % 3)) })
	}
	uploads.Wait()
	drop(Purged{7}, all[2].offer(1), all[0].offer(0))
	land(all[8].offer(2))
	if _, err := h.Merge(t.Context()); err != nil {
		t.Error(err)
	}
	drop(Superseded{2, [32]byte{1}}, all[4].offer(0))
	land(all[9].offer(0), all[10].offer(0))
}

// After a crash at any operation of the disk, what had a receipt is held, what was
// dropped is gone, what is in between is whole or nothing, and no bytes are left
// that nobody knows.
func TestACrashAtAnyOperationKeepsReceipts(t *testing.T) {
	var all []*made
	for i := range 11 {
		code, size := small, int64(3000+i*9000)
		if i == 5 || i == 8 {
			code, size = larger, 2<<20
		}
		all = append(all, encode(t, uint64(40+i), code, size))
	}
	var total int64
	play := func(at int64, percent int) (crashed *vfs.MemFS, held *promised) {
		disk := bulktest.NewDisk()
		for _, dir := range []string{"data/bulk", "data/store"} {
			if err := disk.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{"data", "/"} { // the node makes its folders before it serves
			d, err := disk.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			d.Sync()
			d.Close()
		}
		var count atomic.Int64
		p := newPromised()
		var once sync.Mutex
		fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpLink && count.Add(1) == at {
				once.Lock()
				defer once.Unlock()
				held = p.clone()
				crashed = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), 1))})
			}
			return nil
		}))
		h := open(t, fs, nil)
		h.merging.count = 3
		tellStory(t, h, all, p)
		if h.stats.Merged.Load() == 0 {
			t.Error("nothing was merged")
		}
		h.close()
		total = count.Load()
		once.Lock()
		defer once.Unlock()
		return crashed, held
	}
	play(-1, 0)
	t.Logf("%d operations", total)
	step := max(1, total/crashPoints())
	for _, percent := range []int{0, 50, 100} {
		for at := int64(1) + int64(percent/50)%step; at <= total; at += step {
			crashed, held := play(at, percent)
			if crashed == nil {
				continue // background work ended earlier this time
			}
			checkAfterCrash(t, crashed, held, all, at, percent)
		}
	}
}

func checkAfterCrash(t *testing.T, fs *vfs.MemFS, p *promised, all []*made, at int64, percent int) {
	t.Helper()
	byName := map[Name]offered{}
	for _, m := range all {
		for i := range m.shards {
			byName[m.name(i)] = m.offer(i)
		}
	}
	for _, again := range []bool{false, true} {
		h := open(t, fs, nil)
		listed := h.listed()
		for n, o := range p.held {
			if listed[n] != Held {
				t.Errorf("crash at %d (%d %%): shard %v, which has a receipt, is %v", at, percent, n, listed[n])
			}
			if l, err := h.Ask([]Entry{o.Entry}); err != nil || l.Outcomes[0] != Known {
				t.Errorf("crash at %d (%d %%): asked for %v: %v, %v", at, percent, n, l, err)
			}
		}
		for n := range p.gone {
			if st, err := h.Status(n); err != nil || st.State != Dropped || st.Reason == nil || listed[n] != 0 {
				t.Errorf("crash at %d (%d %%): dropped shard %v: %+v, %v", at, percent, n, st, err)
			}
		}
		for n := range listed {
			var b bytes.Buffer
			sh, err := h.Shard(n)
			if err == nil {
				err = sh.(*readable).Write(t.Context(), &b)
			}
			if err != nil || !bytes.Equal(b.Bytes(), byName[n].bytes) {
				t.Errorf("crash at %d (%d %%): listed shard %v: %v", at, percent, n, err)
			}
		}
		if blobs := h.blobs(); len(blobs) != len(listed) {
			t.Errorf("crash at %d (%d %%), again %v: %d blobs of %d shards", at, percent, again, len(blobs), len(listed))
		}
		if len(h.told()) > 0 {
			t.Errorf("crash at %d (%d %%): lost %v", at, percent, h.told())
		}
		if again {
			for n, o := range byName {
				if _, dropped := p.gone[n]; !dropped && p.dropping[n].bytes == nil {
					l, err := h.Land(t.Context(), []Claim{o.Claim}, bytes.NewReader(o.bytes))
					if err != nil || !l.Outcomes[0].Here() {
						t.Errorf("crash at %d (%d %%): landing %v again: %v, %v", at, percent, n, l, err)
					}
				} else if dropped {
					l, err := h.Land(t.Context(), []Claim{o.Claim}, bytes.NewReader(o.bytes))
					if err != nil || l.Outcomes[0] != Refused {
						t.Errorf("crash at %d (%d %%): landing dropped %v: %v, %v", at, percent, n, l, err)
					}
				}
			}
		}
		h.close()
	}
}

// Shards of tables whose rows a crash took, and all of them when store/ is put back
// from an earlier copy, are held: they say themselves what they are.
func TestShardsWithoutRowsAreAdopted(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	a, b, c := encode(t, 1, small, 40_000), encode(t, 2, small, 4_000), encode(t, 3, larger, 2<<20)
	h.land(a.offer(0), b.offer(0))
	h.land(c.offer(5))
	if _, err := h.Drop(t.Context(), Purged{1}, b.name(0)); err != nil {
		t.Fatal(err)
	}
	h.close()
	if err := fs.RemoveAll("data/store"); err != nil {
		t.Fatal(err)
	}
	h = open(t, fs, nil)
	h.check(a, 0)
	h.check(c, 5)
	h.checkGone(b.name(0))
	if l, err := h.Ask([]Entry{a.entry(0)}); err != nil || l.Receipt == nil {
		t.Errorf("%v, %v", l, err)
	}
	if mark, err := h.mark(); err != nil || mark <= h.blobs()[1].Table {
		t.Errorf("mark %d, %v", mark, err)
	}
	h.close()
}

// A blob that is no shard is neither served nor deleted.
func TestAForeignBlobStays(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	table, err := h.bulk.NewTable('s')
	if err != nil {
		t.Fatal(err)
	}
	w, _ := table.Add()
	w.Write([]byte("no shard"))
	w.Close()
	if _, err := table.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h = h.reopen()
		if len(h.blobs()) != 1 || len(h.listed()) != 0 {
			t.Errorf("%v, listed %v", h.blobs(), h.listed())
		}
	}
	h.close()
}

// A drop that a crash cuts off between its rows and the bytes is finished by the
// next start.
func TestADropIsFinishedByTheNextStart(t *testing.T) {
	fs := vfs.NewMem()
	rows := newMemRows()
	h := open(t, fs, func(o *Options) { o.Rows = rows })
	m := encode(t, 1, small, 40_000)
	h.land(m.offer(0))
	ref := h.blobs()[0]
	h.bulk.Close() // the deletion fails
	if n, err := h.Drop(t.Context(), Purged{3}, m.name(0)); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	h.rows.(*pebbleRows).db.Close()
	again := &holder{t: t, fs: fs, self: h.self, rows: rows}
	again.start(nil)
	if _, err := again.bulk.Reader(ref).ReadAt(make([]byte, 1), 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("the bytes are there: %v", err)
	}
	for _, key := range rows.Keys() {
		if key[0] == rowGoing || key[0] == rowBlob {
			t.Errorf("row %q is left", key)
		}
	}
	again.close()
}
