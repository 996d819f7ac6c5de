package web

import (
	"errors"
	"fmt"
	"io"
	"os"

	"pelago/cluster/fault"
)

// spool keeps bulk data parts of one store request on disk until the data set
// that they belong to is put together.
type spool struct {
	file  *os.File
	limit int64
	size  int64
	parts map[string][]spooled // by Content-Location, in the order of arrival
}

// spooled is one part in the file.
type spooled struct {
	offset, length int64
	kind           media
}

// openSpool creates an empty one.
func openSpool(dir string, limit int64) (*spool, error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	return &spool{file: f, limit: limit, parts: make(map[string][]spooled)}, nil
}

// nameless creates a file and takes its name away at once, so that nothing is
// left behind by a process that dies.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".spool-*")
	if err != nil {
		return nil, fmt.Errorf("web: no place to keep what waits: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// spill is the end of an answer that waits on disk until its header can be sent.
type spill struct {
	file  *os.File
	limit int64
	size  int64
}

func newSpill(dir string, limit int64) (*spill, error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	return &spill{file: f, limit: limit}, nil
}

// Write appends; fault.Full beyond the limit.
func (s *spill) Write(b []byte) (int, error) {
	if s.size+int64(len(b)) > s.limit {
		return 0, fault.New(fault.Full, "the answer is over %d bytes: ask for less at a time", s.limit)
	}
	n, err := s.file.WriteAt(b, s.size)
	s.size += int64(n)
	if err != nil {
		err = fault.New(fault.Full, "the answer cannot be kept: %w", err)
	}
	return n, err
}

func (s *spool) close() error { return s.file.Close() }

// put keeps a part under its location. fault.Full beyond the limit.
func (s *spool) put(location string, kind media, r io.Reader) error {
	n, err := io.Copy(&offsetWriter{s.file, s.size}, io.LimitReader(r, s.limit-s.size+1))
	if err != nil {
		return err
	}
	if s.size+n > s.limit {
		return fault.New(fault.Full, "the bulk data of one request is over %d bytes", s.limit)
	}
	s.parts[location] = append(s.parts[location], spooled{offset: s.size, length: n, kind: kind})
	s.size += n
	return nil
}

// reader reads a part.
func (s *spool) reader(p spooled) *io.SectionReader {
	return io.NewSectionReader(s.file, p.offset, p.length)
}

// offsetWriter writes at a moving offset; its error is that of the disk.
type offsetWriter struct {
	w  io.WriterAt
	at int64
}

func (o *offsetWriter) Write(b []byte) (int, error) {
	n, err := o.w.WriteAt(b, o.at)
	o.at += int64(n)
	if err != nil {
		err = fault.New(fault.Full, "bulk data parts cannot be kept: %w", err)
	}
	return n, err
}
