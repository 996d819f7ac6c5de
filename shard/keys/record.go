package keys

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"pelago/shard/seal"
)

const (
	fileName  = "studies"
	fileMagic = "PelKeys\x01" // the last byte is the version

	// A record: mark, length of the study, CRC-32C of all that follows it; then
	// key id, epoch, wrapped key, study.
	recordMark  = "PSK1"
	headBytes   = 4 + 2 + 4
	fixedBytes  = 16 + 4 + seal.WrappedBytes
	maxStudy    = 1 << 10
	recordBytes = headBytes + fixedBytes // without the study
)

// record is one wrapped study key.
type record struct {
	id      [16]byte
	epoch   uint32
	wrapped [seal.WrappedBytes]byte
	study   []byte // of a parsed record, a part of what it was parsed from
}

func (r *record) append(b []byte) []byte {
	b = append(b, recordMark...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.study)))
	sum := len(b)
	b = append(b, 0, 0, 0, 0)
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint32(b, r.epoch)
	b = append(b, r.wrapped[:]...)
	b = append(b, r.study...)
	binary.BigEndian.PutUint32(b[sum:], checksum(b[sum-2:sum], b[sum+4:]))
	return b
}

func (r *record) size() int { return recordBytes + len(r.study) }

// parse reads the record at the head of b; false if none stands there whole.
func (r *record) parse(b []byte) bool {
	if len(b) < recordBytes || string(b[:4]) != recordMark {
		return false
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size == 0 || size > maxStudy || len(b) < recordBytes+size ||
		binary.BigEndian.Uint32(b[6:]) != checksum(b[4:6], b[headBytes:recordBytes+size]) {
		return false
	}
	b = b[headBytes:]
	copy(r.id[:], b)
	r.epoch = binary.BigEndian.Uint32(b[16:])
	copy(r.wrapped[:], b[20:])
	r.study = b[fixedBytes : fixedBytes+size]
	return true
}

// next is where, after the first byte of b, another record may begin.
func next(b []byte) int {
	if i := bytes.Index(b[1:], []byte(recordMark)); i >= 0 {
		return 1 + i
	}
	return len(b)
}

func checksum(length, rest []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(length, table), table, rest)
}
