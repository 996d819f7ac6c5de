package staging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

const (
	spareSuffix = ".spare"

	// blockBytes is what file systems read before they change a part of it.
	blockBytes = 4096

	// fillStep is written and synced at a time, so that an arrival's sync never
	// waits for more than that.
	fillStep = 4 << 20

	// restFactor is how many times as long as a step the rest after it is.
	restFactor = 15
)

// spare is a file that the next segment is made of: all its blocks have been
// written, so that a sync of what overwrites them writes those bytes and
// nothing about the file.
type spare struct {
	path   string
	length int64 // a multiple of blockBytes
	stale  bool  // holds bytes of arrivals that were released
}

// IsSpare reports whether a file of the log's directory is one that holds nothing
// of the log: a backup leaves it out.
func IsSpare(name string) bool {
	number, ok := strings.CutSuffix(name, spareSuffix)
	_, ours := parseSegmentName(number + segmentSuffix)
	return ok && ours
}

func spareName(number uint64) string {
	return strings.TrimSuffix(segmentName(number), segmentSuffix) + spareSuffix
}

// spareLength is how much of a segment's file may be overwritten as a spare; 0
// if it is no good as one. A much longer one would not be used to its end.
func (l *Log) spareLength(s *segment) int64 {
	whole := s.occupied() &^ (blockBytes - 1)
	if off := whole - l.options.SegmentBytes; off < -l.options.SegmentBytes/4 || off > l.options.SegmentBytes/4 {
		return 0
	}
	return whole
}

// wantsSpareLocked says whether a segment that goes becomes a spare, and holds
// its place then. Spares are used before any file is made, so what the log
// occupies stays within its limit. mu is held.
func (l *Log) wantsSpareLocked(s *segment) bool {
	length := l.spareLength(s)
	if length == 0 || (int64(len(l.spares)+l.coming)+1)*l.options.SegmentBytes > l.options.Ahead {
		return false
	}
	used := l.usedLocked() + int64(l.coming)*l.options.SegmentBytes
	for _, p := range l.spares {
		used += p.length
	}
	if used+length > l.options.MaxBytes {
		return false
	}
	l.coming++
	return true
}

// setAside makes a spare of a segment's file, or removes it. Its name is not
// durable yet. A file with another name (a backup holds it by one) must keep its
// bytes; whether it has one is looked up when it cannot get one any more.
func (l *Log) setAside(s *segment) (spare, error) {
	fs := l.options.FS
	p := spare{path: fs.PathJoin(l.options.Dir, spareName(s.header.number)), length: l.spareLength(s), stale: true}
	if err := fs.Rename(s.path, p.path); err != nil {
		return spare{}, errors.Join(fmt.Errorf("staging: set segment %d aside: %w", s.header.number, err), fs.Remove(s.path))
	}
	info, err := fs.Stat(p.path)
	if err == nil {
		if onlyName(info) && info.Size() >= p.length {
			return p, nil
		}
	}
	return spare{}, errors.Join(err, fs.Remove(p.path))
}

// takeSpare takes one out for use; one without old bytes if there is any.
func (l *Log) takeSpare() (p spare, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spares) == 0 {
		return p, false
	}
	at := 0
	for i := range l.spares {
		if !l.spares[i].stale {
			at = i
			break
		}
	}
	p = l.spares[at]
	l.spares = append(l.spares[:at], l.spares[at+1:]...)
	return p, true
}

func (l *Log) hasSpare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.spares) > 0
}

// dropSpares gives their room back to a disk that has become full. It removes
// files with writeMu held: nothing could be appended meanwhile anyhow.
func (l *Log) dropSpares() {
	l.mu.Lock()
	spares := l.spares
	l.spares = nil
	l.mu.Unlock()
	for _, p := range spares {
		_ = l.options.FS.Remove(p.path) // what stays is removed by the next start
	}
}

// prepare readies a directory that has no segment yet: its first ones are
// written ahead. Later ones are made of those that were released. A disk that
// has no room for it is no error. The log is not yet shared.
func (l *Log) prepare() error {
	length := l.options.SegmentBytes &^ (blockBytes - 1)
	for int64(len(l.spares)+1)*l.options.SegmentBytes <= l.options.Ahead {
		if l.options.Reserve != nil && l.options.Reserve(length) != nil {
			return nil //nolint:nilerr // said above
		}
		p := spare{path: l.options.FS.PathJoin(l.options.Dir, spareName(l.nextNumber)), length: length}
		l.nextNumber++
		if err := l.makeSpare(p); err != nil {
			err = errors.Join(err, l.options.FS.Remove(p.path))
			if noSpace(err) {
				return nil
			}
			return fmt.Errorf("staging: write ahead: %w", err)
		}
		l.spares = append(l.spares, p)
	}
	return nil
}

