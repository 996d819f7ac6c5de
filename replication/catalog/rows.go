package catalog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// rows are what an Apply writes, gathered and put in order before they are: a
// study is found under some sixty keys all over the key space, and Pebble takes
// ascending keys several times faster, because each begins where the last one
// ended.
type rows struct {
	list []rowRef
	data []byte // keys and values, one after the other
}

// rowRef is a row: data[at:] begins with its key, which its value follows.
type rowRef struct {
	head       uint64 // the key's first 8 bytes, zeros behind a shorter one: settles most comparisons
	at         int
	key, value uint32 // lengths
	number     uint32 // in the order of putting, in the upper bits; the lowest tells a deletion
}

// keptRows bounds the bytes that stay allocated between Applies.
const keptRows = 4 << 20

// reset forgets all rows.
func (r *rows) reset() {
	if cap(r.data) > keptRows {
		*r = rows{}
	}
	r.list, r.data = r.list[:0], r.data[:0]
}

// set puts a row. Key and value are copied.
func (r *rows) set(key, value []byte) { r.add(key, value, 0) }

// drop deletes a row.
func (r *rows) drop(key []byte) { r.add(key, nil, 1) }

// put sets a row, or deletes it when the value is nil.
func (r *rows) put(key, value []byte) {
	if value == nil {
		r.drop(key)
	} else {
		r.set(key, value)
	}
}

func (r *rows) add(key, value []byte, deletion uint32) {
	var head [8]byte
	copy(head[:], key)
	r.list = append(r.list, rowRef{
		head: binary.BigEndian.Uint64(head[:]), at: len(r.data), key: uint32(len(key)), value: uint32(len(value)),
		number: uint32(len(r.list))<<1 | deletion,
	})
	r.data = append(append(r.data, key...), value...)
}

func (r *rows) keyOf(w rowRef) []byte { return r.data[w.at : w.at+int(w.key)] }

// commit writes the rows atomically, unsynced. Of those with one key the last
// counts.
func (r *rows) commit(db *pebble.DB) error {
	slices.SortFunc(r.list, func(a, b rowRef) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		if c := bytes.Compare(r.keyOf(a), r.keyOf(b)); c != 0 {
			return c
		}
		return cmp.Compare(a.number, b.number)
	})
	const perRow = 8 // of the batch's own
	batch := db.NewBatchWithSize(len(r.data) + perRow*len(r.list))
	defer batch.Close()
	for i, w := range r.list {
		if i+1 < len(r.list) && bytes.Equal(r.keyOf(w), r.keyOf(r.list[i+1])) {
			continue
		}
		var err error
		if w.number&1 != 0 {
			err = batch.Delete(r.keyOf(w), nil)
		} else {
			value := w.at + int(w.key)
			err = batch.Set(r.keyOf(w), r.data[value:value+int(w.value)], nil)
		}
		if err != nil {
			return fmt.Errorf("catalog: apply: %w", err)
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("catalog: apply: %w", err)
	}
	return nil
}
