package cached

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/cached/cachedpb"
	"pelago/node/far"
	"pelago/node/work"
	"pelago/shard/bulk"
	"pelago/shard/seal"
)

const (
	// tableBytes is what a table of copies grows to, and gathering how long it is
	// left open for more to come at most, quiet if nothing comes: what is opened
	// together is kept, and later evicted, together. Until it is closed, its packs
	// are in node/far's memory or fetched again.
	tableBytes = 256 << 20
	gathering  = 30 * time.Second
	quiet      = 5 * time.Second
	// noteEvery is how often rows are told when copies were opened, and the disk is
	// looked at; a row is up to noteAfter behind.
	noteEvery = time.Minute
	noteAfter = 10 * time.Minute
	// largest is the part of the limit that one pack may have.
	largest = 4
)

// ready reports why nothing can be kept now, and tells the log when that begins and
// ends: a node that has just joined may read before it has its epoch keys.
func (s *Store) ready() error {
	err := s.o.Ring.Ready()
	if waits := err != nil; s.waits.Swap(waits) != waits {
		if waits {
			s.o.Log.Warn("nothing that is read from other nodes is kept until keys are here", "error", err)
		} else {
			s.o.Log.Info("keys are here; what is read from other nodes is kept")
		}
	}
	return err
}

// Keep implements [far.Keeper]: it writes a pack into the open table.
// fault.Unavailable while there is no key to keep it under.
func (s *Store) Keep(ctx context.Context, p far.Pack, ciphertext io.ReaderAt) error {
	if s.Has(p.ID) {
		return nil
	}
	if err := s.ready(); err != nil {
		return err
	}
	if p.Bytes > s.o.Limit/largest {
		return fault.New(fault.Full, "cached: a pack of %d bytes, where all may have %d", p.Bytes, s.o.Limit)
	}
	row, err := s.newRow(p)
	if err != nil {
		return err
	}
	if p.Bytes > far.InMemory {
		return s.keepLong(ctx, p, row, ciphertext)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "cached: the store is closed")
	}
	for _, c := range s.pending {
		if c.id == p.ID {
			return nil
		}
	}
	if err := s.makeRoom(ctx, p.Bytes); err != nil {
		return err
	}
	if err := s.writeLocked(ctx, p, ciphertext); err != nil {
		s.abortLocked()
		return err
	}
	s.pending = append(s.pending, &copied{id: p.ID, row: row, opened: row.Opened, noted: row.Opened})
	if s.table.Bytes() >= tableBytes {
		return s.commitLocked(ctx)
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
	return nil
}

// keepLong keeps a pack that comes while it is kept, and is too long to be looked at
// before: in a table of its own, written without the lock, whose root is checked
// when it is there, before anything names it.
func (s *Store) keepLong(ctx context.Context, p far.Pack, row *cachedpb.Copy, ciphertext io.ReaderAt) error {
	if err := s.reserveLong(ctx, p.Bytes); err != nil {
		return err
	}
	defer func() {
		s.writing.Lock()
		s.long -= p.Bytes
		s.writing.Unlock()
	}()
	table, err := s.o.Bulk.NewTable(bulk.Cached)
	if err != nil {
		return err
	}
	if err := write(ctx, table, p, ciphertext); err != nil {
		table.Abort()
		return err
	}
	refs, err := table.Commit(ctx)
	if err != nil {
		return err
	}
	if err := seal.VerifyRoot(s.o.Bulk.Reader(refs[0]), p.Bytes, p.Root); err != nil {
		return errors.Join(err, s.o.Bulk.Delete(refs...))
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed || s.Has(p.ID) {
		return s.o.Bulk.Delete(refs...)
	}
	return s.nameLocked([]*copied{{id: p.ID, row: row, opened: row.Opened, noted: row.Opened}}, refs)
}

// reserveLong makes room for a long pack and keeps it.
func (s *Store) reserveLong(ctx context.Context, n int64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "cached: the store is closed")
	}
	if err := s.makeRoom(ctx, n); err != nil {
		return err
	}
	s.long += n
	return nil
}

func (s *Store) newRow(p far.Pack) (*cachedpb.Copy, error) {
	wrapped, err := s.o.Ring.Wrap(p.KeyID, p.Key)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMicro()
	record := p.Record()
	record.Space = uint32(bulk.Cached)
	return &cachedpb.Copy{Version: rowVersion, Key: wrapped, Kept: now, Opened: now, Pack: record}, nil
}

// makeRoom evicts what was read longest ago until n more bytes find room, and
// reserves them. writing is held.
func (s *Store) makeRoom(ctx context.Context, n int64) error {
	open := s.long
	for _, c := range s.pending {
		open += c.row.Pack.BlobBytes
	}
	if open+n > s.o.Limit/2 { // what is in an open table cannot be evicted
		if err := s.commitLocked(ctx); err != nil {
			return err
		}
		open = s.long
	}
	if err := s.evict(s.o.Limit - open - n); err != nil {
		return err
	}
	return s.o.Reserve(n)
}

