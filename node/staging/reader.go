package staging

import (
	"fmt"
	"io"
	"sort"
	"sync"

	"pelago/cluster/fault"
)

// Reader reads placed bytes. ReadAt may be called concurrently; Close once,
// after the last ReadAt has returned. A frame that fails its checksum is
// fault.Corrupt, as are bytes that the disk does not give.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Open returns a reader over placed bytes, that checks frames' checksums as it
// goes where it reads them whole. The segments stay until Close. Bytes of a
// segment that is not here (any more) are fault.NotFound; extents that are not
// frames' places are fault.Invalid.
func (l *Log) Open(at Placed) (Reader, error) {
	r := &placedReader{log: l, extents: at.Extents, segments: make(map[uint64]*segment), starts: make([]int64, len(at.Extents))}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed()
	}
	for i, e := range at.Extents {
		r.starts[i] = r.size
		s := l.segments[e.Segment]
		if s == nil {
			return nil, fault.New(fault.NotFound, "staging: segment %d is not here", e.Segment)
		}
		if e.Length < 0 || e.Length > maxPayloadBody || e.Offset < segmentHeaderBytes+frameHeaderBytes || e.Offset > s.size-e.Length {
			return nil, fault.New(fault.Invalid, "staging: extent %d of %d bytes at %d is not in segment %d", i, e.Length, e.Offset, e.Segment)
		}
		r.segments[e.Segment] = s
		r.size += e.Length
	}
	for _, s := range r.segments {
		s.pins++
	}
	return r, nil
}

// placedReader strings extents together.
type placedReader struct {
	log      *Log
	extents  []Extent
	starts   []int64 // of each extent in the payload
	size     int64
	segments map[uint64]*segment
	closing  sync.Once
}

// ReadAt implements io.ReaderAt.
func (r *placedReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "staging: read at negative offset")
	}
	i := sort.Search(len(r.starts), func(i int) bool { return r.starts[i] > off }) - 1
	n := 0
	for ; n < len(p) && i >= 0 && i < len(r.extents); i++ {
		e := r.extents[i]
		skip := off + int64(n) - r.starts[i]
		if skip >= e.Length {
			continue // empty, or off is behind the end
		}
		part := p[n:min(int64(len(p)), int64(n)+e.Length-skip)]
		if err := r.readPart(e, skip, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readPart fills part from an extent; if that is all of it, it is checked.
func (r *placedReader) readPart(e Extent, skip int64, part []byte) error {
	s := r.segments[e.Segment]
	if n, err := s.r.ReadAt(part, e.Offset+skip); n < len(part) {
		return r.corrupt(e, fmt.Errorf("read: %w", err))
	}
	if int64(len(part)) != e.Length {
		return nil
	}
	var head [frameHeaderBytes]byte
	at := e.Offset - frameHeaderBytes
	if n, err := s.r.ReadAt(head[:], at); n < len(head) {
		return r.corrupt(e, fmt.Errorf("read: %w", err))
	}
	h, ok := parseFrame(head[:], &s.header, at)
	switch {
	case !ok:
		return r.corrupt(e, errFrameHeader)
	case h.kind != framePayload || int64(h.length) != e.Length:
		return fault.New(fault.Invalid, "staging: no payload frame of %d bytes at %d in segment %d", e.Length, e.Offset, e.Segment)
	case h.bodyCRC != checksum(0, part):
		return r.corrupt(e, errFrameBody)
	}
	return nil
}

// corrupt notes what a read has found; the segment is kept from here on.
func (r *placedReader) corrupt(e Extent, why error) error {
	r.log.mu.Lock()
	r.log.reportLocked(Corruption{Segment: e.Segment, Offset: e.Offset - frameHeaderBytes, Reason: why.Error()})
	r.log.mu.Unlock()
	return fault.New(fault.Corrupt, "staging: segment %d offset %d: %w", e.Segment, e.Offset, why)
}

// Close lets the segments go. An error concerns the removal of a file that
// nothing needs any more.
func (r *placedReader) Close() (err error) {
	r.closing.Do(func() {
		segments := make([]*segment, 0, len(r.segments))
		for _, s := range r.segments {
			segments = append(segments, s)
		}
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		err = r.log.unpinLocked(segments)
	})
	return err
}
