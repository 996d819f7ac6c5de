package staging

import (
	"bytes"
	"errors"
	"io"
)

var (
	errFrameHeader = errors.New("frame header fails its checksum")
	errFrameBody   = errors.New("frame body fails its checksum")
	errCutShort    = errors.New("segment ends within a frame")
	errUnreadable  = errors.New("bytes cannot be read")
	errMissing     = errors.New("segment is cut short")
	errIncomplete  = errors.New("committed arrival lacks payload")
	errNoHeader    = errors.New("segment header fails its checksum")
	errMisnamed    = errors.New("segment header names another segment")
)

const (
	scanWindow = 1 << 20
	scanBlock  = 4096 // what one bad sector is taken to cost
)

// foundFrame is a valid frame of a segment.
type foundFrame struct {
	frameHeader
	offset int64  // of the frame header
	body   []byte // of commits and marks; nil for payload; valid during the call
}

// badRange is a run of bytes that is no valid frame.
type badRange struct {
	from, to int64
	reason   error
}

// scanner reads a segment's frames. It holds one window of the file and, for
// a commit, its body as far as the file really has it.
type scanner struct {
	file   io.ReaderAt
	size   int64
	header *segmentHeader

	window  []byte // bytes of the file from base on
	base    int64
	buffer  []byte // of the window; several times a frame header's size
	body    []byte
	rotten  []badRange // what could not be read, ascending
	lastEnd int64      // behind the last valid frame
}

func newScanner(file io.ReaderAt, size int64, header *segmentHeader, buffer []byte) *scanner {
	return &scanner{file: file, size: size, header: header, buffer: buffer, lastEnd: segmentHeaderBytes}
}

// run calls frame for every valid frame in ascending order and bad for every
// run between them. After a bad frame whose header is good it goes on behind it,
// else at the next valid header. An error of a callback ends it.
func (s *scanner) run(frame func(foundFrame) error, bad func(badRange)) error {
	for off := int64(segmentHeaderBytes); off < s.size; {
		h, ok := parseFrame(s.at(off, frameHeaderBytes), s.header, off)
		if !ok {
			next := s.seek(off + 1)
			bad(badRange{off, next, s.why(off, next, errFrameHeader)})
			off = next
			continue
		}
		end := off + frameHeaderBytes + int64(h.length)
		if end > s.size {
			next := s.seek(off + frameHeaderBytes)
			bad(badRange{off, next, s.why(off, next, errCutShort)})
			off = next
			continue
		}
		if f, ok := s.check(off, h); !ok {
			bad(badRange{off, end, s.why(off, end, errFrameBody)})
		} else {
			s.lastEnd = end
			if err := frame(f); err != nil {
				return err
			}
			if h.kind == frameMark {
				return nil // the last of its life; behind it is what the file held before
			}
		}
		off = end
	}
	return nil
}

// why prefers an unreadable disk to what follows from it.
func (s *scanner) why(from, to int64, err error) error {
	for _, r := range s.rotten {
		if r.from < to && from < r.to {
			return errUnreadable
		}
	}
	return err
}

// check reads a frame's body and compares its checksum.
func (s *scanner) check(off int64, h frameHeader) (foundFrame, bool) {
	f := foundFrame{frameHeader: h, offset: off}
	keep := h.kind != framePayload
	s.body = s.body[:0]
	crc, at := uint32(0), off+frameHeaderBytes
	for left := int64(h.length); left > 0; {
		b := s.at(at, 1)
		b = b[:min(int64(len(b)), left)]
		crc = checksum(crc, b)
		if keep {
			s.body = append(s.body, b...)
		}
		at += int64(len(b))
		left -= int64(len(b))
	}
	if keep {
		f.body = s.body
	}
	return f, crc == h.bodyCRC
}

// seek returns the offset of the first valid header at or behind off, or the
// segment's size.
func (s *scanner) seek(off int64) int64 {
	magic := []byte(frameMagic)
	for off < s.size {
		b := s.at(off, frameHeaderBytes)
		i := bytes.Index(b, magic)
		if i < 0 {
			// The last bytes may begin a magic that the next window ends.
			off += max(int64(len(b)-len(magic)+1), 1)
			continue
		}
		off += int64(i)
		if _, ok := parseFrame(s.at(off, frameHeaderBytes), s.header, off); ok {
			return off
		}
		off++
	}
	return s.size
}

// at returns the bytes from off on: at least want of them, unless the file ends
// before. Bytes that cannot be read are zero and noted.
func (s *scanner) at(off int64, want int) []byte {
	if off < s.base || off+int64(want) > s.base+int64(len(s.window)) {
		s.fill(off)
	}
	if off >= s.base+int64(len(s.window)) {
		return nil
	}
	return s.window[off-s.base:]
}

func (s *scanner) fill(off int64) {
	n := max(min(int64(len(s.buffer)), s.size-off), 0)
	s.base, s.window = off, s.buffer[:n]
	got, err := s.file.ReadAt(s.window, off)
	if int64(got) == n || err == nil {
		return
	}
	for at := int64(0); at < n; at += scanBlock {
		block := s.window[at:min(at+scanBlock, n)]
		if got, _ := s.file.ReadAt(block, off+at); got < len(block) {
			clear(block[got:])
			s.noteRotten(off+at, off+at+int64(len(block)))
		}
	}
}

// noteRotten notes unreadable bytes; windows overlap, so it may be told twice.
func (s *scanner) noteRotten(from, to int64) {
	if n := len(s.rotten); n > 0 && from <= s.rotten[n-1].to {
		s.rotten[n-1].to = max(s.rotten[n-1].to, to)
		return
	}
	s.rotten = append(s.rotten, badRange{from: from, to: to})
}
