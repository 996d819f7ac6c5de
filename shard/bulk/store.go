package bulk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"pelago/cluster/fault"
)

// Store holds the blobs.
type Store struct {
	o             Options
	db            *pebble.DB
	ingestDir     string
	pebbleDir     string
	pebbleOptions *pebble.Options
	writerOptions sstable.WriterOptions
	guard         *guard
	ledger        ledger
	logger        *logger

	mu     sync.Mutex
	idle   sync.Cond // signalled when users falls to 0
	users  int       // calls inside
	closed bool
	tables map[tableKey]*table
	begun  map[tableKey]bool // begun in the ledger, not committed
	losing map[tableKey]bool // Lost is being told
	next   uint64            // table number
}

// table is the state of a committed table; Store.mu guards it.
type table struct {
	sizes []int64       // of the blobs; for a dead one -1 less the bytes that the file still holds
	live  int           // blobs
	dead  int64         // bytes of the dead that the file still holds
	bytes int64         // of the file
	busy  bool          // being rewritten or dropped
	swap  chan struct{} // while a rewritten table takes its place; then closed
}

func newTable(sizes []int64, bytes int64) *table {
	t := &table{sizes: sizes, bytes: bytes}
	for _, n := range sizes {
		if n >= 0 {
			t.live++
		}
	}
	return t
}

// kill marks a blob dead.
func (t *table) kill(blob uint32) {
	if int(blob) < len(t.sizes) && t.sizes[blob] >= 0 {
		t.live--
		t.dead += t.sizes[blob]
		t.sizes[blob] = -1 - t.sizes[blob]
	}
}

// records are the table's state for the ledger.
func (t *table) records(key tableKey) []record {
	table := record{kind: recordTable, table: key, sizes: slices.Clone(t.sizes)}
	dead := record{kind: recordDead, table: key}
	for i, n := range t.sizes {
		if n < -1 {
			table.sizes[i] = -1 - n
			dead.blobs = append(dead.blobs, uint32(i))
		}
	}
	if len(dead.blobs) == 0 {
		return []record{table}
	}
	return []record{table, dead}
}

func (t *table) alive(blob uint32) bool { return int(blob) < len(t.sizes) && t.sizes[blob] >= 0 }

// Open opens or creates; tables that are missing are reported through
// Options.Lost and the rest is served. fault.Corrupt if Pebble's own manifest
// cannot be read, fault.Unsupported for data of a newer program.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{o: o, ingestDir: o.FS.PathJoin(o.Dir, "ingest"), pebbleDir: o.FS.PathJoin(o.Dir, "tables"),
		tables: map[tableKey]*table{}, begun: map[tableKey]bool{}, losing: map[tableKey]bool{}, next: 1}
	s.idle.L = &s.mu
	s.logger = &logger{log: o.Log, fatal: o.Fatal}
	s.ledger = ledger{fs: o.FS, dir: o.Dir, snapshot: s.snapshot}
	if err := s.prepareFolders(); err != nil {
		return nil, err
	}
	damaged, err := readLedger(o.FS, o.Dir, s.replay)
	if err != nil {
		return nil, err
	}
	s.guard = &guard{FS: o.FS, held: map[string]bool{}}
	if err := s.guard.hold(s.pebbleDir); err != nil {
		return nil, err
	}
	if err := s.openPebble(); err != nil {
		return nil, err
	}
	if err := s.reconcile(damaged); err != nil {
		return nil, errors.Join(err, s.db.Close(), s.ledger.close())
	}
	return s, nil
}

// prepareFolders makes the folders and drops tables whose writing was cut off.
func (s *Store) prepareFolders() error {
	fs := s.o.FS
	for _, dir := range []string{s.o.Dir, s.ingestDir} {
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			return diskError("make folders", err)
		}
	}
	names, err := fs.List(s.ingestDir)
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	for _, name := range names {
		if err := fs.Remove(fs.PathJoin(s.ingestDir, name)); err != nil {
			return fmt.Errorf("bulk: %w", err)
		}
	}
	if parent := fs.PathDir(s.o.Dir); parent != "" && parent != s.o.Dir {
		if err := syncDir(fs, parent); err != nil {
			return diskError("sync folders", err)
		}
	}
	return nil
}

