package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
)

// Rows of the store; docs/formats/raft.md has them to the byte.
const (
	prefixLog    = 'l' // index (8, big endian) → entry
	prefixStable = 's' // name → value
	prefixVote   = 'v' // → term and candidate of the last vote
)

const formatVersion = 1

const (
	// MaxEntryBytes bounds the data and extensions of one entry. It is the
	// library's own suggestion: a longer one delays the heartbeats behind it.
	MaxEntryBytes = raft.SuggestedMaxDataSize
	// MaxConfigurationBytes bounds a membership entry, which the library writes
	// itself: 1,000 nodes with long addresses.
	MaxConfigurationBytes = 1 << 20
	// maxStableBytes bounds a value of the stable store: a name and an address.
	maxStableBytes = 4 << 10
)

// entryHeader: version (1), type (1), term (8), appended at (8), length of the
// data (4), length of the extensions (4).
const (
	entryHeader   = 1 + 1 + 8 + 8 + 4 + 4
	checksumBytes = 4
)

func castagnoli(key, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once, by the standard library
	return crc32.Update(crc32.Update(0, table, key), table, value)
}

func logKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixLog}, index)
}

func stableKey(name []byte) []byte { return append([]byte{prefixStable}, name...) }

// entryBound is what the data and extensions of an entry may take together.
func entryBound(t raft.LogType) int {
	if t == raft.LogConfiguration {
		return MaxConfigurationBytes
	}
	return MaxEntryBytes
}

func entrySize(l *raft.Log) int {
	return entryHeader + len(l.Data) + len(l.Extensions) + checksumBytes
}

// putEntry writes an entry into row, which is entrySize long.
func putEntry(row, key []byte, l *raft.Log) {
	row[0], row[1] = formatVersion, byte(l.Type)
	binary.BigEndian.PutUint64(row[2:], l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	binary.BigEndian.PutUint64(row[10:], uint64(at))
	binary.BigEndian.PutUint32(row[18:], uint32(len(l.Data)))
	binary.BigEndian.PutUint32(row[22:], uint32(len(l.Extensions)))
	n := entryHeader + copy(row[entryHeader:], l.Data)
	n += copy(row[n:], l.Extensions)
	binary.BigEndian.PutUint32(row[n:], castagnoli(key, row[:n]))
}

// getEntry reads an entry into l, which keeps nothing of the row. An error is
// fault.Corrupt, or fault.Unsupported for a whole row of a later version.
func getEntry(row, key []byte, l *raft.Log) error {
	body, err := checked(row, key)
	if err != nil {
		return err
	}
	if len(body) < entryHeader {
		return fault.New(fault.Corrupt, "raftlog: an entry of %d bytes", len(row))
	}
	data, extensions := uint64(binary.BigEndian.Uint32(body[18:])), uint64(binary.BigEndian.Uint32(body[22:]))
	kind := raft.LogType(body[1])
	if kind > raft.LogConfiguration || data+extensions > uint64(entryBound(kind)) ||
		uint64(len(body)) != entryHeader+data+extensions {
		return fault.New(fault.Corrupt, "raftlog: an entry of %d bytes, type %d, claims %d and %d", len(row), body[1], data, extensions)
	}
	*l = raft.Log{
		Index: binary.BigEndian.Uint64(key[1:]), Type: kind, Term: binary.BigEndian.Uint64(body[2:]),
		Data: append([]byte(nil), body[entryHeader:entryHeader+data]...),
	}
	if extensions > 0 {
		l.Extensions = append([]byte(nil), body[entryHeader+data:]...)
	}
	if at := int64(binary.BigEndian.Uint64(body[10:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	return nil
}

// checked returns a row without its checksum, if that and the version hold.
func checked(row, key []byte) ([]byte, error) {
	n := len(row) - checksumBytes
	if n < 1 {
		return nil, fault.New(fault.Corrupt, "raftlog: a row of %d bytes", len(row))
	}
	if castagnoli(key, row[:n]) != binary.BigEndian.Uint32(row[n:]) {
		return nil, fault.New(fault.Corrupt, "raftlog: a row fails its checksum")
	}
	if row[0] != formatVersion {
		return nil, fault.New(fault.Unsupported, "raftlog: a row of version %d", row[0])
	}
	return row[:n], nil
}

// sealed returns a row: version, body, checksum.
func sealed(key, body []byte) []byte {
	row := append([]byte{formatVersion}, body...)
	return binary.BigEndian.AppendUint32(row, castagnoli(key, row))
}

// vote is the last vote that was given.
type vote struct {
	term      uint64
	candidate []byte
}

func (v vote) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, v.term), v.candidate...)
}

func decodeVote(row []byte) (vote, error) {
	body, err := checked(row, []byte{prefixVote})
	if err != nil {
		return vote{}, fmt.Errorf("raftlog: vote: %w", err)
	}
	if body = body[1:]; len(body) < 8 || len(body) > 8+maxStableBytes {
		return vote{}, fault.New(fault.Corrupt, "raftlog: a vote of %d bytes", len(row))
	}
	return vote{binary.BigEndian.Uint64(body), append([]byte(nil), body[8:]...)}, nil
}

// CorruptError says that entries cannot be read: their rows fail their
// checksums, are missing between others, or lie in a block that cannot be read.
type CorruptError struct {
	First, Last uint64 // indexes, inclusive
	Err         error  // of the first
}

// Error names the range.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("raftlog: entries %d to %d: %v", e.First, e.Last, e.Err)
}

// Unwrap returns an error of kind fault.Corrupt.
func (e *CorruptError) Unwrap() error { return e.Err }

// afterLog is the first key behind all entries.
func afterLog() []byte { return []byte{prefixLog + 1} }

// behind is the key after that of an index.
func behind(index uint64) []byte {
	if index == math.MaxUint64 {
		return afterLog()
	}
	return logKey(index + 1)
}
