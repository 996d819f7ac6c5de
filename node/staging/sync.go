package staging

import "fmt"

// maxSyncs is how many syncs may run at once. A second one starts on what was
// written since the first began, instead of waiting for it and then for a
// goroutine to wake up; more than two gain nothing.
const maxSyncs = 2

// syncRun is a sync under way.
type syncRun struct {
	busy    bool
	target  position
	segment *segment // the only one that it syncs; nil: several
}

// syncTo returns once everything before p is durable. Of the commits that wait,
// one leads: it syncs whatever is written by then and wakes the others, so one
// fdatasync serves all that came while the one before it ran.
func (l *Log) syncTo(p position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.durable.covers(p) {
		if err := l.poisoned(); err != nil {
			return err
		}
		slot, ok := l.syncSlotLocked(p)
		if !ok {
			l.cond.Wait()
			continue
		}
		run := &l.syncs[slot]
		target, dirty := l.written, l.dirty
		*run = syncRun{busy: true, target: target}
		if len(dirty) == 1 {
			run.segment = dirty[0]
		}
		l.dirty = nil
		for _, s := range dirty {
			s.dirty = false // a write from here on needs the next sync, and pins again
		}
		l.mu.Unlock()
		err := syncAll(dirty, slot)
		if err != nil {
			// What the kernel could not write it now holds to be clean, so no
			// later fdatasync may be believed. fail comes before anyone wakes.
			_ = l.fail(err)
		}
		l.mu.Lock()
		if err == nil && l.failure.Load() == nil && target.covers(l.durable) {
			l.durable = target
		}
		*run = syncRun{}
		l.cond.Broadcast()
		// A file that could not be removed is no matter of this sync: the next
		// start removes it.
		_ = l.unpinLocked(dirty)
	}
	return nil
}

// syncSlotLocked says whether the caller leads a sync now, and with which
// handles. It does not if one that is under way covers p. Beside another one it
// may sync only the very segment that the other syncs: an fdatasync covers all
// that was written to its file, so its success vouches for what the other was to
// cover too. mu is held.
func (l *Log) syncSlotLocked(p position) (slot int, ok bool) {
	slot = -1
	for i := range l.syncs {
		other := &l.syncs[i]
		switch {
		case !other.busy:
			slot = i
		case other.target.covers(p),
			other.segment == nil,
			len(l.dirty) != 1 || l.dirty[0] != other.segment:
			return 0, false
		}
	}
	return slot, slot >= 0
}

// syncAll syncs in ascending order, so that what is durable is a prefix. Each of
// the syncs at once has its own handle: the kernel reports a failed write once to
// every handle, so on a shared one the second sync would seem to succeed.
func syncAll(segments []*segment, slot int) error {
	for _, s := range segments {
		if err := s.syncs[slot].SyncData(); err != nil {
			return fmt.Errorf("sync segment %d: %w", s.header.number, err)
		}
	}
	return nil
}
