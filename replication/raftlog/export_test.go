package raftlog

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// SetRow writes a row as it stands.
func (s *Store) SetRow(key, row []byte) error { return s.db.Set(key, row, pebble.Sync) }

// Row reads a row as it stands.
func (s *Store) Row(key []byte) ([]byte, error) { return s.get(key) }

// Flush writes what is in memory into a table.
func (s *Store) Flush() error { return s.db.Flush() }

// LogKey is the key of an entry.
func LogKey(index uint64) []byte { return logKey(index) }

// DecodeEntry reads a row.
func DecodeEntry(row, key []byte, l *raft.Log) error { return getEntry(row, key, l) }

// EncodeEntry writes a row.
func EncodeEntry(key []byte, l *raft.Log) []byte {
	row := make([]byte, entrySize(l))
	putEntry(row, key, l)
	return row
}

// Reseal gives a row the checksum of what it holds.
func Reseal(key, row []byte) []byte {
	if len(row) < checksumBytes {
		return row
	}
	body := row[: len(row)-checksumBytes : len(row)-checksumBytes]
	return binary.BigEndian.AppendUint32(body, castagnoli(key, body))
}
