package dicom

import (
	"errors"
	"io"
	"sync"

	"pelago/cluster/fault"
)

// source is where the grammar takes bytes from: a stream, whose bytes are kept
// in raw or skipped, or memory, where values are slices.
type source struct {
	r        io.Reader // nil in memory
	buf      []byte
	pos, end int   // unread bytes of buf
	off      int64 // of buf[pos] in the data set
	raw      []byte
	maxRaw   int64
	err      error // what r returned, once
}

// readSize is how much is asked of a stream at once: enough that a skipped
// image costs few calls, little enough to stay in the processor's cache.
const readSize = 64 << 10

// scratch holds stream buffers between headers; they carry no state.
var scratch = sync.Pool{New: func() any { return new([readSize]byte) }}

// errShort tells that the bytes ended inside what was asked for.
var errShort = errors.New("ends inside an element")

// peek returns the next n bytes (n ≤ 64) without consuming them: io.EOF when
// there are none, errShort when there are fewer.
func (s *source) peek(n int) ([]byte, error) {
	if s.end-s.pos >= n {
		return s.buf[s.pos : s.pos+n], nil
	}
	return s.peekMore(n)
}

func (s *source) peekMore(n int) ([]byte, error) {
	if s.r != nil && s.err == nil {
		copy(s.buf, s.buf[s.pos:s.end])
		s.end -= s.pos
		s.pos = 0
		for s.end < n && s.err == nil {
			s.read()
		}
		if s.end >= n {
			return s.buf[:n], nil
		}
	}
	switch {
	case s.err != nil && !errors.Is(s.err, io.EOF):
		return nil, s.err
	case s.pos == s.end:
		return nil, io.EOF
	}
	return nil, errShort
}

// read fills the free part of the buffer once. A reader that keeps returning
// nothing is cut off, as in package bufio.
func (s *source) read() {
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		if n < 0 || n > len(s.buf)-s.end {
			s.err = errors.New("reader returned an impossible count")
			return
		}
		s.end += n
		if err != nil {
			s.err = err
		}
		if n > 0 || err != nil {
			return
		}
	}
	s.err = io.ErrNoProgress
}

// take consumes n peeked bytes and keeps them.
func (s *source) take(n int) error {
	if s.r != nil {
		if int64(len(s.raw)+n) > s.maxRaw {
			return errHeaderBytes
		}
		s.raw = append(s.raw, s.buf[s.pos:s.pos+n]...)
	}
	s.pos += n
	s.off += int64(n)
	return nil
}

var errHeaderBytes = fault.New(fault.Invalid, "dicom: header is longer than the limit")

// value consumes and keeps n bytes. In memory it returns them.
func (s *source) value(n int64) ([]byte, error) {
	if s.r == nil {
		if int64(s.end-s.pos) < n {
			return nil, errShort
		}
		v := s.buf[s.pos : s.pos+int(n) : s.pos+int(n)]
		s.pos += int(n)
		s.off += n
		return v, nil
	}
	if int64(len(s.raw))+n > s.maxRaw {
		return nil, errHeaderBytes
	}
	for n > 0 {
		have, err := s.some(n)
		if err != nil {
			return nil, err
		}
		s.raw = append(s.raw, s.buf[s.pos:s.pos+have]...)
		s.pos += have
		s.off += int64(have)
		n -= int64(have)
	}
	return nil, nil
}

// skip consumes n bytes without keeping them.
func (s *source) skip(n int64) error {
	for n > 0 {
		have, err := s.some(n)
		if err != nil {
			return err
		}
		s.pos += have
		s.off += int64(have)
		n -= int64(have)
	}
	return nil
}

// some makes at least one byte available and returns how many there are, at
// most n.
func (s *source) some(n int64) (int, error) {
	if s.pos == s.end && s.r != nil {
		s.pos, s.end = 0, 0
		if s.err == nil {
			s.read()
		}
	}
	if s.pos == s.end {
		if s.err != nil && !errors.Is(s.err, io.EOF) {
			return 0, s.err
		}
		return 0, errShort
	}
	return int(min(n, int64(s.end-s.pos))), nil
}
