package staging

import "fmt"

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
		if l.syncing {
			l.cond.Wait()
			continue
		}
		l.syncing = true
		target, dirty := l.written, l.dirty
		l.dirty = nil
		for _, s := range dirty {
			s.dirty = false // a write from here on needs the next sync, and pins again
		}
		l.mu.Unlock()
		err := syncAll(dirty)
		if err != nil {
			// What the kernel could not write it now holds to be clean, so no
			// later fdatasync may be believed. fail comes before anyone wakes.
			err = l.fail(err)
		}
		l.mu.Lock()
		if err == nil {
			l.durable = target
		}
		l.syncing = false
		l.cond.Broadcast()
		// A file that could not be removed is no matter of this sync: the next
		// start removes it.
		_ = l.unpinLocked(dirty)
	}
	return nil
}

// syncAll syncs in ascending order, so that what is durable is a prefix.
func syncAll(segments []*segment) error {
	for _, s := range segments {
		if err := s.s.SyncData(); err != nil {
			return fmt.Errorf("sync segment %d: %w", s.header.number, err)
		}
	}
	return nil
}