// evict drops what was read longest ago until at most most bytes are kept.
func (s *Store) evict(most int64) error {
	var gone []*copied
	s.mu.Lock()
	for s.bytes > most {
		last := s.order.Back()
		if last == nil {
			break
		}
		gone = append(gone, s.removeLocked(last.Value.(*copied).id))
	}
	s.mu.Unlock()
	s.stats.Evicted.Add(uint64(len(gone)))
	return s.forget(gone...)
}

// writeLocked copies a pack into the open table.
func (s *Store) writeLocked(ctx context.Context, p far.Pack, ciphertext io.ReaderAt) (err error) {
	if s.table == nil {
		if s.table, err = s.o.Bulk.NewTable(bulk.Cached); err != nil {
			return err
		}
		s.began = time.Now()
	}
	s.touched = time.Now()
	return write(ctx, s.table, p, ciphertext)
}

// write copies a pack into a table.
func write(ctx context.Context, table *bulk.Table, p far.Pack, ciphertext io.ReaderAt) error {
	blob, err := table.Add()
	if err != nil {
		return err
	}
	n, err := io.Copy(blob, io.NewSectionReader(ciphertext, 0, p.Bytes))
	if err == nil && n != p.Bytes {
		err = fault.New(fault.Corrupt, "cached: a pack of %d bytes ends after %d", p.Bytes, n)
	}
	return errors.Join(err, ctx.Err(), blob.Close())
}

func (s *Store) abortLocked() {
	if s.table != nil {
		s.table.Abort()
	}
	s.table, s.pending = nil, nil
}

// commitLocked makes the open table a part of bulk/, and then names its packs.
func (s *Store) commitLocked(ctx context.Context) error {
	if s.table == nil {
		return nil
	}
	table, pending := s.table, s.pending
	s.table, s.pending = nil, nil
	refs, err := table.Commit(ctx)
	if err != nil {
		return err
	}
	return s.nameLocked(pending, refs)
}

// nameLocked notes where packs rest that have become a part of bulk/.
func (s *Store) nameLocked(pending []*copied, refs []bulk.Ref) (err error) {
	rows := map[string][]byte{}
	for i, c := range pending {
		c.ref = refs[i]
		c.row.Pack.Table, c.row.Pack.Blob = c.ref.Table, c.ref.Blob
		if rows[string(c.id[:])], err = proto.Marshal(c.row); err != nil {
			return errors.Join(fault.New(fault.Invalid, "cached: %w", err), s.o.Bulk.Delete(refs...))
		}
		c.row = nil
	}
	s.stats.Kept.Add(uint64(len(pending)))
	if err := s.o.Copies.Note(rows); err != nil {
		return errors.Join(err, s.o.Bulk.Delete(refs...))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range pending {
		s.addLocked(c)
	}
	return nil
}

// Run closes tables, notes what was opened and gives way while the disk is nearly
// full, until ctx ends. What was kept by then is kept.
func (s *Store) Run(ctx context.Context, progress *work.Progress) error {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			s.writing.Lock()
			defer s.writing.Unlock()
			return s.commitLocked(context.WithoutCancel(ctx))
		case <-tick.C:
			progress.Note(errors.Join(s.noteOpened(), s.giveWay()))
		case <-s.kick:
			due.Reset(quiet)
		case <-due.C:
			again, err := s.commitDue(ctx)
			progress.Note(err)
			if again > 0 {
				due.Reset(again)
			}
		}
		progress.Set(s.Bytes(), s.o.Limit)
	}
}

// Flush makes what was given to [Store.Keep] before it readable, and durable.
func (s *Store) Flush(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.commitLocked(ctx)
}

// commitDue closes the open table if it is time, else says when to look again.
func (s *Store) commitDue(ctx context.Context) (again time.Duration, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.table == nil {
		return 0, nil
	}
	if left := min(quiet-time.Since(s.touched), gathering-time.Since(s.began)); left > 0 {
		return left, nil
	}
	return 0, s.commitLocked(ctx)
}

// noteOpened tells the rows when their copies were last read.
func (s *Store) noteOpened() error {
	var due []copied
	s.mu.Lock()
	for e := s.order.Front(); e != nil; e = e.Next() {
		c := e.Value.(*copied)
		if c.opened-c.noted > noteAfter.Microseconds() {
			c.noted = c.opened
			due = append(due, *c)
		}
	}
	s.mu.Unlock()
	// None must come back that an eviction has taken. One that was discarded
	// meanwhile may, until the next start drops it.
	s.writing.Lock()
	defer s.writing.Unlock()
	rows := map[string][]byte{}
	for _, c := range due {
		row, err := s.row(c.id)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		row.Opened = c.opened
		if rows[string(c.id[:])], err = proto.Marshal(row); err != nil {
			return fault.New(fault.Invalid, "cached: %w", err)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return s.o.Copies.Note(rows)
}

// giveWay drops the oldest copies, a table's worth at a time, while the disk is
// nearly full.
func (s *Store) giveWay() error {
	if !s.o.Pressed() {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.evict(max(0, s.Bytes()-tableBytes))
}

// Close drops a table that is still open; [Store.Run] must have returned.
func (s *Store) Close() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.closed = true
	s.abortLocked()
}
