package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

const (
	// retryFull is how often a full disk is tried again.
	retryFull = time.Second

	// drainFull is how long the end of Run waits for room on a full disk.
	drainFull = 5 * time.Second

	// retireEvery is how often retention is looked at.
	retireEvery = time.Hour
)

// Run writes what is recorded until ctx ends, then what is still queued, and
// returns when no goroutine is left. It is called once. An error means that
// events were lost, or that the log has failed.
func (l *Log) Run(ctx context.Context) error {
	defer l.endRun()
	retire := time.NewTicker(retireEvery)
	defer retire.Stop()
	l.retire()
	for {
		select {
		case <-ctx.Done():
			return l.drain()
		case <-retire.C:
			l.retire()
		case <-l.wake:
			l.gather(ctx)
			if err := l.writeQueue(ctx); err != nil && !fault.Is(err, fault.Full) {
				return err // a full disk, at the end: drain tries again, and a log that has failed is not written to
			}
		}
	}
}

func (l *Log) endRun() {
	if l.file != nil {
		// Its bytes are synced.
		_ = l.file.Close()
		l.file = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.changedLocked()
}

// gather lets a group come together: until the flush interval is over, there is
// enough of it, or someone waits.
func (l *Log) gather(ctx context.Context) {
	t := time.NewTimer(l.options.FlushEvery)
	defer t.Stop()
	for {
		l.mu.Lock()
		enough := l.hurry || len(l.queue) >= l.options.FlushEvents
		l.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-l.wake:
		}
	}
}

// drain writes what is left when Run is told to end. Recording ends first.
func (l *Log) drain() error {
	l.mu.Lock()
	l.closed = true
	l.changedLocked()
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drainFull)
	defer cancel()
	err := l.writeQueue(ctx)
	if err != nil {
		l.mu.Lock()
		lost := len(l.queue)
		l.mu.Unlock()
		l.options.Log.Error("audit events were not written", "events", lost, "error", err)
	}
	return err
}

// writeQueue writes groups until the queue is empty. A full disk is tried again
// until ctx ends; the queue fills meanwhile.
func (l *Log) writeQueue(ctx context.Context) error {
	full := false
	for {
		l.mu.Lock()
		group := l.queue[:min(len(l.queue), l.options.FlushEvents)]
		if len(group) == 0 {
			l.hurry = false
			l.mu.Unlock()
			return nil
		}
		first := l.next
		l.mu.Unlock()

		err := l.write(first, group)
		if err == nil {
			full = false
			l.published(len(group))
			continue
		}
		if !fault.Is(err, fault.Full) {
			return err
		}
		if !full {
			full = true
			l.options.Log.Error("the disk is too full for audit events", "error", err)
		}
		select {
		case <-time.After(retryFull):
		case <-ctx.Done():
			return err
		}
	}
}

// published takes a durable group off the queue.
func (l *Log) published(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, body := range l.queue[:n] {
		l.queued -= len(body)
	}
	l.queue = slices.Clone(l.queue[n:])
	l.next += Cursor(n)
	l.changedLocked()
}