// Erase overwrites with zeros what spares still hold of released arrivals. If
// the active segment was made of such a spare, it is ended, so that its turn
// comes at the call after its arrivals are released. Erase writes at a gentle
// pace, one file at a time, and is meant to be called now and then. It ends with
// ctx; what it has not come to stays for the next call. Errors concern files that
// hold nothing of value, which are removed, or a log that has failed.
func (l *Log) Erase(ctx context.Context) error {
	l.mu.Lock()
	todo := len(l.spares)
	l.mu.Unlock()
	for range todo {
		p, ok := l.takeStale()
		if !ok {
			break
		}
		err := l.erase(ctx, p)
		switch {
		case err == nil:
			p.stale = false
			l.putBack(&p)
		case ctx.Err() != nil:
			l.putBack(&p)
			return nil //nolint:nilerr // the caller's wish: the rest stays for the next call
		default:
			l.putBack(nil)
			return errors.Join(fmt.Errorf("staging: erase: %w", err), l.options.FS.Remove(p.path))
		}
	}
	return l.endStale()
}

// endStale begins a segment if the active one lies over old bytes and a spare
// without them is there. The old one goes at once if nothing needs it: on a quiet
// node no sync would come to let it go.
func (l *Log) endStale() error {
	old, end, err := l.rollStale()
	if old == nil || err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.dirty, old)
	if at < 0 || !l.durable.covers(position{old.header.number, end}) {
		return nil // a sync is to come, or under way
	}
	l.dirty = slices.Delete(l.dirty, at, at+1)
	old.dirty = false
	return l.unpinLocked([]*segment{old})
}

// rollStale ends the active segment and returns it, with its end.
func (l *Log) rollStale() (old *segment, end int64, err error) {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.ended || l.poisoned() != nil || l.active == nil || !l.active.stale {
		return nil, 0, nil
	}
	l.mu.Lock()
	clean := slices.ContainsFunc(l.spares, func(p spare) bool { return !p.stale })
	l.mu.Unlock()
	if !clean {
		return nil, 0, nil
	}
	old, end = l.active, l.active.end
	return old, end, l.roll()
}

// takeStale takes a spare with old bytes out, and holds its place.
func (l *Log) takeStale() (p spare, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.spares {
		if p = l.spares[i]; p.stale {
			l.spares = append(l.spares[:i], l.spares[i+1:]...)
			l.coming++
			return p, true
		}
	}
	return spare{}, false
}

// putBack gives up a place that was held, to a spare if there is one.
func (l *Log) putBack(p *spare) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coming--
	if p != nil {
		l.spares = append(l.spares, *p)
	}
}

// makeSpare creates a spare of blocks in a row. The log is not yet shared.
func (l *Log) makeSpare(p spare) (err error) {
	f, err := l.options.FS.OpenReadWrite(p.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := l.preallocate(f, 0, p.length); err != nil {
		return err
	}
	return overwrite(context.Background(), f, p.length, false)
}

// erase writes zeros over all of a spare.
func (l *Log) erase(ctx context.Context, p spare) (err error) {
	f, err := l.options.FS.OpenReadWrite(p.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return overwrite(ctx, f, p.length, true)
}

// overwrite writes zeros over the first length bytes of a file and syncs them.
// If it is to be gentle, it rests after each step many times as long as that has
// taken: it is in no hurry, and those who read and store meanwhile are.
func overwrite(ctx context.Context, f vfs.File, length int64, gentle bool) error {
	zeros := make([]byte, min(fillStep, length))
	for at := int64(0); at < length; at += int64(len(zeros)) {
		began := time.Now()
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), length-at)], at); err != nil {
			return err
		}
		if err := f.SyncData(); err != nil {
			return err
		}
		var rest time.Duration
		if gentle {
			rest = restFactor * time.Since(began)
		}
		if !pause.For(ctx, rest) {
			return ctx.Err()
		}
	}
	// As cached here the zeros would be in large folios, of which the kernel then
	// looks at every block for each small write and sync.
	forgetCached(f)
	return nil
}

// removeLeftSpares removes what earlier processes left. They are not used again:
// a crash may have given one file both its names, of a segment and of a spare.
func (l *Log) removeLeftSpares() error {
	fs := l.options.FS
	names, err := fs.List(l.options.Dir)
	if err != nil {
		return fmt.Errorf("staging: list: %w", err)
	}
	left := false
	for _, name := range names {
		if !IsSpare(name) {
			continue
		}
		if err := fs.Remove(fs.PathJoin(l.options.Dir, name)); err != nil {
			// It keeps its room. Used it is not, nor is a segment that may be it.
			l.options.Ahead = 0
			return nil //nolint:nilerr // the log works without spares
		}
		left = true
	}
	if !left {
		return nil
	}
	if err := l.dir.Sync(); err != nil {
		return fault.New(fault.Unavailable, "staging: sync directory: %w", err)
	}
	return nil
}
