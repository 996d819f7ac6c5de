package held

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/shard/bulk"
)

// tables are the numbers of the tables of held shards.
func (h *holder) tables() (all []uint64) {
	h.bulk.Tables(bulk.Held, func(number uint64, _ int64) { all = append(all, number) })
	return all
}

// Shards of small tables are moved into one, once all are as much as one table is
// to have; they are read as before, also after a restart, and by who has them open.
func TestSmallTablesBecomeOne(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	h.merging = merging{target: 3 << 20, tiny: 1, count: 1000}
	var all []*made
	for i := range 8 {
		all = append(all, encode(t, uint64(i), larger, 1<<20))
		h.land(all[i].offer(i % 6))
	}
	early, err := h.Shard(all[0].name(0))
	if err != nil {
		t.Fatal(err)
	}
	before := len(h.tables())
	less, err := h.Merge(t.Context())
	if err != nil || less < 5 || len(h.tables()) != before-less {
		t.Errorf("%d less of %d, %d are left: %v", less, before, len(h.tables()), err)
	}
	if again, err := h.Merge(t.Context()); again != 0 || err != nil {
		t.Errorf("again %d, %v", again, err)
	}
	if data, _, err := early.Range(0, 1); err != nil || len(data) == 0 {
		t.Errorf("one that was open before: %v", err)
	}
	early, _ = h.Shard(all[1].name(1))
	if early.Tail().Size() == 0 {
		t.Error("no tail")
	}
	for range 2 {
		for i, m := range all {
			h.check(m, i%6)
		}
		if len(h.told()) > 0 || len(h.blobs()) != len(all) {
			t.Errorf("told of %v, %d blobs", h.told(), len(h.blobs()))
		}
		h = h.reopen()
	}
	for i, m := range all {
		if l := h.land(m.offer(i % 6)); l.Outcomes[0] != Known {
			t.Errorf("landed again: %v", l.Outcomes)
		}
	}
	h.close()
}

// While others use the node merging takes a small part of the time, and comes to its
// end all the same.
func TestMergingGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const work = 10 * time.Millisecond
		users := false
		y := &yielding{to: slow(work), ctx: t.Context(), busy: func() bool { return users }, since: time.Now()}
		took := func() time.Duration {
			began := time.Now()
			for range 100 {
				if _, err := y.Write([]byte("a")); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began)
		}
		if alone := took(); alone != 100*work {
			t.Errorf("%v alone", alone)
		}
		users = true
		if among := took(); among != beside*100*work {
			t.Errorf("%v beside others", among)
		}
		y.to = slow(time.Hour) // a disk that stood still says nothing of what it costs
		if among := took(); among != 100*(time.Hour+longestRest) {
			t.Errorf("%v beside others on a slow disk", among)
		}
		ctx, cancel := context.WithCancel(t.Context())
		y.ctx = ctx
		cancel()
		if _, err := y.Write([]byte("a")); !errors.Is(err, context.Canceled) {
			t.Errorf("at the end: %v", err)
		}
	})
}

// slow takes a while for each write.
type slow time.Duration

func (s slow) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(s))
	return len(p), nil
}

// Many tiny tables are merged before they are as much as a table.
func TestTinyTablesAreMergedByTheirNumber(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	h.merging.count = 12
	var all []*made
	for i := range 30 {
		all = append(all, encode(t, uint64(i), small, 500))
		h.land(all[i].offer(0))
	}
	if less, err := h.Merge(t.Context()); err != nil || less != 22 || len(h.tables()) != 8 {
		t.Errorf("%d less, %d are left: %v", less, len(h.tables()), err)
	}
	for _, m := range all {
		h.check(m, 0)
	}
}

// A table that holds what is not held is left as it is.
func TestATableThatCannotBeEmptiedStays(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	h.merging.count = 3
	var all []*made
	for i := range 4 {
		all = append(all, encode(t, uint64(i), small, 3_000))
		h.land(all[i].offer(0))
	}
	if _, err := h.lose(all[1].name(0), h.blobs()[1], fault.New(fault.Corrupt, "rotten")); err != nil {
		t.Fatal(err)
	}
	lost := h.tables()[1]
	if less, err := h.Merge(t.Context()); err != nil || less != 2 {
		t.Errorf("%d less, %v", less, err)
	}
	if left := h.tables(); len(left) != 2 || left[0] != lost {
		t.Errorf("tables %v, of which %d has one that is lost", left, lost)
	}
	for _, i := range []int{0, 2, 3} {
		h.check(all[i], 0)
	}
}

