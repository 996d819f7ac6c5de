package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
)

const (
	// reserveBytes is how much room is asked for at a time.
	reserveBytes = 16 << 20
	// syncEvery starts writeback while a table is written, so that the sync at
	// its end is short.
	syncEvery = 4 << 20
)

// diskError gives a failed write its kind.
func diskError(what string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.Full, "bulk: %s: %w", what, err)
	}
	return fmt.Errorf("bulk: %s: %w", what, err)
}

// Table gathers blobs. Not for concurrent use.
type Table struct {
	store *Store
	key   tableKey
	out   *tableFile
	refs  []Ref
	blob  *blobWriter // open
	sizes []int64     // of its blobs, once it is finished
	err   error

	finished, done bool
}

// NewTable begins a table. It must end in Commit or Abort.
func (s *Store) NewTable(space Space) (*Table, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.usable(); err != nil {
		return nil, err
	}
	if space != Hot && space != Cached && space != Held {
		return nil, fault.New(fault.Invalid, "bulk: no space %q", byte(space))
	}
	s.mu.Lock()
	key := tableKey{space, s.next}
	s.next++
	s.mu.Unlock()
	out, err := s.create(key)
	if err != nil {
		return nil, err
	}
	return &Table{store: s, key: key, out: out}, nil
}

// Add begins the next blob; Close it before the next Add. After an error the
// table is void and Commit returns it.
func (t *Table) Add() (io.WriteCloser, error) {
	switch {
	case t.err != nil:
		return nil, t.err
	case t.done, t.finished, t.blob != nil:
		return nil, errors.New("bulk: Add to a table that ended or whose last blob is open")
	case len(t.refs) == maxBlobs:
		return nil, fault.New(fault.Invalid, "bulk: more than %d blobs in a table", maxBlobs)
	}
	t.blob = &blobWriter{table: t, out: t.out.blob(uint32(len(t.refs)))}
	return t.blob, nil
}

// blobWriter takes one blob.
type blobWriter struct {
	table *Table
	out   *pieceWriter
}

func (w *blobWriter) Write(p []byte) (int, error) {
	t := w.table
	if t.blob != w || t.done {
		return 0, errors.New("bulk: write to a blob that ended")
	}
	if t.err != nil {
		return 0, t.err
	}
	n, err := w.out.write(p)
	if err != nil {
		t.err = err
	}
	return n, err
}

func (w *blobWriter) Close() error {
	t := w.table
	if t.blob != w || t.done {
		return errors.New("bulk: the blob ended already")
	}
	t.blob = nil
	if t.err == nil {
		t.err = w.out.flush()
	}
	t.refs = append(t.refs, Ref{t.key.space, t.key.number, w.out.number, w.out.size})
	return t.err
}

// Number is the table's, which the Refs of its blobs will have.
func (t *Table) Number() uint64 { return t.key.number }

// Bytes is the size so far.
func (t *Table) Bytes() int64 { return t.out.bytes }

// Finish writes the table's end and syncs it: what is left for Commit is to name
// it. Nothing is added to it afterwards. After an error the table is void.
func (t *Table) Finish() error {
	switch {
	case t.done:
		return errors.New("bulk: the table ended already")
	case t.err == nil && t.blob != nil:
		t.err = errors.New("bulk: Finish with an open blob")
	}
	if t.err != nil || t.finished || len(t.refs) == 0 {
		return t.err
	}
	t.sizes = make([]int64, len(t.refs))
	for i, r := range t.refs {
		t.sizes[i] = r.Bytes
	}
	if t.err = t.out.finish(t.sizes); t.err != nil {
		t.done = true // and its file is gone
		return t.err
	}
	t.finished = true
	return nil
}

// Commit syncs and ingests the table and returns its blobs in order. After it
// returns they survive a crash; after an error none of them is there. A table
// without blobs leaves nothing.
func (t *Table) Commit(ctx context.Context) ([]Ref, error) {
	refs, err := t.store.Commit(ctx, t)
	if err != nil {
		return nil, err
	}
	return refs[0], nil
}

// Commit is [Table.Commit] of several tables at once, all or none, with the syncs
// of one. It ends all of them.
func (s *Store) Commit(ctx context.Context, tables ...*Table) ([][]Ref, error) {
	refs := make([][]Ref, len(tables))
	err := ctx.Err()
	for i, t := range tables {
		if err == nil {
			err = t.Finish()
		}
		refs[i] = t.refs
	}
	if err == nil {
		err = s.enter()
	}
	if err != nil {
		abort(tables)
		return nil, err
	}
	defer s.leave()
	if err := s.usable(); err != nil {
		abort(tables)
		return nil, err
	}
	var full []*Table
	for _, t := range tables {
		if t.finished {
			t.done = true
			full = append(full, t)
		}
	}
	abort(tables) // those without blobs
	if len(full) == 0 {
		return refs, nil
	}
	if err := s.ingest(ctx, full); err != nil {
		return nil, err
	}
	return refs, nil
}

func abort(tables []*Table) {
	for _, t := range tables {
		t.Abort()
	}
}

// Abort drops an uncommitted table. After Commit it does nothing.
func (t *Table) Abort() {
	if t.done {
		return
	}
	t.done = true
	if t.finished {
		t.out.remove()
	} else {
		t.out.abort()
	}
}

