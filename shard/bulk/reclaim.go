package bulk

import (
	"context"
	"slices"

	"pelago/cluster/fault"
)

// reclaimAt is the dead share of a table, in percent, from which it is
// rewritten.
const reclaimAt = 30

// Reclaim rewrites every table of which 30 % or more is dead, one after the
// other, and returns the bytes given back. The blobs keep their Refs and stay
// readable all the while. It needs the room of one table; fault.Full if there
// is none. Call it from time to time, from one goroutine or several.
func (s *Store) Reclaim(ctx context.Context) (freed int64, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	for {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		if err := s.usable(); err != nil {
			return freed, err
		}
		key, sizes, before, ok := s.pick()
		if !ok {
			return freed, nil
		}
		after, err := s.rewrite(ctx, key, sizes)
		s.release(key)
		if err != nil {
			return freed, err
		}
		freed += before - after
		if err := s.drop(ctx, key); err != nil { // all of it may have died meanwhile
			return freed, err
		}
	}
}

// Reclaimable is how many bytes of dead blobs are in tables that [Store.Reclaim] would
// rewrite: about what it gives back.
func (s *Store) Reclaimable() (bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tables {
		if t.worthRewriting() {
			bytes += t.dead
		}
	}
	return bytes
}

// worthRewriting reports whether a table is to be rewritten without its dead. One that
// is wholly dead goes without that.
func (t *table) worthRewriting() bool { return t.live > 0 && t.dead*100 >= t.bytes*reclaimAt }

// pick takes the next table to rewrite, and what of it was alive.
func (s *Store) pick() (key tableKey, sizes []int64, bytes int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.tables {
		if !t.busy && t.worthRewriting() {
			t.busy = true
			return key, slices.Clone(t.sizes), t.bytes, true
		}
	}
	return key, nil, 0, false
}

func (s *Store) release(key tableKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[key]; t != nil {
		t.busy = false
	}
}

// rewrite puts a table with the live blobs under the same keys in the old one's
// place. A blob that turns out rotten is reported and left out.
func (s *Store) rewrite(ctx context.Context, key tableKey, sizes []int64) (bytes int64, err error) {
	for {
		out, err := s.create(key)
		if err != nil {
			return 0, err
		}
		whole, err := s.copyLive(ctx, out, key, sizes)
		if err != nil {
			out.abort()
			return 0, err
		}
		if !whole {
			out.abort() // pieces of a rotten blob are in it: begin again without it
			continue
		}
		if err := out.finish(sizes); err != nil {
			return 0, err
		}
		if err := s.swap(ctx, key, out.path); err != nil {
			out.remove()
			return 0, diskError("replace a table", err)
		}
		if err := s.usable(); err != nil {
			return 0, err
		}
		return out.bytes, s.replaced(key, out.bytes, sizes)
	}
}

// swap puts a rewritten table in the old one's place. For a moment Pebble shows
// readers neither of them: the new version before its sequence number. Readers
// who find nothing wait for the end (Store.swapping).
func (s *Store) swap(ctx context.Context, key tableKey, path string) error {
	done := make(chan struct{})
	s.mu.Lock()
	t := s.tables[key]
	t.swap = done
	s.mu.Unlock()
	_, err := s.db.IngestAndExcise(ctx, []string{path}, nil, nil, key.span())
	s.mu.Lock()
	t.swap = nil
	s.mu.Unlock()
	close(done)
	return err
}

// swapping is closed when the table's replacement, if one is under way, is over.
func (s *Store) swapping(key tableKey) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[key]; t != nil {
		return t.swap
	}
	return nil
}

// copyLive copies the live blobs and marks the others in sizes. It stops with
// false when a blob turns out rotten after part of it was copied.
func (s *Store) copyLive(ctx context.Context, out *tableFile, key tableKey, sizes []int64) (bool, error) {
	for i := range sizes {
		r := Ref{key.space, key.number, uint32(i), sizes[i]}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if _, ok := s.size(r); !ok {
			sizes[i] = -1
			continue
		}
		ok, err := s.copyBlob(out, r)
		if err != nil {
			return false, err
		}
		if !ok {
			sizes[i] = -1
			return false, nil
		}
	}
	return true, nil
}

// copyBlob copies a blob into the new table; false if it is rotten. A blob that
// dies meanwhile is copied and stays dead.
func (s *Store) copyBlob(out *tableFile, r Ref) (bool, error) {
	w := out.blob(r.Blob)
	buf := make([]byte, min(pieceBytes, r.Bytes))
	for off := int64(0); off < r.Bytes; off += pieceBytes {
		p := buf[:min(pieceBytes, r.Bytes-off)]
		if _, err := s.readPiece(p, r, off); err != nil {
			if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.NotFound) {
				return false, nil
			}
			return false, err
		}
		if _, err := w.write(p); err != nil {
			return false, err
		}
	}
	return true, w.flush()
}

// replaced notes a rewritten table. Blobs that died during the rewriting are in
// it, and stay dead.
func (s *Store) replaced(key tableKey, bytes int64, sizes []int64) error {
	var next *table
	return s.ledger.add(func() []record {
		next = newTable(sizes, bytes)
		next.busy = true
		s.mu.Lock()
		defer s.mu.Unlock()
		old := s.tables[key]
		for i := range sizes {
			if !old.alive(uint32(i)) {
				next.kill(uint32(i))
			}
		}
		return next.records(key)
	}, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tables[key] = next
	})
}
