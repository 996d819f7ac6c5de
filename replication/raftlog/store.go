package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
)

// Options are where a log rests and who hears of its operations.
type Options struct {
	FS  vfs.FS // nil: the operating system's
	Dir string
	// Mark is a file outside Dir that tells whether the log was put back from an
	// earlier copy of it, see Store.Older; "": none is kept.
	Mark string
	// Observe hears of every operation that has ended: for metrics. It is
	// called by whoever asked for the operation and must not block. May be nil.
	Observe func(op Operation, took time.Duration, err error)
}

const (
	// cacheBytes is little: the newest entries are in the memory of Raft's own
	// log cache, older ones are read in order by nodes that catch up.
	cacheBytes = 8 << 20
	// memTableBytes is the log that is in memory and the WAL only.
	memTableBytes = 16 << 20
)

// Store is the log and the votes.
type Store struct {
	db                *pebble.DB
	watch             watch
	fs                vfs.FS
	markDir, markName string

	marking sync.Mutex // held over writing the mark, and over what must not come between
	marked  mark       // as it is on disk
	older   bool

	appended chan struct{} // capacity 1: there may be entries that are not marked

	writing sync.Mutex // held over a commit: bounds and rows change together

	mu          sync.Mutex
	first, last uint64 // 0, 0: no entries
	lastTerm    uint64 // of the last entry; 0: none, or one that cannot be read
	vote        vote
	staged      *uint64 // term of a vote whose candidate is not named yet
	fresh       bool    // nothing was ever written
}

var (
	_ raft.LogStore    = (*Store)(nil)
	_ raft.StableStore = (*Store)(nil)
)

// Open opens or creates the store. What a crash left half written at the end is
// dropped by it; rows that were durable and do not read back are fault.Corrupt.
func Open(o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	reopened := false
	for {
		db, err := pebble.Open(o.Dir, pebbleOptions(o.FS, cache))
		if err != nil {
			return nil, fmt.Errorf("raftlog: open: %w", kinded(err))
		}
		s := &Store{db: db, watch: watch{observe: o.Observe, running: map[*running]struct{}{}}, fs: o.FS, appended: make(chan struct{}, 1)}
		if o.Mark != "" {
			s.markDir, s.markName = o.FS.PathDir(o.Mark), o.FS.PathBase(o.Mark)
		}
		if err := s.load(); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		if !s.fresh || reopened {
			if err := s.compare(); err != nil {
				return nil, errors.Join(fmt.Errorf("raftlog: mark: %w", err), db.Close())
			}
			return s, nil
		}
		// A new Pebble begins its write-ahead log before it takes up the format in
		// which that log says how far it was synced, and by which rot is told from
		// a torn tail. The second log has it.
		reopened = true
		if err := db.Close(); err != nil {
			return nil, fmt.Errorf("raftlog: open: %w", err)
		}
	}
}

func pebbleOptions(fs vfs.FS, cache *pebble.Cache) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                100,
		Logger:                      quiet{},
		// A block that has rotted is reported by the read that meets it.
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}
	o.TargetFileSizes[0] = 16 << 20
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return o
}

// quiet drops Pebble's running commentary. What it calls fatal ends the
// process: after a failed sync nobody knows what is on disk (DESIGN §4).
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("raftlog: " + fmt.Sprintf(format, args...))
}

// kinded gives Pebble's own corruption its kind.
func kinded(err error) error {
	if pebble.IsCorruptionError(err) {
		return fault.New(fault.Corrupt, "%w", err)
	}
	return err
}

// load reads the bounds of the log and the vote.
func (s *Store) load() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: logKey(0), UpperBound: afterLog()})
	if err != nil {
		return fmt.Errorf("raftlog: read: %w", kinded(err))
	}
	defer it.Close()
	if it.First() {
		s.first = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if it.Last() {
		s.last = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("raftlog: read bounds: %w", kinded(err))
	}
	if s.lastTerm, err = s.termAt(s.last); err != nil {
		return err
	}
	row, err := s.get([]byte{prefixVote})
	if err != nil {
		return err
	}
	if row != nil {
		if s.vote, err = decodeVote(row); err != nil {
			return err
		}
	}
	whole, err := s.db.NewIter(&pebble.IterOptions{})
	if err != nil {
		return fmt.Errorf("raftlog: read: %w", kinded(err))
	}
	defer whole.Close()
	s.fresh = true // opening it is no past
	for ok := whole.First(); ok && s.fresh; ok = whole.Next() {
		s.fresh = bytes.Equal(whole.Key(), stableKey([]byte(startsName)))
	}
	return kinded(whole.Error())
}

// Close makes everything durable and closes it.
func (s *Store) Close() error {
	marked := s.Mark()
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := errors.Join(marked, s.db.Flush(), s.db.Close()); err != nil {
		return fmt.Errorf("raftlog: close: %w", err)
	}
	return nil
}

// Fresh reports whether nothing had ever been written when the store was
// opened: no vote, no term, no entry.
func (s *Store) Fresh() bool { return s.fresh }

// get returns a copy of a row, nil when absent.
func (s *Store) get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("raftlog: read: %w", kinded(err))
	}
	row := append([]byte{}, v...)
	return row, closer.Close()
}

