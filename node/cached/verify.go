package cached

import (
	"context"
	"slices"
	"sync/atomic"

	"pelago/cluster/fault"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Stats count since the start.
type Stats struct {
	Kept    atomic.Uint64 // packs
	Evicted atomic.Uint64 // packs that made room
	Dropped atomic.Uint64 // packs that were rotten, or of what was deleted
	Hits    atomic.Uint64 // reads of other nodes' packs that copies answered
	Misses  atomic.Uint64 // reads that other nodes, or memory, had to answer
}

// Counters are the store's counters.
func (s *Store) Counters() *Stats { return &s.stats }

// Checked is what [Store.Verify] did.
type Checked struct {
	Copies, Bytes uint64
	Dropped       uint64 // of them, because they were rotten
}

// Verify reads every copy whole and drops those that are not what was kept: they
// are fetched again when somebody wants them. Copies that go meanwhile, or come,
// or whose key cannot be unwrapped for now, are passed over. progress is called with how many are done, and how many there
// are.
func (s *Store) Verify(ctx context.Context, progress func(done, total uint64)) (Checked, error) {
	var c Checked
	s.mu.Lock()
	ids := make([]pack.ID, 0, len(s.kept))
	for id := range s.kept {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	slices.SortFunc(ids, func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) })
	for i, id := range ids {
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		n, err := s.verifyOne(id)
		switch {
		case err == nil:
			c.Copies, c.Bytes = c.Copies+1, c.Bytes+uint64(n)
		case fault.Is(err, fault.Unavailable): // its epoch key is not here: that says nothing of the copy
		case s.Has(id): // else it was evicted under our eyes
			c.Copies, c.Dropped = c.Copies+1, c.Dropped+1
			s.Discard(id, err)
		}
		if progress != nil {
			progress(uint64(i+1), uint64(len(ids)))
		}
	}
	return c, nil
}

// verifyOne reads a copy whole, without its counting as read.
func (s *Store) verifyOne(id pack.ID) (int64, error) {
	row, err := s.row(id)
	if err != nil {
		return 0, err
	}
	p := row.Pack
	if len(p.Root) != 32 || pack.ID(p.Id) != id {
		return 0, fault.New(fault.Corrupt, "cached: a row of another pack, or without its root")
	}
	if _, err := s.o.Ring.Unwrap([16]byte(p.Key), row.Key); err != nil {
		return 0, err
	}
	return p.BlobBytes, seal.VerifyRoot(s.o.Bulk.Reader(refOf(row)), p.BlobBytes, [32]byte(p.Root))
}
