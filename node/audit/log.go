package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// Defaults and limits of a log.
const (
	DefaultSegmentBytes = 64 << 20
	DefaultFlushEvery   = 100 * time.Millisecond
	DefaultFlushEvents  = 256

	// The queue between Record and the disk: what a burst of 20 s at 400 events a
	// second needs, and a bound for events with long lists of instances.
	queueEvents = 8192
	queueBytes  = 32 << 20
)

// Options configure a log.
type Options struct {
	FS           vfs.FS        // nil: vfs.Default
	Dir          string        // created if absent; audit/ in the data directory
	Source       Source        // who reports; told in XML and syslog
	SegmentBytes int64         // a new segment is begun beyond it; 0: 64 MiB
	Keep         time.Duration // segments whose last event is older go; 0: kept for ever
	KeepBytes    int64         // beyond it the oldest segments go; 0: no limit
	FlushEvery   time.Duration // 0: 100 ms
	FlushEvents  int           // 0: 256
	Log          *slog.Logger  // never sees an event; nil: none
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.FlushEvery <= 0 {
		o.FlushEvery = DefaultFlushEvery
	}
	if o.FlushEvents <= 0 {
		o.FlushEvents = DefaultFlushEvents
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Log is the audit log. It is made by [Open]; events become durable while [Run]
// runs.
type Log struct {
	options Options
	dir     vfs.File
	failed  chan struct{}
	wake    chan struct{} // there is something for the writer; holds one

	// Of the writer alone.
	file  vfs.File // the segment that is appended to; nil: the next write begins one
	fresh bool     // no segment may be continued: its tail is damaged

	mu       sync.Mutex
	queue    [][]byte
	queued   int           // bytes in queue
	hurry    bool          // someone waits in Flush
	changed  chan struct{} // closed and renewed when any of this changes
	segments []segment     // ascending; the last is appended to
	next     Cursor        // number of the next event to become durable
	holds    map[string]Cursor
	damage   []string
	failure  error // set once
	closed   bool  // Run has ended, or Close was called
}

// Open opens the directory (creating and syncing it) and finds the end of the
// log. A torn tail is left behind. fault.Unsupported: a newer program has
// written here.
func Open(o Options) (*Log, error) {
	o.setDefaults()
	l := &Log{
		options: o,
		failed:  make(chan struct{}),
		wake:    make(chan struct{}, 1),
		changed: make(chan struct{}),
		holds:   make(map[string]Cursor),
		next:    1,
	}
	if err := l.open(); err != nil {
		if l.dir != nil {
			l.dir.Close()
		}
		return nil, fmt.Errorf("audit: open: %w", err)
	}
	return l, nil
}

func (l *Log) open() error {
	fs := l.options.FS
	if err := fs.MkdirAll(l.options.Dir, 0o700); err != nil {
		return err
	}
	if err := syncDirectory(fs, fs.PathDir(l.options.Dir)); err != nil {
		return err
	}
	var err error
	if l.dir, err = fs.OpenDir(l.options.Dir); err != nil {
		l.dir = nil
		return err
	}
	names, err := fs.List(l.options.Dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		first, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		path := fs.PathJoin(l.options.Dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			return err
		}
		l.segments = append(l.segments, segment{first, path, info.Size(), info.ModTime()})
	}
	for i := range l.segments {
		if err := l.examine(&l.segments[i], i == len(l.segments)-1); err != nil {
			return err
		}
	}
	return l.dir.Sync()
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// examine checks a segment's header and, of the last one, finds the end.
func (l *Log) examine(s *segment, last bool) error {
	f, err := l.options.FS.OpenReadWrite(s.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, min(s.size, segmentHeaderBytes))
	if _, err := f.ReadAt(head, 0); err != nil && len(head) > 0 {
		return err
	}
	err = checkHeader(head, s.first)
	if fault.Is(err, fault.Unsupported) {
		return err
	}
	sound := err == nil
	if !sound && s.size > segmentHeaderBytes {
		l.damage = append(l.damage, fmt.Sprintf("%s: %v", segmentName(s.first), err))
	}
	if !last {
		return nil
	}
	// What is seen here may be in the cache only, and is told from here on.
	if err := f.SyncData(); err != nil {
		return err
	}
	l.next = s.first
	r := newRecords(f, s.size)
	for {
		ok, err := r.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		l.next = max(l.next, r.number+1)
	}
	l.fresh = !sound || !r.intact
	if l.next == s.first && l.fresh {
		// Nothing in it can be read, so a segment of the same name takes its place.
		l.segments = l.segments[:len(l.segments)-1]
		if !sound && s.size > segmentHeaderBytes {
			return l.options.FS.Rename(s.path, s.path+damagedSuffix)
		}
	}
	return nil
}

// Record takes an event into the log. It returns at once unless the queue is
// full; then it waits for room as long as ctx lets it. The event is durable a
// little later; see [Log.Flush]. fault.Invalid: the event is too large even
// without its list of instances. fault.Unavailable: the log has failed or is
// closed.
func (l *Log) Record(ctx context.Context, e Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	body, err := encode(e)
	if err != nil {
		return err
	}
	for {
		l.mu.Lock()
		if err := l.usableLocked(); err != nil {
			l.mu.Unlock()
			return err
		}
		if n := len(l.queue); n < queueEvents && (n == 0 || l.queued+len(body) <= queueBytes) {
			l.queue = append(l.queue, body)
			l.queued += len(body)
			l.mu.Unlock()
			l.rouse()
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("audit: the queue is full: %w", ctx.Err())
		}
	}
}

// encode makes an event's body. Lists of instances that make it too large are
// left out; their counts stay.
func encode(e Event) ([]byte, error) {
	body, err := json.Marshal(e)
	if err == nil && len(body) > MaxEvent {
		e.Objects = slices.Clone(e.Objects)
		for i, o := range e.Objects {
			if o.Description == nil {
				continue
			}
			d := *o.Description
			d.Classes = slices.Clone(d.Classes)
			for k := range d.Classes {
				d.Classes[k].Instances = nil
			}
			e.Objects[i].Description = &d
		}
		body, err = json.Marshal(e)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "audit: encode event: %w", err)
	}
	if len(body) > MaxEvent {
		return nil, fault.New(fault.Invalid, "audit: an event of %d bytes, at most %d", len(body), MaxEvent)
	}
	return body, nil
}

// usableLocked says why nothing more is taken. mu is held.
func (l *Log) usableLocked() error {
	switch {
	case l.failure != nil:
		return fault.New(fault.Unavailable, "audit: the log has failed: %w", l.failure)
	case l.closed:
		return fault.New(fault.Unavailable, "audit: the log is closed")
	}
	return nil
}

func (l *Log) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// changedLocked tells everyone who waits. mu is held.
func (l *Log) changedLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Flush returns once every event that was recorded before it is durable.
func (l *Log) Flush(ctx context.Context) error {
	l.mu.Lock()
	target := l.next + Cursor(len(l.queue))
	l.hurry = true
	l.mu.Unlock()
	l.rouse()
	return l.Wait(ctx, target)
}

// Wait returns once the events before c are durable.
func (l *Log) Wait(ctx context.Context, c Cursor) error {
	for {
		l.mu.Lock()
		err := l.usableLocked()
		done, changed := l.next >= c, l.changed
		l.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Next is the number that the next durable event will have: a cursor at it has
// read everything.
func (l *Log) Next() Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Damage returns what Open has found wrong. It holds no event's content.
func (l *Log) Damage() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.damage)
}

// Failed is closed when a write or fsync has failed otherwise than for want of
// space: the process must end (DESIGN §4, Errors).
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Close lets the directory go. It is called after Run has ended.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dir == nil {
		return nil
	}
	l.closed = true
	l.changedLocked()
	err := l.dir.Close()
	l.dir = nil
	return err
}
