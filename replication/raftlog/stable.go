package raftlog

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// Names that the library gives to the two halves of a vote.
const (
	voteTerm      = "LastVoteTerm"
	voteCandidate = "LastVoteCand"
)

// Set writes a value, synced. That of the last vote's candidate is written
// together with the term that was held back.
func (s *Store) Set(name, value []byte) (err error) {
	defer s.watch.begin(WriteStable).end(&err)
	if len(name) > maxStableBytes || len(value) > maxStableBytes {
		return fault.New(fault.Invalid, "raftlog: a stable value of %d bytes under %d", len(value), len(name))
	}
	if string(name) == voteCandidate {
		return s.castVote(value)
	}
	key := stableKey(name)
	if err := s.db.Set(key, sealed(key, value), pebble.Sync); err != nil {
		return fmt.Errorf("raftlog: write: %w", err)
	}
	return nil
}

// castVote writes the vote for a candidate in the term that was held back, or
// in that of the last vote.
func (s *Store) castVote(candidate []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	v := vote{s.vote.term, append([]byte(nil), candidate...)}
	if s.staged != nil {
		v.term, s.staged = *s.staged, nil
	}
	s.mu.Unlock()
	key := []byte{prefixVote}
	if err := s.db.Set(key, sealed(key, v.encode()), pebble.Sync); err != nil {
		return fmt.Errorf("raftlog: vote: %w", err)
	}
	s.mu.Lock()
	s.vote = v
	s.mu.Unlock()
	return s.Mark()
}

// Get returns a value, nil when there is none.
func (s *Store) Get(name []byte) (value []byte, err error) {
	defer s.watch.begin(ReadStable).end(&err)
	if string(name) == voteCandidate {
		s.mu.Lock()
		defer s.mu.Unlock()
		return append([]byte(nil), s.vote.candidate...), nil
	}
	key := stableKey(name)
	row, err := s.get(key)
	if row == nil || err != nil {
		return nil, err
	}
	body, err := checked(row, key)
	if err != nil {
		return nil, fmt.Errorf("raftlog: stable value: %w", err)
	}
	return body[1:], nil
}

// SetUint64 writes a number, synced. The term of a vote is held back until Set
// names its candidate; until then reads, and a restart, know the vote before.
func (s *Store) SetUint64(name []byte, value uint64) error {
	if string(name) == voteTerm {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.staged = &value
		return nil
	}
	return s.Set(name, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number, 0 when there is none.
func (s *Store) GetUint64(name []byte) (uint64, error) {
	if string(name) == voteTerm {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.vote.term, nil
	}
	b, err := s.Get(name)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fault.New(fault.Corrupt, "raftlog: a number of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
