package raftlog

import (
	"encoding/binary"
	"errors"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

// A log that was put back from an earlier copy has forgotten what it acknowledged and
// whom it has elected, and nothing in it tells. So a file outside it, the mark, keeps
// what it has reached at least: how often it was opened, the term of its last vote,
// term and index of its last entry. The log is always written before its mark, and a
// suffix that goes is taken off the mark before: a log that lies behind its mark is an
// earlier one. Its index alone would not tell of entries that took the place of others.
//
// A vote is in the mark before anybody hears of it, and so is every start. Of entries
// the mark is exact when the log is closed, and up to one call of Mark behind else.

// startsName is the stable value that counts how often the log was opened.
const startsName = "Starts"

const markMagic = "PelMark\x02"

// mark is what a log has reached at least.
type mark struct{ starts, vote, term, last uint64 }

const markBytes = 4 * 8

func (m mark) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, m.starts)
	b = binary.BigEndian.AppendUint64(b, m.vote)
	b = binary.BigEndian.AppendUint64(b, m.term)
	return binary.BigEndian.AppendUint64(b, m.last)
}

// readMark reads a mark, a zero one if there is none yet. Of one that is rotten
// nothing is known: known is false.
func readMark(fs vfs.FS, path string) (m mark, known bool, err error) {
	b, err := identity.ReadFramed(fs, path, markMagic)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return mark{}, true, nil
	case fault.Is(err, fault.Corrupt), err == nil && len(b) != markBytes:
		return mark{}, false, nil
	case err != nil:
		return mark{}, false, err
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return mark{u(0), u(1), u(2), u(3)}, true, nil
}

// compare finds out whether the log is the one that its mark is of, and counts the
// start if it is.
func (s *Store) compare() error {
	if s.markName == "" {
		return nil
	}
	m, known, err := readMark(s.fs, s.fs.PathJoin(s.markDir, s.markName))
	if err != nil {
		return err
	}
	starts, err := s.GetUint64([]byte(startsName))
	if err != nil {
		return err
	}
	s.marked = m
	// Of a last entry that has rotted the term is not known. It is fetched.
	rotten := s.last > 0 && s.lastTerm == 0
	s.older = !known || starts < m.starts || s.vote.term < m.vote || s.last < m.last || s.lastTerm < m.term && !rotten
	if s.older {
		return nil
	}
	return s.renew(starts)
}

// Older reports whether the log is an earlier one than it was: it was put back from a
// copy, or lost. Until Renew it must not vote, nor store for others. Without
// Options.Mark nobody can tell.
func (s *Store) Older() bool {
	s.marking.Lock()
	defer s.marking.Unlock()
	return s.older
}

// Renew makes the log, as it is now, the one that its mark is of.
func (s *Store) Renew() error {
	if s.markName == "" {
		return nil
	}
	starts, err := s.GetUint64([]byte(startsName))
	if err != nil {
		return err
	}
	return s.renew(starts)
}

// renew counts a start, and marks what the log has reached.
func (s *Store) renew(starts uint64) error {
	s.marking.Lock()
	defer s.marking.Unlock()
	next := mark{starts: max(starts, s.marked.starts) + 1}
	if err := s.SetUint64([]byte(startsName), next.starts); err != nil {
		return err
	}
	s.mu.Lock()
	next.vote, next.term, next.last = s.vote.term, s.lastTerm, s.last
	s.mu.Unlock()
	if err := s.markLocked(next); err != nil {
		return err
	}
	s.older = false
	return nil
}

// Appended returns a channel that holds a token once there are entries that Mark has
// not been called for.
func (s *Store) Appended() <-chan struct{} { return s.appended }

// Mark brings the mark to where the log is.
func (s *Store) Mark() error {
	s.marking.Lock()
	defer s.marking.Unlock()
	next := s.marked
	s.mu.Lock()
	next.vote, next.term, next.last = s.vote.term, s.lastTerm, s.last
	s.mu.Unlock()
	if s.older || next == s.marked {
		return nil
	}
	return s.markLocked(next)
}

// lowerLocked takes what the log is about to lose off the mark: it will end with an
// entry of a term.
func (s *Store) lowerLocked(term, last uint64) error {
	next := s.marked
	next.term, next.last = min(next.term, term), min(next.last, last)
	if s.older || next == s.marked {
		return nil
	}
	return s.markLocked(next)
}

func (s *Store) markLocked(m mark) (err error) {
	if s.markName == "" {
		return nil
	}
	defer s.watch.begin(WriteStable).end(&err)
	if err := identity.WriteFile(s.fs, s.markDir, s.markName, identity.Frame(markMagic, m.encode())); err != nil {
		return err
	}
	s.marked = m
	return nil
}
