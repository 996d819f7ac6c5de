package staging

import (
	"errors"
	"fmt"

	"pelago/cluster/fault"
)

// Release drops the claim that Commit, or the replay of Open, made on an
// arrival's bytes. The caller has made it durable, with a synced commit, that
// the instance rests elsewhere. A segment that is full and has no live arrival,
// none under way and no reader is removed. An arrival that is not live (released
// before) is fault.NotFound. Any other error concerns the removal of a file,
// which the next start makes up for.
func (l *Log) Release(at Placed) error {
	key, ok := at.key()
	if !ok {
		return fault.New(fault.Invalid, "staging: release of no extents")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed()
	}
	a, ok := l.live[key]
	if !ok {
		return fault.New(fault.NotFound, "staging: no live arrival at segment %d offset %d", key.segment, key.offset)
	}
	delete(l.live, key)
	l.liveBytes -= a.bytes
	touched := l.spanLocked(key.segment, a.last)
	for _, s := range touched {
		s.live--
	}
	return l.sweepLocked(touched)
}

// retainLocked makes an arrival live. mu is held.
func (l *Log) retainLocked(key liveKey, a liveArrival) {
	l.live[key] = a
	l.liveBytes += a.bytes
	for _, s := range l.spanLocked(key.segment, a.last) {
		s.live++
	}
}

// spanLocked returns the segments first..last that exist. An arrival claims all
// of them, those between its frames too: what exists when it is retained exists
// until it is released, so that both see the same ones. mu is held.
func (l *Log) spanLocked(first, last uint64) []*segment {
	var span []*segment
	for n := first; n <= last; n++ {
		if s := l.segments[n]; s != nil {
			span = append(span, s)
		}
	}
	return span
}

// unpinLocked drops a pin of each segment and removes what nothing needs any
// more. mu is held, and let go while files are removed.
func (l *Log) unpinLocked(segments []*segment) error {
	for _, s := range segments {
		s.pins--
	}
	return l.sweepLocked(segments)
}

// sweepLocked removes those of the segments that nothing needs; once the log is
// closed or has failed it removes nothing, but lets go of their files. mu is
// held, and let go while files are closed and removed.
func (l *Log) sweepLocked(candidates []*segment) error {
	keep := l.closed || l.failure.Load() != nil
	var done, aside []*segment
	for _, s := range candidates {
		switch {
		case keep && l.filesClosed && s.pins == 0 && !s.gone:
		case !keep && s.removable():
			delete(l.segments, s.header.number)
		default:
			continue
		}
		s.gone = true
		if !keep && l.wantsSpareLocked(s) {
			aside = append(aside, s)
		} else {
			done = append(done, s)
		}
	}
	if len(done)+len(aside) == 0 {
		return nil
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	if keep {
		return closeAll(done)
	}
	return l.remove(done, aside)
}

func closeAll(segments []*segment) error {
	var all []error
	for _, s := range segments {
		all = append(all, s.closeFiles())
	}
	return errors.Join(all...)
}

// remove deletes segment files, or sets them aside, and makes that durable. A
// file set aside may be used only then: until then it may be found as the segment
// that it was.
func (l *Log) remove(dead, aside []*segment) error {
	all := []error{closeAll(dead), closeAll(aside)}
	var spares []*spare
	for _, s := range aside {
		p, err := l.setAside(s)
		all = append(all, err)
		if p.path == "" {
			l.putBack(nil)
			continue
		}
		spares = append(spares, &p)
	}
	for _, s := range dead {
		if err := l.options.FS.Remove(s.path); err != nil {
			all = append(all, fmt.Errorf("staging: remove segment %d: %w", s.header.number, err))
		}
	}
	err := l.syncDir()
	for _, p := range spares {
		if err != nil {
			p = nil // it may be found as the segment: it must not be written to
		}
		l.putBack(p)
	}
	return errors.Join(append(all, err)...)
}
