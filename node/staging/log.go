package staging

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// Defaults and limits of a log.
const (
	DefaultSegmentBytes = 256 << 20
	DefaultMaxBytes     = 8 << 30

	// maxCorruptions bounds the list that Corruptions returns: a disk that is
	// rotten all over must not fill the memory.
	maxCorruptions = 1000
)

// Options bound the log.
type Options struct {
	FS           vfs.FS              // nil: vfs.Default
	Dir          string              // created if absent
	SegmentBytes int64               // a new segment is begun beyond it; 0: 256 MiB
	MaxBytes     int64               // of all undamaged segments; beyond it Begin answers fault.Full; 0: 8 GiB
	Ahead        int64               // of spares, whose blocks are written before there is need; at most a quarter of MaxBytes; 0: none
	Reserve      func(n int64) error // asks for n bytes of disk space before they are used; fault.Full when there are none; nil: always granted. Called under the append lock: it must be quick and must not call the log. What was granted may be asked for again

	gather int // payload gathered into one frame; 0: gatherBytes. Tests make it small
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	o.Ahead = min(o.Ahead, o.MaxBytes/4)
	if o.gather <= 0 {
		o.gather = gatherBytes
	}
}

// Extent is a run of payload bytes in a segment: the whole body of one frame.
type Extent struct {
	Segment uint64
	Offset  int64 // in the segment file
	Length  int64
}

// Placed is where an arrival's bytes rest. Extents are in the order of the
// payload; there is at least one (of length 0 for an empty arrival).
type Placed struct {
	Extents []Extent
	Bytes   int64
}

// Corruption is a frame below the synced offset that fails its checksum, or
// bytes that cannot be read.
type Corruption struct {
	Segment uint64
	Offset  int64
	Reason  string
}

// Log is the set of segments. It is made by [Open].
type Log struct {
	options Options
	life    uint64
	buffers sync.Pool // of *[]byte, bufferBytes long

	failure atomic.Pointer[error] // what made the log unsafe; set once
	failed  chan struct{}

	// dirMu serialises syncs of the directory, as vfs.File asks. Held over I/O.
	dirMu sync.Mutex
	dir   vfs.File // nil once closed

	// writeMu serialises appends and is held over the write. It guards active,
	// its write fields, and nextNumber. Taken before mu.
	writeMu    sync.Mutex
	active     *segment // nil after a start on a full disk, until there is room
	anchor     *segment // pinned while active is nil: the newest segment there is, if any
	nextNumber uint64
	ended      bool             // nothing is appended any more
	noPrealloc bool             // the file system has no fallocate
	block      [blockBytes]byte // the last, partial block of a write

	mu          sync.Mutex
	cond        sync.Cond // on mu: durable, syncs, failure or commits has changed
	segments    map[uint64]*segment
	live        map[liveKey]liveArrival
	liveBytes   int64
	nextArrival uint64
	written     position
	durable     position
	dirty       []*segment // in ascending order
	syncs       [maxSyncs]syncRun
	commits     int // Commit calls under way
	spares      []spare
	coming      int // places held for spares under way
	closed      bool
	filesClosed bool // the last to unpin a segment closes its file
	corruptions []Corruption
}

// liveKey names an arrival by the place of its first payload byte.
type liveKey struct {
	segment uint64
	offset  int64
}

// liveArrival is a committed arrival that was not released. It holds every
// segment from its key's to last, which is where its commit frame rests.
type liveArrival struct {
	bytes int64
	last  uint64
}

func (at Placed) key() (liveKey, bool) {
	if len(at.Extents) == 0 {
		return liveKey{}, false
	}
	return liveKey{at.Extents[0].Segment, at.Extents[0].Offset}, true
}

// Corruptions returns what Open and reads have found, the first 1,000 of it.
func (l *Log) Corruptions() []Corruption {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Corruption(nil), l.corruptions...)
}