// write makes a group durable, in one segment.
func (l *Log) write(first Cursor, group [][]byte) error {
	var b []byte
	for i, body := range group {
		b = appendRecord(b, first+Cursor(i), body)
	}
	s, err := l.segmentFor(first, int64(len(b)))
	if err != nil {
		return err
	}
	if _, err := l.file.WriteAt(b, s.size); err != nil {
		return l.writeFailed(fmt.Errorf("write: %w", err), true)
	}
	if err := l.file.SyncData(); err != nil {
		return l.writeFailed(fmt.Errorf("sync: %w", err), false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last := &l.segments[len(l.segments)-1]
	last.size += int64(len(b))
	last.modified = time.Now()
	return nil
}

// segmentFor returns the segment that n bytes go to, with its file open.
func (l *Log) segmentFor(first Cursor, n int64) (segment, error) {
	l.mu.Lock()
	count := len(l.segments)
	var s segment
	if count > 0 {
		s = l.segments[count-1]
	}
	l.mu.Unlock()
	if count > 0 && !l.fresh && (s.size+n <= l.options.SegmentBytes || s.first == first) {
		if l.file != nil {
			return s, nil
		}
		f, err := l.options.FS.OpenReadWrite(s.path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return s, l.writeFailed(fmt.Errorf("open: %w", err), true)
		}
		l.file = f
		return s, nil
	}
	return l.begin(first)
}

// begin makes a new segment, its header and name durable.
func (l *Log) begin(first Cursor) (segment, error) {
	if l.file != nil {
		_ = l.file.Close() // its bytes are synced
		l.file = nil
	}
	fs := l.options.FS
	s := segment{first: first, path: fs.PathJoin(l.options.Dir, segmentName(first)), size: segmentHeaderBytes, modified: time.Now()}
	// Remains of the same name hold no event.
	if err := fs.Remove(s.path); err != nil {
		if _, statErr := fs.Stat(s.path); statErr == nil {
			return s, l.writeFailed(fmt.Errorf("remove: %w", err), true)
		}
	}
	f, err := fs.OpenReadWrite(s.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return s, l.writeFailed(fmt.Errorf("create: %w", err), true)
	}
	if _, err = f.WriteAt(encodeHeader(first), 0); err == nil {
		err = f.SyncData()
	}
	if err != nil {
		_ = f.Close()
		return s, l.writeFailed(fmt.Errorf("segment header: %w", err), true)
	}
	if err := l.dir.Sync(); err != nil {
		_ = f.Close()
		return s, l.writeFailed(fmt.Errorf("sync directory: %w", err), false)
	}
	l.file, l.fresh = f, false
	l.mu.Lock()
	l.segments = append(l.segments, s)
	l.mu.Unlock()
	l.retire()
	return s, nil
}

// writeFailed tells a full disk, which passes, from everything else, after
// which nothing that was written may be trusted to rest. A sync that found no
// space is of the second sort unless nothing depends on the file yet.
func (l *Log) writeFailed(err error, passes bool) error {
	if passes && (vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EDQUOT)) {
		return fault.New(fault.Full, "audit: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		l.failure = err
		close(l.failed)
		l.changedLocked()
	}
	return fault.New(fault.Unavailable, "audit: %w", err)
}

// Hold keeps the events from c on until name says otherwise: retention removes
// none of them. It is kept in memory only, so a follower says it at each start.
func (l *Log) Hold(name string, c Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds[name] = c
}

// retire removes the segments that retention does not ask for any more.
func (l *Log) retire() {
	now := time.Now()
	l.mu.Lock()
	var total int64
	for _, s := range l.segments {
		total += s.size
	}
	n := 0
	for ; n+1 < len(l.segments); n++ { // never the one that is appended to
		s, after := l.segments[n], l.segments[n+1].first
		old := l.options.Keep > 0 && now.Sub(s.modified) > l.options.Keep
		large := l.options.KeepBytes > 0 && total > l.options.KeepBytes
		if !old && !large || l.heldLocked(after) {
			break
		}
		total -= s.size
	}
	gone := slices.Clone(l.segments[:n])
	l.segments = slices.Clone(l.segments[n:])
	l.mu.Unlock()
	for _, s := range gone {
		if err := l.options.FS.Remove(s.path); err != nil {
			// The next start finds it again.
			l.options.Log.Error("audit segment cannot be removed", "error", err)
			continue
		}
		l.options.Log.Info("audit segment has been kept long enough and was removed", "first_event", uint64(s.first))
	}
}

// heldLocked reports whether anyone holds an event before end. mu is held.
func (l *Log) heldLocked(end Cursor) bool {
	for _, c := range l.holds {
		if c < end {
			return true
		}
	}
	return false
}