// ingest makes finished tables part of the store. The ledger hears of them
// before, so that a crash in between leaves tables known to have no readers.
func (s *Store) ingest(ctx context.Context, tables []*Table) error {
	var begin, end []record
	var paths []string
	for _, t := range tables {
		begin = append(begin, record{kind: recordBegin, table: t.key})
		end = append(end, record{kind: recordTable, table: t.key, sizes: t.sizes})
		paths = append(paths, t.out.path)
	}
	if err := s.ledger.add(func() []record { return begin }, func() { s.begin(tables) }); err != nil {
		remove(tables)
		return err
	}
	if err := s.db.Ingest(ctx, paths); err != nil {
		remove(tables)
		return diskError("ingest tables", err)
	}
	if err := s.usable(); err != nil {
		return err
	}
	err := s.ledger.add(func() []record { return end }, func() { s.committed(tables) })
	if err != nil {
		for _, t := range tables {
			err = errors.Join(err, s.db.Excise(ctx, t.key.span()))
		}
	}
	return err
}

func (s *Store) begin(tables []*Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tables {
		s.begun[t.key] = true
	}
}

func (s *Store) committed(tables []*Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tables {
		s.tables[t.key] = newTable(t.sizes, t.out.bytes)
		delete(s.begun, t.key)
	}
}

func remove(tables []*Table) {
	for _, t := range tables {
		t.out.remove()
	}
}

// tableFile writes one sorted table beside Pebble's folder.
type tableFile struct {
	store    *Store
	key      tableKey
	path     string
	file     *syncedFile
	writer   *sstable.Writer
	bytes    int64 // of values; of the file once it is finished
	reserved int64
	scratch  []byte
	piece    []byte
}

func (s *Store) create(key tableKey) (*tableFile, error) {
	t := &tableFile{store: s, key: key, path: s.o.FS.PathJoin(s.ingestDir, fmt.Sprintf("%c%020d.sst", key.space, key.number))}
	if err := t.reserve(1); err != nil {
		return nil, err
	}
	f, err := s.o.FS.Create(t.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, diskError("create a table", err)
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: syncEvery})
	t.file = &syncedFile{file: f}
	t.writer = sstable.NewWriter(t.file, s.writerOptions)
	return t, nil
}

// reserve asks for the room that n more bytes need.
func (t *tableFile) reserve(n int64) error {
	if t.bytes+n <= t.reserved {
		return nil
	}
	if err := t.store.o.Reserve(reserveBytes); err != nil {
		return fmt.Errorf("bulk: reserve: %w", err)
	}
	t.reserved += reserveBytes
	return nil
}

func (t *tableFile) set(blob, piece uint32, value []byte) error {
	if err := t.reserve(int64(len(value))); err != nil {
		return err
	}
	t.scratch = t.key.key(t.scratch[:0], blob, piece)
	if err := t.writer.Set(t.scratch, value); err != nil {
		return diskError("write a table", err)
	}
	t.bytes += int64(len(value))
	return nil
}

// blob begins a blob's pieces. The table's memory holds one piece, so blobs
// follow each other.
func (t *tableFile) blob(number uint32) *pieceWriter {
	if t.piece == nil {
		t.piece = make([]byte, 0, pieceBytes)
	}
	return &pieceWriter{out: t, number: number, held: t.piece[:0]}
}

// finish writes the index row and syncs the file.
func (t *tableFile) finish(sizes []int64) error {
	err := t.set(indexBlob, 0, appendIndex(nil, sizes))
	if err != nil {
		t.abort()
		return err
	}
	err = t.writer.Close()
	t.writer = nil
	if err == nil {
		var meta vfs.FileInfo
		if meta, err = t.store.o.FS.Stat(t.path); err == nil {
			t.bytes = meta.Size()
		}
	}
	if err != nil {
		t.remove()
		return diskError("finish a table", err)
	}
	return nil
}

// abort ends the writer, whose goroutine would stay, and drops the file.
func (t *tableFile) abort() {
	t.file.aborted.Store(true)
	if t.writer != nil {
		_ = t.writer.Close() // fails, as it should
	}
	t.remove()
}

func (t *tableFile) remove() {
	if err := t.store.o.FS.Remove(t.path); err != nil {
		t.store.o.Log.Warn("a dropped table stays until the next start", "error", err)
	}
}

// pieceWriter cuts a blob into pieces.
type pieceWriter struct {
	out    *tableFile
	number uint32
	piece  uint32
	size   int64
	held   []byte
}

func (w *pieceWriter) write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if w.size >= maxBlobBytes {
			return total - len(p), fault.New(fault.Invalid, "bulk: a blob of more than %d bytes", int64(maxBlobBytes))
		}
		n := min(pieceBytes-len(w.held), len(p))
		if len(w.held) == 0 && n == pieceBytes {
			if err := w.put(p[:n]); err != nil {
				return total - len(p), err
			}
		} else if w.held = append(w.held, p[:n]...); len(w.held) == pieceBytes {
			if err := w.flush(); err != nil {
				return total - len(p), err
			}
		}
		w.size += int64(n)
		p = p[n:]
	}
	return total, nil
}

func (w *pieceWriter) flush() error {
	if len(w.held) == 0 {
		return nil
	}
	err := w.put(w.held)
	w.held = w.held[:0]
	return err
}

func (w *pieceWriter) put(value []byte) error {
	err := w.out.set(w.number, w.piece, value)
	w.piece++
	return err
}

// syncedFile is the table's file as Pebble's writer sees it: synced when it is
// finished, and dead once aborted.
type syncedFile struct {
	file    vfs.File
	aborted atomic.Bool // Pebble writes from a goroutine of its own
}

var errAborted = errors.New("bulk: the table was aborted")

func (f *syncedFile) Write(p []byte) error {
	if f.aborted.Load() {
		return errAborted
	}
	_, err := f.file.Write(p)
	return err
}

func (f *syncedFile) Finish() error {
	if f.aborted.Load() {
		return errors.Join(errAborted, f.file.Close())
	}
	return errors.Join(f.file.Sync(), f.file.Close())
}

func (f *syncedFile) Abort() { _ = f.file.Close() }