// reportLocked notes a corruption and keeps its segment. mu is held.
func (l *Log) reportLocked(c Corruption) {
	if s := l.segments[c.Segment]; s != nil {
		s.damaged = true
	}
	for _, known := range l.corruptions {
		if known.Segment == c.Segment && known.Offset == c.Offset {
			return
		}
	}
	if len(l.corruptions) < maxCorruptions {
		l.corruptions = append(l.corruptions, c)
	}
}

// Bytes is what the segments occupy (not the spares, nor what is written ahead of
// the newest), and how much payload of it is live.
func (l *Log) Bytes() (total, live int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		total += s.occupied()
	}
	return total, l.liveBytes
}

// usedLocked is what counts towards MaxBytes: a damaged segment waits for an
// operator and must not stop ingest until then. mu is held.
func (l *Log) usedLocked() int64 {
	var n int64
	for _, s := range l.segments {
		if !s.damaged {
			n += s.occupied()
		}
	}
	return n
}

// Failed is closed when a write or fsync has failed in a way that makes
// further acknowledgement unsafe: the process must end (DESIGN §4, Errors).
func (l *Log) Failed() <-chan struct{} { return l.failed }

// fail poisons the log. The first error stays.
func (l *Log) fail(err error) error {
	if l.failure.CompareAndSwap(nil, &err) {
		close(l.failed)
		l.mu.Lock()
		l.cond.Broadcast()
		l.mu.Unlock()
	}
	return l.poisoned()
}

// poisoned is the answer to everything once the log has failed, nil before.
func (l *Log) poisoned() error {
	if err := l.failure.Load(); err != nil {
		return fault.New(fault.Unavailable, "staging: nothing can be acknowledged since a write failed: %w", *err)
	}
	return nil
}

func errClosed() error { return fault.New(fault.Unavailable, "staging: the log is closed") }

// noSpace reports whether a write failed for want of room, which leaves what
// was written before it intact.
func noSpace(err error) bool {
	return vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EDQUOT)
}

// Close ends the log after the commits under way, and records what is synced so
// that the next start knows every frame to be durable. Arrivals that were not
// committed are dropped. Readers stay usable until they are closed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for l.commits > 0 {
		l.cond.Wait()
	}
	l.mu.Unlock()

	err := l.poisoned()
	if err == nil {
		err = l.writeMark()
	}
	return errors.Join(err, l.closeFiles())
}

// writeMark syncs everything and then writes down that it did.
func (l *Log) writeMark() error {
	l.mu.Lock()
	end := l.written
	l.mu.Unlock()
	if err := l.syncTo(end); err != nil {
		return err
	}
	l.mu.Lock()
	synced := l.durable
	l.mu.Unlock()

	b := make([]byte, frameHeaderBytes+markBytes)
	putPosition(b[frameHeaderBytes:], synced)
	frameHeader{kind: frameMark, length: markBytes, bodyCRC: checksum(0, b[frameHeaderBytes:])}.put(b)
	u := unit{chunks: [][]byte{b}, frames: []int64{0}}
	if end == (position{}) {
		return nil // no segment was begun
	}
	_, end, err := l.append(nil, &u)
	if fault.Is(err, fault.Full) {
		return nil // the mark only sharpens the next start's verdict
	}
	if err != nil {
		return err
	}
	return l.syncTo(end)
}

func (l *Log) closeFiles() error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	var all []error
	l.ended = true
	if l.active != nil {
		all = append(all, l.active.w.Close())
	}
	l.mu.Lock()
	l.filesClosed = true
	if l.anchor != nil {
		l.anchor.pins--
	}
	all = append(all, l.unpinLocked(l.dirty)) // what no sync has covered, after a failure
	l.dirty = nil
	var rest []*segment
	for _, s := range l.segments {
		rest = append(rest, s)
	}
	all = append(all, l.sweepLocked(rest))
	l.mu.Unlock()
	l.dirMu.Lock()
	defer l.dirMu.Unlock()
	all = append(all, l.dir.Close())
	l.dir = nil
	return errors.Join(all...)
}
