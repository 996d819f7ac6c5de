package raftlog

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
)

// Check reads the entries from an index on, and returns the ranges that cannot
// be read, ascending: nil when all can. It changes nothing. The error is that
// of ctx, or of something else than corruption.
func (s *Store) Check(ctx context.Context, from uint64) ([]*CorruptError, error) {
	var bad []*CorruptError
	first, last := s.Bounds()
	if last == 0 {
		return nil, nil
	}
	var l raft.Log
	for i := max(from, first); i <= last; i++ {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.KindOf(err), "raftlog: check: %w", err)
		}
		err := s.GetLog(i, &l)
		var c *CorruptError
		switch {
		case err == nil || errors.Is(err, raft.ErrLogNotFound): // read, or cut off meanwhile
		case !errors.As(err, &c):
			return nil, err
		case len(bad) > 0 && bad[len(bad)-1].Last+1 == i:
			bad[len(bad)-1].Last = i
		default:
			bad = append(bad, c)
		}
	}
	return bad, nil
}

// Replace puts entries that a peer has in the place of ones that cannot be
// read, in one synced commit. They must follow each other within the bounds, and
// their terms must lie between those of their neighbours, or they are
// fault.Invalid: committed entries of another log than this one.
func (s *Store) Replace(logs []*raft.Log) (err error) {
	if len(logs) == 0 {
		return nil
	}
	defer s.watch.begin(Truncate).end(&err)
	s.writing.Lock()
	defer s.writing.Unlock()
	first, last := s.Bounds()
	if logs[0].Index < first || logs[len(logs)-1].Index > last {
		return fault.New(fault.Invalid, "raftlog: replacing %d to %d of %d to %d", logs[0].Index, logs[len(logs)-1].Index, first, last)
	}
	before, err := s.termAt(logs[0].Index - 1)
	if err != nil {
		return err
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	for i, l := range logs {
		if l.Index != logs[0].Index+uint64(i) || l.Term < before {
			return fault.New(fault.Invalid, "raftlog: entry %d of term %d cannot follow one of term %d", l.Index, l.Term, before)
		}
		before = l.Term
		if err := put(batch, l); err != nil {
			return err
		}
	}
	after, err := s.termAt(logs[len(logs)-1].Index + 1)
	if err != nil {
		return err
	}
	if after != 0 && before > after {
		return fault.New(fault.Invalid, "raftlog: an entry of term %d cannot precede one of term %d", before, after)
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("raftlog: replace: %w", err)
	}
	if logs[len(logs)-1].Index == last {
		s.setBounds(first, last, before)
	}
	return nil
}

// termAt returns the term of an entry, 0 when it is out of bounds or unreadable.
func (s *Store) termAt(index uint64) (uint64, error) {
	first, last := s.Bounds()
	if index == 0 || index < first || index > last {
		return 0, nil
	}
	var l raft.Log
	if err := s.read(index, &l); err != nil && !fault.Is(err, fault.Corrupt) {
		return 0, err
	}
	return l.Term, nil
}

// FirstSince returns the first index whose entry the leader appended at a time
// or later, last+1 when none was, 0 without entries. Times are those of the
// leaders' clocks, which nothing but the length of the log depends on. Entries
// that cannot be read count as young.
func (s *Store) FirstSince(t time.Time) uint64 {
	first, last := s.Bounds()
	if last == 0 {
		return 0
	}
	n := sort.Search(int(last-first+1), func(i int) bool {
		var l raft.Log
		err := s.GetLog(first+uint64(i), &l)
		return err != nil || !l.AppendedAt.Before(t)
	})
	return first + uint64(n)
}
