package staging

import (
	"crypto/rand"
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// preallocateStep is how far ahead space is asked for: large enough that the
// file's blocks lie together, small enough that a nearly full disk gives it.
const preallocateStep = 32 << 20

// unit is what one append writes into one segment: whole frames in a row.
type unit struct {
	chunks [][]byte // in order, one write each
	frames []int64  // where in the chunks, taken together, each frame begins; a header lies within one chunk
}

func (u *unit) bytes() int64 {
	var n int64
	for _, c := range u.chunks {
		n += int64(len(c))
	}
	return n
}

// header returns the bytes of the frame header at offset at of the unit.
func (u *unit) header(at int64) []byte {
	for _, c := range u.chunks {
		if at < int64(len(c)) {
			return c[at : at+frameHeaderBytes]
		}
		at -= int64(len(c))
	}
	panic("staging: a frame begins outside of its unit")
}

// append writes a unit at the log's end. It returns where the unit begins and
// the position behind it. An arrival (nil: none) gets a pin on the segment
// before anything could remove it. Errors: fault.Full leaves the log as it was;
// fault.Unavailable means the log has failed.
func (l *Log) append(a *Arrival, u *unit) (at, end position, err error) {
	n := u.bytes()
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.poisoned(); err != nil {
		return at, end, err
	}
	if l.ended {
		return at, end, errClosed()
	}
	if l.active == nil {
		if err := l.beginLate(); err != nil {
			return at, end, err
		}
	}
	full := l.active.end > segmentHeaderBytes && l.active.end+n > l.options.SegmentBytes
	if full || l.active.ahead == 0 && l.hasSpare() {
		if err := l.roll(); err != nil {
			return at, end, err
		}
	}
	s := l.active
	if err := l.allocate(s, n); err != nil {
		return at, end, err
	}
	for _, f := range u.frames {
		seal(u.header(f), &s.header, s.end+f)
	}
	at = position{s.header.number, s.end}
	offset := s.end
	for _, c := range u.chunks {
		if err := l.write(s, c, offset); err != nil {
			// s.end stays, so the next unit overwrites what came through.
			if noSpace(err) {
				return at, end, fault.New(fault.Full, "staging: write: %w", err)
			}
			return at, end, l.fail(fmt.Errorf("write segment %d: %w", s.header.number, err))
		}
		offset += int64(len(c))
	}
	s.end = offset
	end = position{s.header.number, s.end}
	l.publish(a, s, end)
	return at, end, nil
}

// write writes a chunk. Over what was written ahead it writes whole blocks, with
// zeros behind the chunk: of a block that is changed in part the kernel reads the
// rest from the disk first. A block's beginning was written just before, so that
// one is in memory. writeMu is held.
func (l *Log) write(s *segment, c []byte, offset int64) error {
	end := offset + int64(len(c))
	tail := end % blockBytes
	if tail == 0 || end > s.ahead {
		_, err := s.w.WriteAt(c, offset)
		return err
	}
	whole := max(int64(len(c))-tail, 0)
	if whole > 0 {
		if _, err := s.w.WriteAt(c[:whole], offset); err != nil {
			return err
		}
	}
	n := copy(l.block[:], c[whole:])
	clear(l.block[n:])
	at := offset + whole
	_, err := s.w.WriteAt(l.block[:blockBytes-at%blockBytes], at)
	return err
}

// publish makes an append visible to syncs and readers.
func (l *Log) publish(a *Arrival, s *segment, end position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.size = end.offset
	l.written = end
	l.dirtyLocked(s)
	if a != nil && (len(a.pinned) == 0 || a.pinned[len(a.pinned)-1] != s) {
		s.pins++
		a.pinned = append(a.pinned, s)
	}
}

// dirtyLocked makes the next sync cover s. mu is held.
func (l *Log) dirtyLocked(s *segment) {
	if !s.dirty {
		s.dirty = true
		s.pins++
		l.dirty = append(l.dirty, s)
	}
}

// allocate asks for space before it is used, in steps. writeMu is held.
func (l *Log) allocate(s *segment, need int64) error {
	if s.end+need <= s.allocated {
		return nil
	}
	missing := s.end + need - s.allocated
	step := max(missing, min(preallocateStep, l.options.SegmentBytes-s.allocated))
	if l.options.Reserve != nil {
		err := l.options.Reserve(step)
		if err != nil && step > missing {
			step = missing
			err = l.options.Reserve(step)
		}
		if err != nil {
			l.dropSpares()
			return fmt.Errorf("staging: reserve space: %w", err)
		}
	}
	if from, to := max(s.allocated, s.ahead), s.allocated+step; from < to {
		err := l.preallocate(s.w, from, to-from)
		switch {
		case err == nil:
		case noSpace(err):
			// The write itself decides: it needs less than a step.
			step = missing
		default:
			return l.fail(fmt.Errorf("preallocate segment %d: %w", s.header.number, err))
		}
	}
	s.allocated += step
	return nil
}

// preallocate gives a file room, where the file system can. writeMu is held, or
// the log is not yet shared.
func (l *Log) preallocate(f vfs.File, from, n int64) error {
	if l.noPrealloc {
		return nil
	}
	err := f.Preallocate(from, n)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || errors.Is(err, vfs.ErrUnsupported) {
		l.noPrealloc = true
		return nil
	}
	return err
}

// roll seals the active segment and begins the next. writeMu is held. The old
// segment's last bytes may be unsynced: the next sync covers them first.
func (l *Log) roll() error {
	old := l.active
	s, err := l.create(&segmentHeader{prev: old.header.number, prevEnd: old.end})
	if err != nil {
		return err
	}
	// Its bytes are synced through the other handle, so a failure to close
	// this one loses nothing.
	_ = old.w.Close()
	old.w = nil
	l.mu.Lock()
	old.sealed = true
	// With the pin of a pending sync, even if nothing is unsynced: if nothing in
	// it is live any more, that sync's end removes it.
	l.dirtyLocked(old)
	l.segments[s.header.number] = s
	l.mu.Unlock()
	l.active = s
	return nil
}

// beginLife begins the first segment of this process. writeMu is held, or the
// log is not yet shared.
func (l *Log) beginLife() error {
	s, err := l.create(&segmentHeader{})
	if err != nil {
		return err
	}
	l.active = s
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[s.header.number] = s
	l.written = position{s.header.number, segmentHeaderBytes}
	l.durable = l.written
	return nil
}

// beginLate begins the first segment where Open found no room for it. If the
// disk is still full and the anchor has nothing that anyone needs, it makes
// room; a crash right then lets numbers begin anew, in an empty directory.
// writeMu is held.
func (l *Log) beginLate() error {
	anchor := l.anchor
	err := l.beginLife()
	l.mu.Lock()
	defer l.mu.Unlock()
	if anchor == nil {
		return err
	}
	last := fault.Is(err, fault.Full) && anchor.live == 0 && anchor.pins == 1 && !anchor.damaged
	if err != nil && !last {
		return err
	}
	l.anchor = nil
	sweepErr := l.unpinLocked([]*segment{anchor})
	if err == nil {
		return nil // a file that could not be removed is no matter of this append
	}
	if sweepErr != nil {
		return err
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	return l.beginLife()
}

// create makes a segment file whose header and name are durable, so that every
// frame ever written has a header to be read by. writeMu is held (or the log is
// not yet shared). The number is used up even if it fails.
func (l *Log) create(h *segmentHeader) (*segment, error) {
	h.number, h.life = l.nextNumber, l.life
	l.nextNumber++
	if _, err := rand.Read(h.salt[:]); err != nil {
		return nil, l.fail(fmt.Errorf("salt of segment %d: %w", h.number, err))
	}
	fs := l.options.FS
	s := &segment{header: *h, path: fs.PathJoin(l.options.Dir, segmentName(h.number)), end: segmentHeaderBytes, size: segmentHeaderBytes, allocated: segmentHeaderBytes}
	file := s.path
	if p, ok := l.takeSpare(); ok {
		file, s.ahead, s.stale = p.path, p.length, p.stale
	}
	err := l.writeHeader(s, file)
	if err == nil && file != s.path {
		// Only now, so that a file of a segment's name always has its header.
		err = fs.Rename(file, s.path)
	}
	if err == nil {
		// Any failure here leaves the directory in doubt, unlike the file.
		if err = l.syncDir(); err == nil {
			return s, nil
		}
	}
	for _, f := range append(s.syncs[:], s.w) {
		if f != nil {
			f.Close()
		}
	}
	if l.failure.Load() != nil {
		return nil, err
	}
	// What remains of it holds no frame; Open removes it if this does not.
	_ = fs.Remove(file)
	if noSpace(err) {
		return nil, fault.New(fault.Full, "staging: begin segment: %w", err)
	}
	return nil, l.fail(fmt.Errorf("begin segment %d: %w", h.number, err))
}

// writeHeader writes the header of a segment to a file, which it creates if it is
// not there, and syncs it.
func (l *Log) writeHeader(s *segment, file string) (err error) {
	fs := l.options.FS
	if s.w, err = fs.OpenReadWrite(file, vfs.WriteCategoryUnspecified); err != nil {
		s.w = nil
		return err
	}
	for i := range s.syncs {
		if s.syncs[i], err = fs.OpenReadWrite(file, vfs.WriteCategoryUnspecified); err != nil {
			s.syncs[i] = nil
			return err
		}
	}
	s.r = s.syncs[0]
	if _, err = s.w.WriteAt(s.header.encode(), 0); err != nil {
		return err
	}
	return s.r.SyncData()
}

// syncDir makes names durable. A failure poisons the log.
func (l *Log) syncDir() error {
	l.dirMu.Lock()
	defer l.dirMu.Unlock()
	if l.dir == nil {
		return nil // closed: the next start syncs it
	}
	if err := l.dir.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync directory: %w", err))
	}
	return nil
}