// openPebble opens Pebble so that it never rewrites, never compresses, and
// neither checks that its tables are there nor ends the process over them.
func (s *Store) openPebble() error {
	cache := pebble.NewCache(s.o.CacheBytes)
	defer cache.Unref()
	po := &pebble.Options{
		FS: s.guard, Cache: cache, Logger: s.logger,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                1 << 20, // nothing is written through it
		DisableAutomaticCompactions: true,
		DisableConsistencyCheck:     true,
		DisableTableStats:           true,
		MaxOpenFiles:                2000,
		EventListener: &pebble.EventListener{
			// met by a reader, who handles it; the default ends the process
			DataCorruption:  func(info pebble.DataCorruptionInfo) { s.logger.Errorf("%s", info) },
			BackgroundError: func(err error) { s.logger.Errorf("background: %v", err) },
		},
	}
	po.Experimental.ReadSamplingMultiplier = -1
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	po.EnsureDefaults()
	db, err := pebble.Open(s.pebbleDir, po)
	if err != nil {
		if pebble.IsCorruptionError(err) {
			return fault.New(fault.Corrupt, "bulk: open: %w", err)
		}
		return diskError("open", err)
	}
	s.db, s.pebbleOptions = db, po
	s.writerOptions = po.MakeWriterOptions(6, db.TableFormat())
	s.writerOptions.BlockSize = 1 << 10 // nearly every piece has a block, and rot, for itself
	s.writerOptions.IndexBlockSize = 256 << 10
	s.writerOptions.Compression = sstable.NoCompression
	s.writerOptions.DisableValueBlocks = true
	return nil
}

// replay applies a record of the ledger to the state.
func (s *Store) replay(r record) {
	if r.kind == recordNext {
		s.next = max(s.next, r.table.number)
		return
	}
	s.next = max(s.next, r.table.number+1)
	switch r.kind {
	case recordBegin:
		s.begun[r.table] = true
	case recordTable:
		delete(s.begun, r.table)
		s.tables[r.table] = newTable(r.sizes, 0)
	case recordDead:
		if t := s.tables[r.table]; t != nil {
			for _, n := range r.blobs {
				t.kill(n)
			}
		}
	case recordGone:
		delete(s.tables, r.table)
		delete(s.begun, r.table)
	}
}

// snapshot is the state as records, tables in key order.
func (s *Store) snapshot() []record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := []record{{kind: recordNext, table: tableKey{number: s.next}}}
	for key := range s.begun {
		records = append(records, record{kind: recordBegin, table: key})
	}
	for _, key := range s.sortedLocked() {
		records = append(records, s.tables[key].records(key)...)
	}
	return records
}

func (s *Store) sortedLocked() []tableKey {
	keys := make([]tableKey, 0, len(s.tables))
	for key := range s.tables {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareTables)
	return keys
}

func compareTables(a, b tableKey) int {
	return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.number, b.number))
}

// enter counts a call in; leave counts it out. Close waits for all.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "bulk: the store is closed")
	}
	s.users++
	return nil
}

func (s *Store) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		s.idle.Broadcast()
	}
}

// usable refuses changes after Pebble failed for good.
func (s *Store) usable() error {
	if err := s.logger.failure(); err != nil {
		return fault.New(fault.Unavailable, "bulk: the store failed: %w", err)
	}
	return nil
}

// Delete removes blobs, durably. Space returns as tables become wholly dead, at
// once, or are rewritten by Reclaim (30 % dead). Blobs that are not there are
// no error.
func (s *Store) Delete(refs ...Ref) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.usable(); err != nil {
		return err
	}
	return s.kill(context.Background(), refs)
}

