package staging

import (
	"encoding/binary"
	"hash/crc32"
)

// frameKind says what a frame's body is.
type frameKind uint8

const (
	framePayload frameKind = 1 // bytes of an arrival
	frameCommit  frameKind = 2 // the end of an arrival, with the caller's record
	frameMark    frameKind = 3 // the synced position alone, written by Close
)

const (
	frameMagic = "pLgF"

	// frameHeaderBytes is the fixed header of every frame.
	frameHeaderBytes = 32

	// commitFixedBytes precede the record in a commit frame's body.
	commitFixedBytes = 32

	// markBytes is the body of a mark.
	markBytes = 16

	// maxPayloadBody bounds a payload frame: a read of one frame is one
	// allocation of this size at most.
	maxPayloadBody = 1 << 20

	// MaxRecord bounds the caller's record in a commit frame, in bytes.
	MaxRecord = 128 << 20
)

// castagnoli's polynomial has an instruction on amd64 and arm64. MakeTable
// returns the library's own table, so this costs nothing.
func checksum(crc uint32, p []byte) uint32 {
	return crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), p)
}

// frameHeader is a decoded frame header.
type frameHeader struct {
	kind    frameKind
	arrival uint64
	index   uint32 // payload: its ordinal in the arrival; commit: the number of payload frames
	length  uint32 // of the body
	bodyCRC uint32
}

// maxBody is the largest body a kind may have.
func (k frameKind) maxBody() int64 {
	switch k {
	case framePayload:
		return maxPayloadBody
	case frameCommit:
		return commitFixedBytes + MaxRecord
	case frameMark:
		return markBytes
	}
	return -1
}

// minBody is the smallest body a kind may have.
func (k frameKind) minBody() int64 {
	switch k {
	case frameCommit:
		return commitFixedBytes
	case frameMark:
		return markBytes
	}
	return 0
}

// put encodes h without its own checksum, which [seal] adds once the frame's
// place is known.
func (h frameHeader) put(dst []byte) {
	_ = dst[frameHeaderBytes-1]
	copy(dst, frameMagic)
	dst[4], dst[5], dst[6], dst[7] = byte(h.kind), 0, 0, 0
	binary.LittleEndian.PutUint64(dst[8:], h.arrival)
	binary.LittleEndian.PutUint32(dst[16:], h.index)
	binary.LittleEndian.PutUint32(dst[20:], h.length)
	binary.LittleEndian.PutUint32(dst[24:], h.bodyCRC)
}

// seal binds an encoded header to its place: the checksum covers the segment's
// salt, its number and the frame's offset, so bytes that were meant for another
// place, and frames inside a payload, are never taken for frames.
func seal(dst []byte, s *segmentHeader, offset int64) {
	binary.LittleEndian.PutUint32(dst[28:], sealOf(dst, s, offset))
}

func sealOf(header []byte, s *segmentHeader, offset int64) uint32 {
	var place [32]byte
	copy(place[:16], s.salt[:])
	binary.LittleEndian.PutUint64(place[16:], s.number)
	binary.LittleEndian.PutUint64(place[24:], uint64(offset))
	return checksum(checksum(0, place[:]), header[:28])
}

// parseFrame decodes and checks a header at its place. ok is false for anything
// that is not a whole, valid header within the limits.
func parseFrame(b []byte, s *segmentHeader, offset int64) (h frameHeader, ok bool) {
	if len(b) < frameHeaderBytes || string(b[:4]) != frameMagic {
		return h, false
	}
	if binary.LittleEndian.Uint32(b[28:]) != sealOf(b, s, offset) {
		return h, false
	}
	h = frameHeader{
		kind:    frameKind(b[4]),
		arrival: binary.LittleEndian.Uint64(b[8:]),
		index:   binary.LittleEndian.Uint32(b[16:]),
		length:  binary.LittleEndian.Uint32(b[20:]),
		bodyCRC: binary.LittleEndian.Uint32(b[24:]),
	}
	n := int64(h.length)
	return h, n >= h.kind.minBody() && n <= h.kind.maxBody()
}

// position is a place in the log: every byte of earlier segments and the bytes
// below offset in this one come before it.
type position struct {
	segment uint64
	offset  int64
}

// covers reports whether everything before q comes before p.
func (p position) covers(q position) bool {
	return p.segment > q.segment || p.segment == q.segment && p.offset >= q.offset
}

// commitBody is the fixed part of a commit frame's body.
type commitBody struct {
	synced position // durable when the frame was made
	first  uint64   // segment of the arrival's first frame
	bytes  uint64   // of payload
}

func (c commitBody) put(dst []byte) {
	putPosition(dst, c.synced)
	binary.LittleEndian.PutUint64(dst[16:], c.first)
	binary.LittleEndian.PutUint64(dst[24:], c.bytes)
}

func parseCommitBody(b []byte) commitBody {
	return commitBody{
		synced: parsePosition(b),
		first:  binary.LittleEndian.Uint64(b[16:]),
		bytes:  binary.LittleEndian.Uint64(b[24:]),
	}
}

func putPosition(dst []byte, p position) {
	binary.LittleEndian.PutUint64(dst, p.segment)
	binary.LittleEndian.PutUint64(dst[8:], uint64(p.offset))
}

func parsePosition(b []byte) position {
	return position{
		segment: binary.LittleEndian.Uint64(b),
		offset:  int64(binary.LittleEndian.Uint64(b[8:])),
	}
}