// Bounds returns the first and the last index, 0 and 0 without entries.
func (s *Store) Bounds() (first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.last
}

// FirstIndex returns the first index, 0 without entries. It reads no disk.
func (s *Store) FirstIndex() (uint64, error) {
	first, _ := s.Bounds()
	return first, nil
}

// LastIndex returns the last index, 0 without entries. It reads no disk.
func (s *Store) LastIndex() (uint64, error) {
	_, last := s.Bounds()
	return last, nil
}

// GetLog reads an entry. One outside the bounds is raft.ErrLogNotFound; one
// within them that cannot be read is a [CorruptError].
func (s *Store) GetLog(index uint64, l *raft.Log) (err error) {
	defer s.watch.begin(ReadEntry).end(&err)
	if first, last := s.Bounds(); index < first || index > last || index == 0 {
		return raft.ErrLogNotFound
	}
	err = s.read(index, l)
	if err == nil {
		return nil
	}
	// Between the bounds and the read it may have been cut off.
	if first, last := s.Bounds(); index < first || index > last {
		return raft.ErrLogNotFound
	}
	if fault.Is(err, fault.Corrupt) {
		return &CorruptError{First: index, Last: index, Err: err}
	}
	return err
}

func (s *Store) read(index uint64, l *raft.Log) error {
	key := logKey(index)
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return fault.New(fault.Corrupt, "raftlog: an entry is missing between others")
	}
	if err != nil {
		return fmt.Errorf("raftlog: read: %w", kinded(err))
	}
	return errors.Join(getEntry(v, key, l), closer.Close())
}

// StoreLog appends one entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, which follow each other and the last one, in one
// synced commit. fault.Invalid when they do not, or when one is too long.
func (s *Store) StoreLogs(logs []*raft.Log) (err error) {
	if len(logs) == 0 {
		return nil
	}
	defer s.watch.begin(Append).end(&err)
	s.writing.Lock()
	defer s.writing.Unlock()
	first, last := s.Bounds()
	next := last + 1
	if last == 0 {
		first, next = logs[0].Index, logs[0].Index
	}
	if next == 0 {
		return fault.New(fault.Invalid, "raftlog: an entry of index 0")
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	for _, l := range logs {
		if l.Index != next {
			return fault.New(fault.Invalid, "raftlog: entry %d does not follow %d", l.Index, next-1)
		}
		if err := put(batch, l); err != nil {
			return err
		}
		next++
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("raftlog: append: %w", err)
	}
	s.setBounds(first, next-1, logs[len(logs)-1].Term)
	select {
	case s.appended <- struct{}{}:
	default:
	}
	return nil
}

func put(batch *pebble.Batch, l *raft.Log) error {
	if len(l.Data)+len(l.Extensions) > entryBound(l.Type) || l.Type > raft.LogConfiguration {
		return fault.New(fault.Invalid, "raftlog: entry %d of type %d has %d bytes", l.Index, l.Type, len(l.Data)+len(l.Extensions))
	}
	op := batch.SetDeferred(1+8, entrySize(l))
	op.Key[0] = prefixLog
	binary.BigEndian.PutUint64(op.Key[1:], l.Index)
	putEntry(op.Value, op.Key, l)
	if err := op.Finish(); err != nil {
		return fmt.Errorf("raftlog: append: %w", err)
	}
	return nil
}

func (s *Store) setBounds(first, last, lastTerm uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.last, s.lastTerm = first, last, lastTerm
}

// DeleteRange deletes entries from low to high, inclusive, and syncs: a prefix
// that is not needed any more, a suffix that the leader does not have, or
// everything. What would leave a hole is fault.Invalid.
func (s *Store) DeleteRange(low, high uint64) (err error) {
	defer s.watch.begin(Truncate).end(&err)
	s.writing.Lock()
	defer s.writing.Unlock()
	first, last := s.Bounds()
	if last == 0 || low > high || high < first || low > last {
		return nil
	}
	newFirst, newLast := first, last
	switch {
	case low <= first && high >= last:
		newFirst, newLast = 0, 0
	case low <= first:
		newFirst = high + 1
	case high >= last:
		newLast = low - 1
	default:
		return fault.New(fault.Invalid, "raftlog: deleting %d to %d would leave a hole in %d to %d", low, high, first, last)
	}
	s.mu.Lock()
	term := s.lastTerm
	s.mu.Unlock()
	if newLast < last {
		if term, err = s.termAt(newLast); err != nil {
			return err
		}
		s.marking.Lock() // over the deletion, which Mark must not see half of
		defer s.marking.Unlock()
		if err := s.lowerLocked(term, newLast); err != nil {
			return fmt.Errorf("raftlog: truncate: %w", err)
		}
	}
	// Readers must not take what goes for corrupt: the bounds shrink first. If the
	// commit fails the process ends.
	s.setBounds(newFirst, newLast, term)
	if err := s.db.DeleteRange(logKey(max(low, first)), behind(min(high, last)), pebble.Sync); err != nil {
		return fmt.Errorf("raftlog: truncate: %w", err)
	}
	return nil
}