// Rot that is met on the way is noted, and the others are moved.
func TestRotIsNotMoved(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	var all []*made
	for i := range 4 {
		all = append(all, encode(t, uint64(i), small, 3_000))
		h.land(all[i].offer(0))
	}
	h = h.rot(all[2], 0, 0.4)
	defer h.close()
	h.merging.count = 3
	if less, err := h.Merge(t.Context()); err != nil || less != 2 {
		t.Errorf("%d less, %v", less, err)
	}
	if told := h.told(); len(told) != 1 || told[0] != all[2].name(0) {
		t.Errorf("told of %v", told)
	}
	for _, i := range []int{0, 1, 3} {
		h.check(all[i], 0)
	}
}

// What is dropped while it is moved stays dropped.
func TestWhatIsDroppedOnTheWayStaysDropped(t *testing.T) {
	rows := newMemRows()
	h := open(t, vfs.NewMem(), func(o *Options) { o.Rows = rows })
	defer h.close()
	a, b := encode(t, 1, small, 3_000), encode(t, 2, small, 4_000)
	h.land(a.offer(0))
	h.land(b.offer(0))
	var all []moved
	for _, ref := range h.blobs() {
		e, ok, err := h.heldAt(ref)
		if !ok || err != nil {
			t.Fatal(err)
		}
		all = append(all, moved{Entry: e, from: ref})
	}
	table, opening, err := h.writing.begin(h.bulk)
	if err != nil {
		t.Fatal(err)
	}
	if whole, err := h.fill(t.Context(), table, all); !whole || err != nil {
		t.Fatal(err)
	}
	if _, err := h.Drop(t.Context(), Purged{1}, a.name(0)); err != nil {
		t.Fatal(err)
	}
	if err := h.place(t.Context(), table, all); err != nil {
		t.Fatal(err)
	}
	h.writing.end(opening)
	h.checkGone(a.name(0))
	h.check(b, 0)
	if blobs := h.blobs(); len(blobs) != 1 || blobs[0] != all[1].to {
		t.Errorf("left %v", blobs)
	}
}

// When it is not known whether rows are durable, no bytes are given up.
func TestNothingIsGivenUpWithoutRows(t *testing.T) {
	rows := newMemRows()
	fs := vfs.NewMem()
	h := open(t, fs, func(o *Options) { o.Rows = rows })
	h.merging.count = 2
	a, b := encode(t, 1, small, 3_000), encode(t, 2, small, 4_000)
	h.land(a.offer(0))
	h.land(b.offer(0))
	rows.failAt = 2
	if _, err := h.Merge(t.Context()); err == nil {
		t.Fatal("merged")
	}
	if len(h.blobs()) != 4 {
		t.Errorf("blobs %v", h.blobs())
	}
	h.check(a, 0)
	h.check(b, 0)
	h.close()
	again := &holder{t: t, fs: fs, self: h.self, rows: rows}
	again.start(nil)
	again.check(a, 0)
	again.check(b, 0)
	if len(again.blobs()) != 2 {
		t.Errorf("left %v", again.blobs())
	}
	again.close()
}

// Readers, uploads, drops and merging go on beside each other.
func TestMergingIsNotNoticed(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	h.merging = merging{target: 2 << 20, tiny: 1 << 20, count: 4}
	var all []*made
	for i := range 24 {
		all = append(all, encode(t, uint64(i), larger, int64(300_000+i*1000)))
	}
	landed := make(chan *made, len(all))
	var work, readers sync.WaitGroup
	for part := range 3 {
		work.Go(func() {
			for i := part; i < len(all); i += 3 {
				claims, body := batch(all[i].offer(0))
				if _, err := h.Land(t.Context(), claims, bytes.NewReader(body)); err != nil {
					t.Error(err)
				}
				landed <- all[i]
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for m := range landed {
				sh, err := h.Shard(m.name(0))
				if err != nil {
					t.Error(err)
					continue
				}
				for range 5 {
					if _, _, err := sh.Range(1, 2); err != nil {
						t.Error(err)
					}
					if _, err := sh.Tail().ReadAt(make([]byte, 10), 0); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	stop := make(chan struct{})
	var merges sync.WaitGroup
	merges.Go(func() {
		for {
			if _, err := h.Merge(t.Context()); err != nil && !errors.Is(err, t.Context().Err()) {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	work.Wait()
	close(landed)
	readers.Wait()
	close(stop)
	merges.Wait()
	if _, err := h.Merge(t.Context()); err != nil { // whatever came behind the last look
		t.Error(err)
	}
	if len(h.told()) > 0 || h.stats.Merged.Load() == 0 {
		t.Errorf("told of %v, %d moved", h.told(), h.stats.Merged.Load())
	}
	for _, m := range all {
		h.check(m, 0)
	}
}
