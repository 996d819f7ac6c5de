package archive

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// rowFace begins the rows that a face keeps in store/ for work of its own that
// must survive a crash: k name 0 key → value.
const rowFace = 'k'

// Rows is one face's durable rows: small things, such as storage commitment
// requests that wait for their result.
type Rows struct {
	a      *Archive
	prefix []byte
}

// Rows returns the rows under a name, which is fixed for ever once released.
func (a *Archive) Rows(name string) *Rows {
	return &Rows{a: a, prefix: appendUID([]byte{rowFace}, name)}
}

func (r *Rows) key(key string) []byte { return append(append([]byte(nil), r.prefix...), key...) }

// Put writes a row and returns once it is durable.
func (r *Rows) Put(key string, value []byte) error {
	return r.a.store.Set(r.key(key), value, pebble.Sync)
}

// Get reads a row.
func (r *Rows) Get(key string) (value []byte, ok bool, err error) { return r.a.get(r.key(key)) }

// Note writes rows, and drops those whose value is nil, all or none. A crash may
// undo it, but never a part of it, and never what was noted before.
func (r *Rows) Note(rows map[string][]byte) error { return r.write(rows, pebble.NoSync) }

// Commit is Note that is durable when it returns.
func (r *Rows) Commit(rows map[string][]byte) error { return r.write(rows, pebble.Sync) }

func (r *Rows) write(rows map[string][]byte, sync *pebble.WriteOptions) error {
	batch := r.a.store.NewBatch()
	defer batch.Close()
	for key, value := range rows {
		var err error
		if value == nil {
			err = batch.Delete(r.key(key), nil)
		} else {
			err = batch.Set(r.key(key), value, nil)
		}
		if err != nil {
			return err
		}
	}
	return fmtStore(batch.Commit(sync))
}

// Delete drops a row, durably.
func (r *Rows) Delete(key string) error { return r.a.store.Delete(r.key(key), pebble.Sync) }

// Each visits the rows in key order; the value is valid during the call.
func (r *Rows) Each(visit func(key string, value []byte) error) error {
	return r.a.each(r.prefix, func(key, value []byte) error {
		return visit(string(key[len(r.prefix):]), value)
	})
}

// From visits the rows in key order, from the first that is not before key on,
// until visit returns false; the value is valid during the call.
func (r *Rows) From(key string, visit func(key string, value []byte) (bool, error)) error {
	err := r.a.eachFrom(r.key(key), after(r.prefix), func(key, value []byte) error {
		more, err := visit(string(key[len(r.prefix):]), value)
		if err == nil && !more {
			return errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
