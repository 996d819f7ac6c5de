package catalog

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestOfRowsWithOneKeyTheLastCounts(t *testing.T) {
	db, err := pebble.Open("rows", &pebble.Options{FS: vfs.NewMem(), Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var r rows
	for _, round := range []struct {
		put  func()
		want map[string]string
	}{
		{func() {
			r.set([]byte("long key b"), []byte("1"))
			r.set([]byte("long key a"), []byte("2"))
			r.set([]byte("b"), []byte("3"))
			r.set([]byte("b\x00"), []byte("4")) // the same first 8 bytes
			r.set([]byte("b"), nil)
			r.drop([]byte("gone"))
			r.set([]byte("back"), []byte("5"))
			r.drop([]byte("back"))
			r.put([]byte("back"), []byte("6"))
		}, map[string]string{"long key a": "2", "long key b": "1", "b": "", "b\x00": "4", "back": "6"}},
		{func() {
			r.set([]byte("b"), []byte("7"))
			r.put([]byte("b"), nil)
			r.put([]byte("b\x00"), []byte{})
		}, map[string]string{"long key a": "2", "long key b": "1", "b\x00": "", "back": "6"}},
	} {
		r.reset()
		round.put()
		if err := r.commit(db); err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(r.list, func(a, b rowRef) int { return bytes.Compare(r.keyOf(a), r.keyOf(b)) }) {
			t.Error("rows were not written in order")
		}
		got := map[string]string{}
		it, err := db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		for it.First(); it.Valid(); it.Next() {
			got[string(it.Key())] = string(it.Value())
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(round.want) {
			t.Errorf("%d rows, want %d", len(got), len(round.want))
		}
		for key, value := range round.want {
			if v, ok := got[key]; !ok || v != value {
				t.Errorf("row %q: %q, %t, want %q", key, v, ok, value)
			}
		}
	}
}

func TestRoomOfRowsIsBounded(t *testing.T) {
	var r rows
	r.set([]byte("k"), make([]byte, 2*keptRows))
	if r.reset(); cap(r.data) > keptRows || len(r.list) != 0 {
		t.Errorf("%d bytes are kept", cap(r.data))
	}
}

func TestNoMoreIsRememberedThanTheLimit(t *testing.T) {
	r := remembered{}
	for i := range 2 * maxRemembered {
		r.note(string([]byte{byte(i), byte(i >> 8), byte(i >> 16)}), true)
		if len(r) > maxRemembered {
			t.Fatalf("%d keys", len(r))
		}
	}
	if r.note("k", true); !r.has("k") {
		t.Error("what was noted last is not known")
	}
	if r.note("k", false); r.has("k") {
		t.Error("what holds no longer is still known")
	}
}
