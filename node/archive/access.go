package archive

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// fmtStore adds where an error of Pebble came from.
func fmtStore(err error) error {
	if err == nil {
		return nil
	}
	if pebble.IsCorruptionError(err) {
		return fault.New(fault.Corrupt, "store: %w", err)
	}
	return fmt.Errorf("store: %w", err)
}

// get reads one row; the value is the caller's.
func (a *Archive) get(key []byte) ([]byte, bool, error) {
	value, closer, err := a.store.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmtStore(err)
	}
	value = bytes.Clone(value)
	return value, true, fmtStore(closer.Close())
}

// each calls visit for every row under a prefix, in order, until it returns an
// error. Key and value are valid during the call, which should be short: the
// iterator keeps what Pebble could otherwise let go.
func (a *Archive) each(prefix []byte, visit func(key, value []byte) error) error {
	return a.eachFrom(prefix, after(prefix), visit)
}

// none reports whether there is no row under a prefix.
func (a *Archive) none(prefix []byte) (bool, error) {
	err := a.each(prefix, func(_, _ []byte) error { return errStop })
	if errors.Is(err, errStop) {
		return false, nil
	}
	return err == nil, err
}

// pageRows is how many rows are read at a time by those who take their time
// with each: an iterator that stayed open for hours would keep every table that
// Pebble has since replaced.
const pageRows = 512

// pages is as each, but holds no iterator while visit runs. Rows that are
// written meanwhile behind the one visited are seen.
func (a *Archive) pages(prefix []byte, visit func(key, value []byte) error) error {
	return a.pagesFrom(prefix, after(prefix), visit)
}

func (a *Archive) pagesFrom(from, upper []byte, visit func(key, value []byte) error) error {
	type row struct{ key, value []byte }
	page := make([]row, 0, 16)
	for {
		page = page[:0]
		err := a.eachFrom(from, upper, func(key, value []byte) error {
			page = append(page, row{bytes.Clone(key), bytes.Clone(value)})
			if len(page) == pageRows {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
		for _, r := range page {
			if err := visit(r.key, r.value); err != nil {
				return err
			}
		}
		if err == nil {
			return nil
		}
		from = append(page[len(page)-1].key, 0)
	}
}

func (a *Archive) eachFrom(lower, upper []byte, visit func(key, value []byte) error) error {
	it, err := a.store.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmtStore(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return fmtStore(err)
		}
		if err := visit(it.Key(), value); err != nil {
			return err
		}
	}
	return fmtStore(it.Error())
}
