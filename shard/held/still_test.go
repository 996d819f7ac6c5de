package held

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A copy of the rows and, after it, of the blobs has all that the rows name, although
// shards are about to be moved and given up, and others land meanwhile.
func TestACopyThatIsTakenStillHasWhatItsRowsName(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	defer h.close()
	h.merging.count = 3
	var all []*made
	for i := range 6 {
		all = append(all, encode(t, uint64(i), small, 3_000))
		h.land(all[i].offer(0))
	}
	late := encode(t, 99, small, 3_000)
	changed := make(chan error, 2)
	err := h.Still(func() error {
		if err := h.rows.(*pebbleRows).db.Checkpoint("copy/store", pebble.WithFlushedWAL()); err != nil {
			return err
		}
		go func() {
			_, err := h.Merge(t.Context())
			changed <- err
		}()
		go func() {
			_, err := h.Drop(t.Context(), Purged{Index: 1}, all[5].name(0))
			changed <- err
		}()
		h.land(late.offer(1))
		select {
		case err := <-changed:
			t.Error("shards were moved or given up while they were to be still")
			changed <- err
		case <-time.After(50 * time.Millisecond): // enough for either, were it not held up
		}
		return h.bulk.Checkpoint("copy/bulk")
	})
	for range 2 {
		if err := <-changed; err != nil {
			t.Error(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(h.tables()) > 3 || h.listed()[all[5].name(0)] != 0 {
		t.Errorf("afterwards: %d tables, %v", len(h.tables()), h.listed())
	}
	for i, m := range append(all[:5:5], late) {
		h.check(m, i/5)
	}

	other := vfs.NewMem()
	if ok, err := vfs.Clone(fs, other, "copy", "data"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	copied := open(t, other, nil)
	defer copied.close()
	for i, m := range append(all, late) {
		copied.check(m, i/6)
	}
	if err := copied.Verify(t.Context(), nil); err != nil || len(copied.told()) > 0 {
		t.Errorf("%v, lost: %v", err, copied.told())
	}
	if got := len(copied.blobs()); got != 7 {
		t.Errorf("%d blobs for 7 shards", got)
	}
}
