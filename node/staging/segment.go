package staging

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

const (
	segmentMagic   = "PELAGOSG"
	segmentVersion = 1

	// segmentHeaderBytes are reserved at a segment's start: two copies of the
	// header in different pages, so that one bad sector does not cost a segment.
	segmentHeaderBytes = 2 * segmentCopyBytes
	segmentCopyBytes   = 4096
	segmentCRCOffset   = 68

	segmentSuffix = ".stg"
)

// segmentHeader is the fixed start of a segment.
type segmentHeader struct {
	number  uint64
	life    uint64 // of the process that wrote it; grows with every Open
	salt    [16]byte
	prevEnd int64 // where the segment before it in the same life ended; 0: none
	prev    uint64
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderBytes)
	copy(b, segmentMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], segmentVersion)
	le.PutUint32(b[12:], segmentVersion) // the oldest version that can read it
	le.PutUint64(b[16:], h.number)
	le.PutUint64(b[24:], h.life)
	copy(b[32:], h.salt[:])
	le.PutUint64(b[48:], h.prev)
	le.PutUint64(b[56:], uint64(h.prevEnd))
	le.PutUint32(b[segmentCRCOffset:], checksum(0, b[:segmentCRCOffset]))
	copy(b[segmentCopyBytes:], b[:segmentCopyBytes])
	return b
}

// parseSegmentHeader decodes the first good copy. A header that only a newer
// program can read is fault.Unsupported; none that is good is fault.Corrupt.
func parseSegmentHeader(b []byte) (segmentHeader, error) {
	le := binary.LittleEndian
	for at := 0; at+segmentCRCOffset+4 <= len(b) && at < segmentHeaderBytes; at += segmentCopyBytes {
		c := b[at:]
		if string(c[:8]) != segmentMagic || le.Uint32(c[segmentCRCOffset:]) != checksum(0, c[:segmentCRCOffset]) {
			continue
		}
		if reader := le.Uint32(c[12:]); reader > segmentVersion {
			return segmentHeader{}, fault.New(fault.Unsupported,
				"segment of version %d needs a reader of version %d, this one reads %d", le.Uint32(c[8:]), reader, segmentVersion)
		}
		h := segmentHeader{
			number:  le.Uint64(c[16:]),
			life:    le.Uint64(c[24:]),
			prev:    le.Uint64(c[48:]),
			prevEnd: int64(le.Uint64(c[56:])),
		}
		copy(h.salt[:], c[32:48])
		return h, nil
	}
	return segmentHeader{}, fault.New(fault.Corrupt, "no copy of the segment header is whole")
}

// segmentName is the file name of a segment; names sort as their numbers.
func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil && n > 0 && segmentName(n) == name
}

// segment is one file of the log. Where nothing else is said, fields are fixed
// once the log can see it.
type segment struct {
	header segmentHeader
	path   string

	// Several handles on one file, since a vfs.File takes one write or sync at a
	// time: appends go through w, fdatasyncs through syncs. A segment of an
	// earlier life has r alone.
	w     vfs.File // nil once sealed; guarded by Log.writeMu
	r     vfs.File // is syncs[0]
	syncs [maxSyncs]vfs.File

	end       int64 // where the next frame goes; guarded by Log.writeMu
	allocated int64 // up to where space was asked for; guarded by Log.writeMu

	ahead int64 // up to where blocks had been written when it began; 0: none were
	stale bool  // among them such as hold released arrivals

	// Guarded by Log.mu.
	size    int64 // bytes written
	sealed  bool  // nothing is appended any more
	dirty   bool  // holds bytes that no sync has covered; has a pin
	damaged bool  // holds corruption: never removed
	live    int   // committed arrivals that touch it
	pins    int   // readers, arrivals under way, a pending sync
	gone    bool  // being removed, or removed
}

// closeFiles closes the handles for reading and syncing.
func (s *segment) closeFiles() error {
	all := []error{s.r.Close()}
	for _, f := range s.syncs[1:] {
		if f != nil {
			all = append(all, f.Close())
		}
	}
	return errors.Join(all...)
}

// occupied is the room that the segment has on disk: a sealed one keeps what was
// written ahead. Log.mu is held, or the segment is out of the log.
func (s *segment) occupied() int64 {
	if s.sealed {
		return max(s.size, s.ahead)
	}
	return s.size
}

// removable reports whether nothing needs the segment. Log.mu is held.
func (s *segment) removable() bool {
	return s.sealed && !s.damaged && !s.gone && s.live == 0 && s.pins == 0
}
