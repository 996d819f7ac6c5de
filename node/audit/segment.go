package audit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/fault"
)

const (
	segmentMagic       = "PELAGOAU"
	segmentVersion     = 1
	segmentHeaderBytes = 64
	segmentSuffix      = ".aud"
	damagedSuffix      = ".damaged" // set aside, for an operator

	recordMagic       = "pAuD"
	recordHeaderBytes = 24

	// MaxEvent bounds an encoded event, in bytes.
	MaxEvent = 1 << 20
)

// Cursor is the number of an event, the next one to be read. 0 and 1 are the
// first event ever.
type Cursor uint64

// segment is one file: events first..first+n-1.
type segment struct {
	first    Cursor
	path     string
	size     int64     // durable bytes
	modified time.Time // of the last event, about
}

func segmentName(first Cursor) string { return fmt.Sprintf("%016x%s", uint64(first), segmentSuffix) }

func parseSegmentName(name string) (Cursor, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return Cursor(n), err == nil && n > 0 && segmentName(Cursor(n)) == name
}

// checksum is CRC32C.
func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// encodeHeader makes a segment's first bytes.
func encodeHeader(first Cursor) []byte {
	b := make([]byte, segmentHeaderBytes)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], segmentVersion)
	binary.LittleEndian.PutUint32(b[12:], segmentVersion) // the oldest version that can read it
	binary.LittleEndian.PutUint64(b[16:], uint64(first))
	binary.LittleEndian.PutUint32(b[60:], checksum(b[:60]))
	return b
}

// checkHeader reports a segment that only a newer program can read
// (fault.Unsupported), or whose header is damaged (fault.Corrupt).
func checkHeader(b []byte, first Cursor) error {
	if len(b) < segmentHeaderBytes || string(b[:8]) != segmentMagic || binary.LittleEndian.Uint32(b[60:]) != checksum(b[:60]) {
		return fault.New(fault.Corrupt, "segment header fails its checksum")
	}
	if reader := binary.LittleEndian.Uint32(b[12:]); reader > segmentVersion {
		return fault.New(fault.Unsupported, "segment needs a reader of version %d, this one reads %d", reader, segmentVersion)
	}
	if binary.LittleEndian.Uint64(b[16:]) != uint64(first) {
		return fault.New(fault.Corrupt, "segment header names another segment")
	}
	return nil
}

// appendRecord encodes an event's record.
func appendRecord(dst []byte, number Cursor, body []byte) []byte {
	var h [recordHeaderBytes]byte
	copy(h[:], recordMagic)
	binary.LittleEndian.PutUint32(h[4:], uint32(len(body)))
	binary.LittleEndian.PutUint64(h[8:], uint64(number))
	binary.LittleEndian.PutUint32(h[16:], checksum(body))
	binary.LittleEndian.PutUint32(h[20:], checksum(h[:20]))
	return append(append(dst, h[:]...), body...)
}

// records reads a segment's records in turn.
type records struct {
	file   io.ReaderAt
	offset int64
	end    int64
	buffer []byte

	number Cursor // of the record that next has read
	body   []byte // valid until the next call
	intact bool   // no bytes were skipped so far
}

func newRecords(file io.ReaderAt, size int64) *records {
	return &records{file: file, offset: segmentHeaderBytes, end: size, intact: true}
}

// next reads the next valid record; false at the end. Bytes that are no valid
// record are skipped up to the next one.
func (r *records) next() (bool, error) {
	for r.offset+recordHeaderBytes <= r.end {
		h, err := r.read(r.offset, recordHeaderBytes)
		if err != nil {
			return false, err
		}
		length := int64(binary.LittleEndian.Uint32(h[4:]))
		if string(h[:4]) == recordMagic && binary.LittleEndian.Uint32(h[20:]) == checksum(h[:20]) &&
			length <= MaxEvent && r.offset+recordHeaderBytes+length <= r.end {
			number, crc := Cursor(binary.LittleEndian.Uint64(h[8:])), binary.LittleEndian.Uint32(h[16:])
			body, err := r.read(r.offset+recordHeaderBytes, int(length))
			if err != nil {
				return false, err
			}
			if checksum(body) == crc {
				r.number, r.body = number, body
				r.offset += recordHeaderBytes + length
				return true, nil
			}
		}
		r.intact = false
		if err := r.skip(); err != nil {
			return false, err
		}
	}
	if r.offset < r.end {
		r.intact = false
	}
	return false, nil
}

// skip moves to the next place that looks like a record.
func (r *records) skip() error {
	const window = 64 << 10
	for r.offset++; r.offset < r.end; {
		b, err := r.read(r.offset, int(min(window, r.end-r.offset)))
		if err != nil {
			return err
		}
		if i := bytes.Index(b, []byte(recordMagic)); i >= 0 {
			r.offset += int64(i)
			return nil
		}
		r.offset += max(int64(len(b)-len(recordMagic)+1), 1)
	}
	return nil
}

func (r *records) read(offset int64, n int) ([]byte, error) {
	if cap(r.buffer) < n {
		r.buffer = make([]byte, max(n, 64<<10))
	}
	b := r.buffer[:n]
	if got, err := r.file.ReadAt(b, offset); got < n {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read at %d: %w", offset, err)
	}
	return b, nil
}
