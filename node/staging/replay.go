package staging

import (
	"errors"
	"fmt"

	"pelago/cluster/fault"
)

// replayed is an arrival that a replay found whole.
type replayed struct {
	at   Placed
	last uint64 // segment of its commit frame
}

// suspect is something that is corruption if it lies below the synced offset of
// its life.
type suspect struct {
	at     position
	needs  uint64 // first segment that the arrival needs; 0: does not matter
	reason error
}

// unfinished is an arrival whose commit frame was not met yet.
type unfinished struct {
	extents []Extent
	bytes   int64
	broken  bool // a frame is missing or out of order
}

// lifeReplay reads the segments of one life, in ascending order.
type lifeReplay struct {
	replay   func(record []byte, at Placed) error
	present  func(first, last uint64) bool // are all of these segments here?
	buffer   []byte                        // for the scanner
	segments []*segment
	ends     map[uint64]int64 // behind the last valid frame of each segment
	open     map[uint64]*unfinished
	synced   position // highest recorded
	suspects []suspect
	whole    []replayed
}

// segment reads one segment.
func (r *lifeReplay) segment(s *segment) error {
	sc := newScanner(s.r, s.size, &s.header, r.buffer)
	err := sc.run(
		func(f foundFrame) error { return r.frame(s, f) },
		func(b badRange) { r.suspect(position{s.header.number, b.from}, 0, b.reason) },
	)
	if err != nil {
		return err
	}
	r.segments = append(r.segments, s)
	r.ends[s.header.number] = sc.lastEnd
	return nil
}

// suspect notes one; beyond the limit nobody could be told of it anyhow.
func (r *lifeReplay) suspect(at position, needs uint64, reason error) {
	if len(r.suspects) < 2*maxCorruptions {
		r.suspects = append(r.suspects, suspect{at, needs, reason})
	}
}

func (r *lifeReplay) frame(s *segment, f foundFrame) error {
	switch f.kind {
	case framePayload:
		r.payload(s, f)
		return nil
	case frameMark:
		r.raise(parsePosition(f.body))
		return nil
	default: // a commit: parseFrame lets no other kind through
		return r.commit(s, f)
	}
}

func (r *lifeReplay) raise(p position) {
	if p.covers(r.synced) {
		r.synced = p
	}
}

func (r *lifeReplay) payload(s *segment, f foundFrame) {
	a := r.open[f.arrival]
	if a == nil {
		a = &unfinished{}
		r.open[f.arrival] = a
	}
	if int(f.index) != len(a.extents) {
		a.broken = true
		return
	}
	a.extents = append(a.extents, Extent{
		Segment: s.header.number,
		Offset:  f.offset + frameHeaderBytes,
		Length:  int64(f.length),
	})
	a.bytes += int64(f.length)
}

func (r *lifeReplay) commit(s *segment, f foundFrame) error {
	a := r.open[f.arrival]
	if a == nil {
		a = &unfinished{}
	}
	delete(r.open, f.arrival)
	fixed := parseCommitBody(f.body)
	r.raise(fixed.synced)
	if a.broken || len(a.extents) != int(f.index) || uint64(a.bytes) != fixed.bytes {
		first := fixed.first
		if first == 0 {
			first = s.header.number
		}
		r.suspect(position{s.header.number, f.offset}, first, errIncomplete)
		return nil
	}
	if len(a.extents) == 0 {
		a.extents = []Extent{{Segment: s.header.number, Offset: f.offset + frameHeaderBytes}}
	}
	at := Placed{Extents: a.extents, Bytes: a.bytes}
	if err := r.replay(f.body[commitFixedBytes:], at); err != nil {
		return fmt.Errorf("staging: replay of segment %d: %w", s.header.number, err)
	}
	r.whole = append(r.whole, replayed{at, s.header.number})
	return nil
}

// finish tells corruption from what was never synced. Only the bytes of this
// life bear on it, so a later start comes to the same verdict; what is left of
// an arrival that lost a part is kept, for whoever can make use of it.
func (r *lifeReplay) finish(keep func(first, last uint64)) []Corruption {
	strict := r.strictEnds()
	var found []Corruption
	for _, x := range r.suspects {
		if x.at.offset >= strict[x.at.segment] && !errors.Is(x.reason, errUnreadable) {
			continue // torn by the crash
		}
		if x.needs != 0 && !r.present(x.needs, x.at.segment) {
			continue // released: its payload's segment has gone before this one
		}
		if x.needs != 0 {
			keep(x.needs, x.at.segment)
		}
		found = append(found, Corruption{x.at.segment, x.at.offset, x.reason.Error()})
	}
	for _, s := range r.segments {
		if n := s.header.number; s.size < strict[n] {
			found = append(found, Corruption{n, s.size, errMissing.Error()})
		}
	}
	return found
}

// strictEnds returns, per segment, up to where everything was durable.
func (r *lifeReplay) strictEnds() map[uint64]int64 {
	strict := make(map[uint64]int64)
	for i, s := range r.segments {
		n := s.header.number
		switch {
		case n == r.synced.segment:
			strict[n] = r.synced.offset
		case n > r.synced.segment:
			strict[n] = 0
		case i+1 < len(r.segments) && r.segments[i+1].header.prev == n:
			strict[n] = r.segments[i+1].header.prevEnd
		default:
			strict[n] = r.ends[n] // its successor is gone: up to its last valid frame
		}
	}
	return strict
}

// replayAll reads all segments life by life.
func (l *Log) replayAll(ordered []*segment, replay func(record []byte, at Placed) error) error {
	present := func(first, last uint64) bool {
		return first <= last && last-first < uint64(len(ordered)) && len(l.spanLocked(first, last)) == int(last-first)+1
	}
	buffer := make([]byte, scanWindow)
	for i := 0; i < len(ordered); {
		life := ordered[i].header.life
		r := &lifeReplay{replay: replay, present: present, buffer: buffer, ends: map[uint64]int64{}, open: map[uint64]*unfinished{}}
		for ; i < len(ordered) && ordered[i].header.life == life; i++ {
			if ordered[i].damaged {
				continue // no header to read it by
			}
			if err := r.segment(ordered[i]); err != nil {
				return err
			}
		}
		for _, a := range r.whole {
			key, _ := a.at.key()
			l.retainLocked(key, liveArrival{bytes: a.at.Bytes, last: a.last})
		}
		keep := func(first, last uint64) {
			for _, s := range l.spanLocked(first, last) {
				s.damaged = true
			}
		}
		for _, c := range r.finish(keep) {
			l.reportLocked(c)
		}
	}
	return nil
}

// loadHeader reads a segment's header. torn says that its creation was never
// finished, so that no frame was ever written to it.
func (s *segment) loadHeader(number uint64) (torn bool, reason error, err error) {
	b := make([]byte, min(s.size, segmentHeaderBytes))
	for at := 0; at < len(b); at += segmentCopyBytes {
		part := b[at:min(at+segmentCopyBytes, len(b))]
		if n, _ := s.r.ReadAt(part, int64(at)); n < len(part) {
			clear(part[n:]) // unreadable: the other copy may do
		}
	}
	h, err := parseSegmentHeader(b)
	switch {
	case fault.Is(err, fault.Unsupported):
		return false, nil, fmt.Errorf("staging: segment %d: %w", number, err)
	case err != nil && s.size <= segmentHeaderBytes:
		return true, nil, nil
	case err != nil:
		return false, errNoHeader, nil
	case h.number != number:
		return false, errMisnamed, nil
	}
	s.header = h
	return false, nil, nil
}
