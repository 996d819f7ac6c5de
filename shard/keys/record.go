package keys

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"pelago/shard/seal"
)

const (
	fileName  = "studies"
	fileMagic = "PelKeys\x02" // the last byte is the version

	// A record: mark, length of the study, length of the origin, CRC-32C of all that
	// follows it and of both lengths; then key id, epoch, wrapped key, study, origin.
	recordMark  = "PSK2"
	sumAt       = 4 + 2 + 1
	headBytes   = sumAt + 4
	fixedBytes  = 16 + 4 + seal.WrappedBytes
	maxStudy    = 1 << 10
	maxOrigin   = 1<<8 - 1
	recordBytes = headBytes + fixedBytes // without study and origin
	maxRecord   = recordBytes + maxStudy + maxOrigin
)

// record is one wrapped study key.
type record struct {
	id      [16]byte
	epoch   uint32
	wrapped [seal.WrappedBytes]byte
	study   []byte // of a parsed record, a part of what it was parsed from
	origin  []byte // the node whose key it is; empty: this node's own. As study
}

func (r *record) append(b []byte) []byte {
	b = append(b, recordMark...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.study)))
	b = append(b, byte(len(r.origin)))
	sum := len(b)
	b = append(b, 0, 0, 0, 0)
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint32(b, r.epoch)
	b = append(b, r.wrapped[:]...)
	b = append(append(b, r.study...), r.origin...)
	binary.BigEndian.PutUint32(b[sum:], checksum(b[sum-3:sum], b[sum+4:]))
	return b
}

func (r *record) size() int { return recordBytes + len(r.study) + len(r.origin) }

// wrapping names a record: a key that was wrapped anew has another record under its
// id.
type wrapping struct {
	id    [16]byte
	epoch uint32
}

func (r *record) wrapping() wrapping { return wrapping{r.id, r.epoch} }

// own reports whether it is a key of this node.
func (r *record) own() bool { return len(r.origin) == 0 }

// parse reads the record at the head of b; false if none stands there whole.
func (r *record) parse(b []byte) bool {
	if len(b) < recordBytes || string(b[:4]) != recordMark {
		return false
	}
	study, origin := int(binary.BigEndian.Uint16(b[4:])), int(b[6])
	size := recordBytes + study + origin
	if study == 0 || study > maxStudy || len(b) < size ||
		binary.BigEndian.Uint32(b[sumAt:]) != checksum(b[4:sumAt], b[headBytes:size]) {
		return false
	}
	b = b[headBytes:size]
	copy(r.id[:], b)
	r.epoch = binary.BigEndian.Uint32(b[16:])
	copy(r.wrapped[:], b[20:])
	r.study, r.origin = b[fixedBytes:fixedBytes+study], b[fixedBytes+study:]
	return true
}

// next is where, after the first byte of b, another record may begin.
func next(b []byte) int {
	if i := bytes.Index(b[1:], []byte(recordMark)); i >= 0 {
		return 1 + i
	}
	return len(b)
}

func checksum(lengths, rest []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(lengths, table), table, rest)
}