// kill makes blobs dead in the ledger and removes tables that are wholly dead.
func (s *Store) kill(ctx context.Context, refs []Ref) error {
	dead := map[tableKey][]uint32{}
	s.mu.Lock()
	for _, r := range refs {
		key := tableKey{r.Space, r.Table}
		if t := s.tables[key]; t != nil && t.alive(r.Blob) {
			dead[key] = append(dead[key], r.Blob)
		}
	}
	s.mu.Unlock()
	if len(dead) == 0 {
		return nil
	}
	var records []record
	for key, blobs := range dead {
		records = append(records, record{kind: recordDead, table: key, blobs: blobs})
	}
	slices.SortFunc(records, func(a, b record) int { return compareTables(a.table, b.table) })
	var empty []tableKey
	err := s.ledger.add(func() []record { return records }, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, r := range records {
			if t := s.tables[r.table]; t != nil {
				for _, n := range r.blobs {
					t.kill(n)
				}
				if t.live == 0 {
					empty = append(empty, r.table)
				}
			}
		}
	})
	if err != nil {
		return err
	}
	for _, key := range empty {
		if err := s.drop(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a wholly dead table from Pebble and from the ledger. Whoever is
// rewriting it drops it instead.
func (s *Store) drop(ctx context.Context, key tableKey) error {
	s.mu.Lock()
	t := s.tables[key]
	if t == nil || t.busy || t.live > 0 {
		s.mu.Unlock()
		return nil
	}
	t.busy = true // nobody else drops it
	s.mu.Unlock()
	err := s.excise(ctx, key)
	s.mu.Lock()
	t.busy = false
	s.mu.Unlock()
	return err
}

func (s *Store) excise(ctx context.Context, key tableKey) error {
	if err := s.db.Excise(ctx, key.span()); err != nil {
		return diskError("excise a table", err)
	}
	if err := s.usable(); err != nil {
		return err
	}
	return s.ledger.add(one(record{kind: recordGone, table: key}), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tables, key)
	})
}

// Refs yields every blob of a space in key order, for verify. It shows the
// tables as they are when it begins.
func (s *Store) Refs(space Space, yield func(Ref) error) error { return s.RefsSince(space, 0, yield) }

// RefsSince is Refs from a table number on.
func (s *Store) RefsSince(space Space, table uint64, yield func(Ref) error) error {
	s.mu.Lock()
	keys := slices.DeleteFunc(s.sortedLocked(), func(k tableKey) bool { return k.space != space || k.number < table })
	s.mu.Unlock()
	for _, key := range keys {
		for _, ref := range s.refs(key) {
			if err := yield(ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// Tables yields the tables of a space in ascending order: their numbers, and the
// bytes of their files.
func (s *Store) Tables(space Space, yield func(number uint64, bytes int64)) {
	type one struct {
		number uint64
		bytes  int64
	}
	var all []one
	s.mu.Lock()
	for key, t := range s.tables {
		if key.space == space {
			all = append(all, one{key.number, t.bytes})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b one) int { return cmp.Compare(a.number, b.number) })
	for _, t := range all {
		yield(t.number, t.bytes)
	}
}

// TableRefs returns the blobs of one table that are here.
func (s *Store) TableRefs(space Space, number uint64) []Ref {
	return s.refs(tableKey{space, number})
}

// Has reports whether a blob is here: neither deleted nor lost, as far as is known.
func (s *Store) Has(r Ref) bool {
	size, ok := s.size(r)
	return ok && size == r.Bytes
}

// refs are the live blobs of a table.
func (s *Store) refs(key tableKey) []Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[key]
	if t == nil {
		return nil
	}
	refs := make([]Ref, 0, t.live)
	for i, n := range t.sizes {
		if n >= 0 {
			refs = append(refs, Ref{key.space, key.number, uint32(i), n})
		}
	}
	return refs
}

// Bytes is what the tables occupy.
func (s *Store) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for _, t := range s.tables {
		n += t.bytes
	}
	return n
}

// BytesOf is what the tables of one space occupy.
func (s *Store) BytesOf(space Space) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for key, t := range s.tables {
		if key.space == space {
			n += t.bytes
		}
	}
	return n
}

// Checkpoint makes dir, which must not exist, a store that holds what this one
// holds now. Tables are linked, not copied: dir is on the same file system.
// Changes wait meanwhile, readers do not.
func (s *Store) Checkpoint(dir string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.usable(); err != nil {
		return err
	}
	fs := s.o.FS
	if _, err := fs.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fault.New(fault.Conflict, "bulk: checkpoint: the folder is there already"), err)
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return diskError("checkpoint", err)
	}
	return s.ledger.checkpoint(dir, func() error {
		if err := s.db.Checkpoint(fs.PathJoin(dir, fs.PathBase(s.pebbleDir))); err != nil {
			return diskError("checkpoint", err)
		}
		return nil
	})
}

// Close waits for calls inside to return and closes the store. Readers and
// tables given out before answer fault.Unavailable afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for s.users > 0 {
		s.idle.Wait()
	}
	s.mu.Unlock()
	if err := errors.Join(s.db.Close(), s.ledger.close()); err != nil {
		return fmt.Errorf("bulk: close: %w", err)
	}
	return nil
}
