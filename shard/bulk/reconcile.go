package bulk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"pelago/cluster/fault"
)

// numbersAfterDamage is how many table numbers are passed over when the ledger
// was damaged, for the newest may have been given already.
const numbersAfterDamage = 1 << 20

// inventory is what Pebble has.
type inventory struct {
	present map[tableKey]int64 // bytes of the file
	missing map[tableKey]bool  // in the manifest, without a file
	files   map[string]bool    // names of the files of those present
}

// reconcile compares what the ledger says with what Pebble has. It brings back
// what Pebble forgot, reports what is missing, finishes what a crash cut off,
// and writes the ledger anew.
func (s *Store) reconcile(damaged error) error {
	ctx := context.Background()
	found := &inventory{present: map[tableKey]int64{}, missing: map[tableKey]bool{}, files: map[string]bool{}}
	if err := s.take(found, tableKey{}, tableKey{math.MaxUint8, 0}); err != nil {
		return err
	}
	left := s.guard.release(found.files)
	if damaged != nil && len(found.present)+len(found.missing)+len(s.tables)+len(left) > 0 {
		s.o.Log.Warn("the ledger of bulk storage ends early, by a crash or by rot; tables it does not know are adopted",
			"error", damaged)
		s.next += numbersAfterDamage
	}
	if err := s.rescue(ctx, left, found, damaged != nil); err != nil {
		return err
	}
	for key := range found.present {
		if s.tables[key] != nil {
			continue
		}
		if s.begun[key] || damaged == nil && key.number < s.next {
			// its Commit never returned, or it went and Pebble forgot that
			if err := s.db.Excise(ctx, key.span()); err != nil {
				return diskError("excise a table", err)
			}
			delete(found.present, key)
			continue
		}
		s.adopt(key, found.present[key])
	}
	clear(s.begun)
	for key := range found.missing {
		s.next = max(s.next, key.number+1)
	}
	if err := s.ledger.renew(); err != nil {
		return err
	}
	return s.settle(ctx, found)
}

// settle reports missing tables and drops the wholly dead.
func (s *Store) settle(ctx context.Context, found *inventory) error {
	s.mu.Lock()
	keys := s.sortedLocked()
	s.mu.Unlock()
	for _, key := range keys {
		bytes, ok := found.present[key]
		s.mu.Lock()
		t := s.tables[key]
		t.bytes = bytes
		live := t.live
		s.mu.Unlock()
		switch {
		case !ok && live > 0:
			s.o.Log.Error("a table of bulk storage is missing", "table", key.String())
			cause := fault.New(fault.Corrupt, "bulk: table %v is missing", key)
			if err := s.loseAll(s.refs(key), cause); err != nil {
				return err
			}
		case live == 0:
			if err := s.drop(ctx, key); err != nil {
				return err
			}
		}
		delete(found.missing, key)
	}
	for key := range found.missing { // unknown to the ledger, without a file
		s.o.Log.Error("an unknown table of bulk storage is missing", "table", key.String())
		if err := s.db.Excise(ctx, key.span()); err != nil {
			return diskError("excise a table", err)
		}
	}
	return s.usable()
}

// take lists Pebble's tables from lo to before hi. Pebble refuses to list a
// range in which a file is missing, so a range that fails is divided until the
// missing tables stand alone.
func (s *Store) take(found *inventory, lo, hi tableKey) error {
	levels, err := s.db.SSTables(pebble.WithKeyRangeFilter(lo.append(nil), hi.append(nil)))
	if err == nil {
		for _, level := range levels {
			for _, t := range level {
				if t.Smallest.UserKey == nil {
					continue // room of those filtered out
				}
				key, ok := parseKey(t.Smallest.UserKey)
				if !ok {
					return fault.New(fault.Corrupt, "bulk: file %v holds foreign keys", t.BackingSSTNum)
				}
				found.present[key] += int64(t.Size)
				found.files[t.BackingSSTNum.String()+tableSuffix] = true
			}
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("bulk: list tables: %w", err)
	}
	mid, ok := middle(lo, hi)
	if !ok {
		found.missing[lo] = true
		return nil
	}
	if err := s.take(found, lo, mid); err != nil {
		return err
	}
	return s.take(found, mid, hi)
}

// middle divides a range of tables; false if it holds one only.
func middle(lo, hi tableKey) (tableKey, bool) {
	spaces := hi.space - lo.space
	switch {
	case spaces > 1:
		return tableKey{lo.space + spaces/2, 0}, true
	case spaces == 1 && hi.number > 0:
		return tableKey{hi.space, 0}, true
	case spaces == 1: // the rest of lo's space
		rest := math.MaxUint64 - lo.number
		return tableKey{lo.space, lo.number + rest/2 + 1}, rest > 0
	case hi.number-lo.number > 1:
		return tableKey{lo.space, lo.number + (hi.number-lo.number)/2}, true
	}
	return tableKey{}, false
}

// adopt takes in a table that the ledger does not know, by what it lists itself.
func (s *Store) adopt(key tableKey, bytes int64) {
	s.next = max(s.next, key.number+1)
	sizes, err := s.index(key)
	if err != nil {
		s.o.Log.Error("an unknown table of bulk storage cannot be read; it stays, unserved",
			"table", key.String(), "error", err)
		return
	}
	s.tables[key] = newTable(sizes, bytes)
}
