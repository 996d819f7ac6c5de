package bulk

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
	"pelago/shard/bulk/bulktest"
)

// story runs a history of commits, deletions and rewriting. promise is told
// after each call what must hold from then on.
type story struct {
	w       *world
	present map[Ref][]byte // committed, not deleted
	maybe   map[Ref][]byte // being deleted
	gone    map[Ref]bool
}

func (s *story) clone() *story {
	c := newStory(nil)
	for r, b := range s.present {
		c.present[r] = b
	}
	for r, b := range s.maybe {
		c.maybe[r] = b
	}
	for r := range s.gone {
		c.gone[r] = true
	}
	return c
}

func newStory(w *world) *story {
	return &story{w: w, present: map[Ref][]byte{}, maybe: map[Ref][]byte{}, gone: map[Ref]bool{}}
}

func (s *story) put(promise func(), space Space, seed uint64, sizes ...int) []Ref {
	var blobs [][]byte
	for i, n := range sizes {
		blobs = append(blobs, content(seed+uint64(i), n))
	}
	refs := s.w.put(space, blobs...)
	for i, r := range refs {
		s.present[r] = blobs[i]
	}
	promise()
	return refs
}

func (s *story) remove(promise func(), refs ...Ref) {
	for _, r := range refs {
		s.maybe[r] = s.present[r]
		delete(s.present, r)
	}
	promise()
	if err := s.w.Delete(refs...); err != nil {
		s.w.t.Fatal(err)
	}
	for _, r := range refs {
		delete(s.maybe, r)
		s.gone[r] = true
	}
	promise()
}

// group commits tables together.
func (s *story) group(promise func(), space Space, seed uint64, sizes ...int) {
	var tables []*Table
	var blobs [][]byte
	for i, n := range sizes {
		blobs = append(blobs, content(seed+uint64(i), n))
		tables = append(tables, s.w.fill(space, blobs[i]))
	}
	refs, err := s.w.Store.Commit(context.Background(), tables...)
	if err != nil {
		s.w.t.Fatal(err)
	}
	for i, r := range refs {
		s.present[r[0]] = blobs[i]
	}
	promise()
}

func (s *story) tell(promise func()) {
	s.group(promise, Held, 70, 1000, 200_000, 5)
	a := s.put(promise, Hot, 1, 200_000, 10, 150_000, 0, 90_000)
	b := s.put(promise, Held, 20, 300_000)
	s.remove(promise, a[0], a[1])
	s.reclaim()
	s.put(promise, Hot, 30, 50_000, 60_000)
	s.remove(promise, b...)
	s.remove(promise, a[2])
	s.reclaim()
	s.w = s.w.reopen()
	s.put(promise, Cached, 40, 140_000)
	s.remove(promise, a[3], a[4])
	if err := s.w.Close(); err != nil {
		s.w.t.Fatal(err)
	}
}

func (s *story) reclaim() {
	if _, err := s.w.Reclaim(context.Background()); err != nil {
		s.w.t.Fatal(err)
	}
}

// After a crash at any operation of the file system, what was promised holds:
// committed blobs are there bit for bit, deleted ones are gone, and the store
// goes on.
func TestACrashAtAnyOperationKeepsPromises(t *testing.T) {
	total := int64(0)
	play := func(at int64, percent int) (crashed *vfs.MemFS, held *story) {
		disk := bulktest.NewDisk()
		var count atomic.Int64
		var promised atomic.Pointer[story]
		promised.Store(newStory(nil))
		fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) == at {
				held = promised.Load()
				crashed = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), 1))})
			}
			return nil
		}))
		if err := disk.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syncDir(disk, "/"); err != nil {
			t.Fatal(err)
		}
		s := newStory(open(t, fs, "data/bulk"))
		s.tell(func() { promised.Store(s.clone()) })
		total = count.Load()
		return crashed, held
	}
	play(-1, 0)
	t.Logf("%d operations", total)
	step := max(1, total/crashPoints)
	for _, percent := range []int{0, 50, 100} {
		for at := int64(1) + int64(percent/50)%step; at <= total; at += step {
			crashed, held := play(at, percent)
			if crashed == nil {
				continue // background work ended earlier this time
			}
			checkAfterCrash(t, crashed, held, at, percent)
		}
	}
}

func checkAfterCrash(t *testing.T, fs *vfs.MemFS, held *story, at int64, percent int) {
	t.Helper()
	w := open(t, fs, "data/bulk")
	if len(w.losses()) > 0 || len(w.ends()) > 0 {
		t.Errorf("crash at %d (%d %%): lost %v, fatal %v", at, percent, w.losses(), w.ends())
	}
	for r, b := range held.present {
		if got, err := w.read(r); err != nil || !bytes.Equal(got, b) {
			t.Errorf("crash at %d (%d %%): blob %v: %v", at, percent, r, err)
		}
	}
	for r, b := range held.maybe {
		if got, err := w.read(r); !fault.Is(err, fault.NotFound) && (err != nil || !bytes.Equal(got, b)) {
			t.Errorf("crash at %d (%d %%): blob %v by half: %v", at, percent, r, err)
		}
	}
	for r := range held.gone {
		if _, err := w.Reader(r).ReadAt(make([]byte, 1), 0); !fault.Is(err, fault.NotFound) {
			t.Errorf("crash at %d (%d %%): deleted blob %v: %v", at, percent, r, err)
		}
	}
	known := 0
	for _, space := range []Space{Hot, Cached, Held} {
		for _, r := range w.list(space) {
			known++
			if _, err := w.read(r); err != nil {
				t.Errorf("crash at %d (%d %%): listed blob %v: %v", at, percent, r, err)
			}
		}
	}
	if limit := len(held.present) + len(held.maybe) + 5; known > limit {
		t.Errorf("crash at %d (%d %%): %d blobs listed, at most %d were written", at, percent, known, limit)
	}
	refs := w.put(Hot, []byte("after"))
	if held.gone[refs[0]] || held.present[refs[0]] != nil {
		t.Errorf("crash at %d (%d %%): number %d given twice", at, percent, refs[0].Table)
	}
	w.check(refs[0], []byte("after"))
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
