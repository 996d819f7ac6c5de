package staging

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// Open opens the directory (creating and syncing it) and reads every segment,
// idempotently: whole arrivals are passed to replay in commit order; below the
// highest recorded synced offset a bad frame is corruption (reported in
// Corruptions, kept); above it whole arrivals stay and the rest is dropped.
// record is the commit frame's record, valid during the call. What replay is
// told of is durable and live until it is released. An error of replay ends
// Open, with nothing changed on disk.
//
// Segments in which nothing is live go. fault.Unsupported: a newer program has
// written here.
func Open(o Options, replay func(record []byte, at Placed) error) (*Log, error) {
	o.setDefaults()
	l := &Log{
		options:  o,
		failed:   make(chan struct{}),
		segments: make(map[uint64]*segment),
		live:     make(map[liveKey]liveArrival),
		buffers: sync.Pool{New: func() any {
			b := make([]byte, bufferBytes)
			return &b
		}},
	}
	l.cond.L = &l.mu
	if err := l.open(replay); err != nil {
		l.abandon()
		return nil, err
	}
	return l, nil
}

// open runs before the log is shared, so it takes no locks of its own.
func (l *Log) open(replay func(record []byte, at Placed) error) error {
	if err := l.makeDir(); err != nil {
		return fmt.Errorf("staging: directory: %w", err)
	}
	torn, err := l.load()
	if err != nil {
		return err
	}
	ordered := make([]*segment, 0, len(l.segments))
	for _, s := range l.segments {
		ordered = append(ordered, s)
	}
	slices.SortFunc(ordered, func(a, b *segment) int {
		if a.header.number < b.header.number {
			return -1
		}
		return 1
	})
	if err := l.settle(ordered); err != nil {
		return err
	}
	if err := l.replayAll(ordered, replay); err != nil {
		return err
	}
	// Numbers and lives go on from the highest that any file has, which stays
	// until a higher one is durable.
	if err := l.removeLeftSpares(); err != nil {
		return err
	}
	if len(ordered)+len(torn) == 0 {
		if err := l.prepare(); err != nil {
			return err
		}
	}
	l.life += 1 + unknownLives(ordered)
	l.nextArrival = l.life << 40
	err = l.beginLife()
	if fault.Is(err, fault.Full) {
		// A full disk must not keep what is stored from being read and moved on:
		// the first append that finds room begins the segment. Until then the
		// newest one stands for the numbers.
		if n := len(ordered); n > 0 {
			l.anchor = ordered[n-1]
			l.anchor.pins++
		}
		err = nil
	}
	if err != nil {
		return err
	}
	return l.clean(ordered, torn)
}

// unknownLives counts the segments whose header does not tell their life any
// more: each may have been of one that is higher than all known ones.
func unknownLives(segments []*segment) (n uint64) {
	for _, s := range segments {
		if s.header.salt == [16]byte{} {
			n++
		}
	}
	return n
}

// makeDir creates the directory and makes its name durable, and those of the
// directories above it that did not exist.
func (l *Log) makeDir() error {
	fs := l.options.FS
	var parents []string
	for dir := l.options.Dir; ; {
		if _, err := fs.Stat(dir); err == nil {
			break
		}
		parent := fs.PathDir(dir)
		if parent == dir {
			break
		}
		parents = append(parents, parent)
		dir = parent
	}
	if err := fs.MkdirAll(l.options.Dir, 0o700); err != nil {
		return err
	}
	for _, p := range slices.Backward(parents) {
		d, err := fs.OpenDir(p)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	var err error
	if l.dir, err = fs.OpenDir(l.options.Dir); err != nil {
		l.dir = nil
	}
	return err
}

// load opens the segments and reads their headers. torn are the files that
// never became segments.
func (l *Log) load() (torn []string, err error) {
	fs := l.options.FS
	names, err := fs.List(l.options.Dir)
	if err != nil {
		return nil, fmt.Errorf("staging: list: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		number, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		l.nextNumber = max(l.nextNumber, number)
		s := &segment{path: fs.PathJoin(l.options.Dir, name), sealed: true, header: segmentHeader{number: number, life: l.life}}
		if s.r, err = fs.OpenReadWrite(s.path, vfs.WriteCategoryUnspecified); err != nil {
			return nil, fmt.Errorf("staging: open segment %d: %w", number, err)
		}
		l.segments[number] = s
		info, err := s.r.Stat()
		if err != nil {
			return nil, fmt.Errorf("staging: segment %d: %w", number, err)
		}
		s.size = info.Size()
		isTorn, reason, err := s.loadHeader(number)
		switch {
		case err != nil:
			return nil, err
		case isTorn:
			torn = append(torn, s.path)
			delete(l.segments, number)
			if err := s.r.Close(); err != nil {
				return nil, fmt.Errorf("staging: segment %d: %w", number, err)
			}
			continue
		case reason != nil:
			l.reportLocked(Corruption{Segment: number, Reason: reason.Error()})
		}
		l.life = max(l.life, s.header.life)
	}
	l.nextNumber++
	return torn, nil
}

// settle makes durable what the segments seem to hold, before anyone is told of
// it: after the end of a process alone, much of it may be in the cache only.
func (l *Log) settle(ordered []*segment) error {
	for _, s := range ordered {
		if err := s.r.SyncData(); err != nil {
			return fault.New(fault.Unavailable, "staging: sync segment %d: %w", s.header.number, err)
		}
		if s.header.life == l.life {
			forgetCached(s.r)
		}
	}
	if err := l.dir.Sync(); err != nil {
		return fault.New(fault.Unavailable, "staging: sync directory: %w", err)
	}
	return nil
}

// clean removes what nothing needs, or keeps it as spares. What cannot be removed
// stays for the next start.
func (l *Log) clean(ordered []*segment, torn []string) error {
	for _, path := range torn {
		_ = l.options.FS.Remove(path)
	}
	if len(torn) > 0 {
		if err := l.syncDir(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.sweepLocked(ordered)
	return l.poisoned()
}

// abandon closes what a failed open has opened.
func (l *Log) abandon() {
	for _, s := range l.segments {
		if s.w != nil {
			s.w.Close()
		}
		_ = s.closeFiles()
	}
	if l.dir != nil {
		l.dir.Close()
	}
}
