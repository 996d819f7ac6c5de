package bulk

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pieceBytes is the value of one key. A frame of a CT is one or two pieces;
	// the sparse index of a 256 MB table takes 50 KB. Part of the format.
	pieceBytes = 128 << 10
	// maxBlobs of a table; the next number would be the index row's.
	maxBlobs = 1 << 20
	// indexBlob is the blob number of a table's last row, which lists its blobs.
	indexBlob = 1<<32 - 1

	tableKeyBytes = 1 + 8
	keyBytes      = tableKeyBytes + 4 + 4
)

// tableKey names a table.
type tableKey struct {
	space  Space
	number uint64
}

// String names the table in errors and logs.
func (t tableKey) String() string { return fmt.Sprintf("%c/%d", t.space, t.number) }

func (t tableKey) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, byte(t.space)), t.number)
}

// key is a piece's key in Pebble.
func (t tableKey) key(b []byte, blob, piece uint32) []byte {
	b = t.append(b)
	b = binary.BigEndian.AppendUint32(b, blob)
	return binary.BigEndian.AppendUint32(b, piece)
}

// span is the range of all the table's keys.
func (t tableKey) span() pebble.KeyRange {
	return pebble.KeyRange{Start: t.append(nil), End: tableKey{t.space, t.number + 1}.append(nil)}
}

// parseKey returns the table of a key.
func parseKey(b []byte) (tableKey, bool) {
	if len(b) != keyBytes {
		return tableKey{}, false
	}
	return tableKey{Space(b[0]), binary.BigEndian.Uint64(b[1:])}, true
}

// maxBlobBytes keeps piece numbers within 32 bits.
const maxBlobBytes = pieceBytes << 31

const indexVersion = 1

// appendIndex appends the index row: the version, the number of blobs, each
// one's length plus one, or zero for a blob that is not there any more.
func appendIndex(b []byte, sizes []int64) []byte {
	return appendSizes(append(b, indexVersion), sizes)
}

func parseIndex(b []byte) ([]int64, bool) {
	if len(b) == 0 || b[0] != indexVersion {
		return nil, false
	}
	sizes, rest, ok := parseSizes(b[1:])
	return sizes, ok && len(rest) == 0
}

func appendSizes(b []byte, sizes []int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(sizes)))
	for _, n := range sizes {
		b = binary.AppendUvarint(b, uint64(n+1))
	}
	return b
}

func parseSizes(b []byte) (sizes []int64, rest []byte, ok bool) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > maxBlobs || count > uint64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	sizes = make([]int64, count)
	for i := range sizes {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > maxBlobBytes+1 {
			return nil, nil, false
		}
		sizes[i], b = int64(v)-1, b[n:]
	}
	return sizes, b, true
}
