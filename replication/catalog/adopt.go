package catalog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// adoptRows bounds the series of one step of an adoption.
const adoptRows = 1000

// Adopt makes a copied checkpoint, which nobody has open, the catalogue of the
// node self: what other nodes said ahead of the log in it was theirs alone to
// know. The next Open drops that and folds again. fault.Unsupported if a newer
// version wrote it.
func Adopt(fs vfs.FS, dir, self string) (err error) {
	cache := pebble.NewCache(1 << 20)
	defer cache.Unref()
	po := pebbleOptions(fs, cache)
	rest(po)
	db, err := pebble.Open(dir, po)
	if err != nil {
		return fmt.Errorf("catalog: adopt: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	row, err := get(db, []byte{rowMeta})
	if err != nil {
		return err
	}
	if row == nil {
		return fault.New(fault.Corrupt, "catalog: adopt: no catalogue")
	}
	if _, err := decodeMeta(row); err != nil {
		return err
	}
	if err := db.Set([]byte{rowAdoption}, []byte(self), pebble.Sync); err != nil {
		return fmt.Errorf("catalog: adopt: %w", err)
	}
	return nil
}

// adopt ends an adoption that Adopt has begun.
func (c *Catalog) adopt() error {
	self, err := get(c.db, []byte{rowAdoption})
	if err != nil || self == nil {
		return err
	}
	for from := []byte{rowAhead}; from != nil; {
		marks, err := c.marks(from)
		if err != nil {
			return err
		}
		t := c.begin()
		for _, m := range marks {
			if err := t.disown(m, string(self)); err != nil {
				return err
			}
		}
		if err := c.commit(t, c.Position(), nil); err != nil {
			return err
		}
		if from = nil; len(marks) == adoptRows {
			from = append(marks[len(marks)-1].key, 0)
		}
	}
	if err := c.db.Delete([]byte{rowAdoption}, pebble.Sync); err != nil {
		return fmt.Errorf("catalog: adopt: %w", err)
	}
	return nil
}

// mark names a series that has sayings that are not committed yet.
type mark struct {
	key           []byte
	study, series string
}

// marks returns the marks from a key on, at most adoptRows.
func (c *Catalog) marks(from []byte) ([]mark, error) {
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after([]byte{rowAhead})})
	if err != nil {
		return nil, fmt.Errorf("catalog: read marks: %w", err)
	}
	defer it.Close()
	var all []mark
	for it.First(); it.Valid() && len(all) < adoptRows; it.Next() {
		key := append([]byte(nil), it.Key()...)
		if len(key) < len(aheadKey(0, "")) {
			return nil, fault.New(fault.Corrupt, "catalog: a mark names no series")
		}
		all = append(all, mark{key, string(it.Value()), string(key[len(aheadKey(0, "")):])})
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("catalog: read marks: %w", err)
	}
	return all, nil
}

// disown drops what nodes other than self said ahead of the log of a series.
func (t *txn) disown(m mark, self string) error {
	st, err := t.study(m.study, false)
	if err != nil || st == nil {
		return errors.Join(err, fault.New(fault.Corrupt, "catalog: a mark without its study"))
	}
	x, err := st.findSeries(m.series)
	if err != nil || x == nil {
		return errors.Join(err, fault.New(fault.Corrupt, "catalog: a mark without its series"))
	}
	placed := x.cur.place()
	var kept []origin
	for _, o := range x.cur.origins {
		if o.node != self {
			o.ahead = nil
		}
		if o.now() != nil {
			kept = append(kept, o)
		}
	}
	x.cur.origins, x.changed, st.refold = kept, true, true
	switch {
	case len(kept) == 0:
		x.cur = nil
		if !placed.committed() {
			st.cur.ahead--
		}
	case !placed.committed() && x.cur.place().committed():
		st.cur.ahead--
	}
	return nil
}
