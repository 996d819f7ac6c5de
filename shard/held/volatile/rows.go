// Package volatile has rows that are nowhere but in memory, for stores that live no
// longer than their process: those of tests and measurements. A node's rows are a
// part of its store/ (*archive.Rows), to which they are alike.
package volatile

import (
	"bytes"
	"maps"
	"slices"
	"sync"
)

// Rows are what a held.Store keeps its rows in. They may be used by several
// goroutines; the zero value is empty.
type Rows struct {
	mu   sync.Mutex
	rows map[string][]byte
}

// Commit writes rows, and drops those whose value is nil.
func (r *Rows) Commit(rows map[string][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows == nil {
		r.rows = map[string][]byte{}
	}
	for key, value := range rows {
		if value == nil {
			delete(r.rows, key)
		} else {
			r.rows[key] = bytes.Clone(value)
		}
	}
	return nil
}

// Get returns a row.
func (r *Rows) Get(key string) (value []byte, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, ok = r.rows[key]
	return bytes.Clone(value), ok, nil
}

// From visits rows in key order, from the first one that is not before key on, until
// visit returns false: as they are when it is called, whatever visit changes.
func (r *Rows) From(key string, visit func(key string, value []byte) (bool, error)) error {
	r.mu.Lock()
	rows := maps.Clone(r.rows) // values are replaced, never changed
	r.mu.Unlock()
	keys := slices.Sorted(maps.Keys(rows))
	first, _ := slices.BinarySearch(keys, key)
	for _, k := range keys[first:] {
		if more, err := visit(k, rows[k]); err != nil || !more {
			return err
		}
	}
	return nil
}

// Keys are those of all rows, in order.
func (r *Rows) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.rows))
}
