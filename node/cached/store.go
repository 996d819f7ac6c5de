package cached

import (
	"cmp"
	"container/list"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/cached/cachedpb"
	"pelago/shard/bulk"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Rows is a part of store/. *archive.Rows is one.
type Rows interface {
	// Note writes rows, and drops those whose value is nil, all or none, in the
	// order of its calls; a crash may undo the last of them.
	Note(rows map[string][]byte) error
	Get(key string) (value []byte, ok bool, err error)
	// Each visits the rows in key order; the value is valid during the call.
	Each(visit func(key string, value []byte) error) error
}

// Ring wraps study keys of other nodes. *keys.Ring is one.
type Ring interface {
	// Ready reports why it cannot wrap now: fault.Unavailable.
	Ready() error
	Wrap(id [16]byte, key seal.Key) ([]byte, error)
	Unwrap(id [16]byte, wrapped []byte) (seal.Key, error)
}

// Options are what a store is made of.
type Options struct {
	Bulk *bulk.Store
	// Copies has a row for each pack, under its id; Told one for each series and
	// node, Opened when that was last opened.
	Copies, Told, Opened Rows
	Ring                 Ring

	Limit   int64               // bytes of all copies
	Reserve func(n int64) error // before n bytes are written; fault.Full
	// ReserveTold is the same for what is told of series, kilobytes without which they do
	// not open while their site is away; nil: Reserve.
	ReserveTold func(n int64) error
	Pressed     func() bool  // whether copies should give way; nil: never
	Log         *slog.Logger // nil is silent
}

// Store holds the copies.
type Store struct {
	o Options

	// writing is held by whoever writes the open table, evicts, or writes what
	// nodes told, over that I/O: of two, neither must make room for the other's
	// bytes.
	writing sync.Mutex
	table   *bulk.Table
	pending []*copied // in the open table, in order
	began   time.Time // of the open table
	touched time.Time // when it last grew
	long    int64     // bytes of long packs that are being written to tables of their own
	closed  bool
	kick    chan struct{} // the open table has grown

	mu    sync.Mutex // guards what follows
	kept  map[pack.ID]*list.Element
	order list.List // of *copied, the last read in front
	bytes int64

	told  atomic.Int64 // bytes of what nodes told, about
	waits atomic.Bool  // nothing is kept for want of an epoch key
	stats Stats
}

// copied is a copy of a pack.
type copied struct {
	id            pack.ID
	ref           bulk.Ref
	row           *cachedpb.Copy // until it is written
	opened, noted int64          // Unix microseconds; noted is what the row says
}

// rowVersion is the version of the rows that this code writes and reads.
const rowVersion = 1

// Open finds what is kept. What cannot be read of it is dropped.
func Open(o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Pressed == nil {
		o.Pressed = func() bool { return false }
	}
	if o.ReserveTold == nil {
		o.ReserveTold = o.Reserve
	}
	s := &Store{o: o, kept: map[pack.ID]*list.Element{}, kick: make(chan struct{}, 1)}
	if err := s.reconcile(); err != nil {
		return nil, fmt.Errorf("cached: %w", err)
	}
	if err := s.countTold(); err != nil {
		return nil, fmt.Errorf("cached: %w", err)
	}
	return s, nil
}

// reconcile drops rows without a blob and blobs without a row, and remembers the
// rest.
func (s *Store) reconcile() error {
	blobs := map[bulk.Ref]bool{}
	if err := s.o.Bulk.Refs(bulk.Cached, func(r bulk.Ref) error { blobs[r] = true; return nil }); err != nil {
		return err
	}
	drop := map[string][]byte{}
	var all []*copied
	err := s.o.Copies.Each(func(key string, value []byte) error {
		row, err := parseCopy(value)
		if err != nil || key != string(row.Pack.Id) || !blobs[refOf(row)] {
			drop[key] = nil
			return nil //nolint:nilerr // the copy goes
		}
		delete(blobs, refOf(row))
		all = append(all, &copied{id: pack.ID(row.Pack.Id), ref: refOf(row), opened: row.Opened, noted: row.Opened})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b *copied) int { return cmp.Compare(a.opened, b.opened) })
	for _, c := range all {
		s.addLocked(c) // nobody else is here yet
	}
	if len(drop) > 0 {
		if err := s.o.Copies.Note(drop); err != nil {
			return err
		}
	}
	left := make([]bulk.Ref, 0, len(blobs))
	for ref := range blobs {
		left = append(left, ref)
	}
	return s.o.Bulk.Delete(left...)
}

func parseCopy(value []byte) (*cachedpb.Copy, error) {
	var row cachedpb.Copy
	if err := proto.Unmarshal(value, &row); err != nil {
		return nil, fault.New(fault.Corrupt, "cached: a row does not parse: %w", err)
	}
	if row.Version != rowVersion || row.Pack == nil || len(row.Pack.Id) != 16 || len(row.Pack.Key) != 16 {
		return nil, fault.New(fault.Unsupported, "cached: a row of version %d", row.Version)
	}
	return &row, nil
}

func refOf(row *cachedpb.Copy) bulk.Ref {
	p := row.Pack
	return bulk.Ref{Space: bulk.Cached, Table: p.Table, Blob: p.Blob, Bytes: p.BlobBytes}
}

func (s *Store) addLocked(c *copied) {
	s.kept[c.id] = s.order.PushFront(c)
	s.bytes += c.ref.Bytes
}

// removeLocked takes a copy out of the list; nil if it is not there.
func (s *Store) removeLocked(id pack.ID) *copied {
	e := s.kept[id]
	if e == nil {
		return nil
	}
	c := s.order.Remove(e).(*copied)
	delete(s.kept, id)
	s.bytes -= c.ref.Bytes
	return c
}

// Has reports whether a pack is kept.
func (s *Store) Has(id pack.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[id] != nil
}

// Bytes is what the copies occupy.
func (s *Store) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Limit is what they may occupy.
func (s *Store) Limit() int64 { return s.o.Limit }

// Reader reads the ciphertext of a kept pack of a length; false if it is not kept.
// Its reads are fault.NotFound once the copy was evicted.
func (s *Store) Reader(id pack.ID, size int64) (io.ReaderAt, bool) {
	ref, ok := s.use(id)
	if !ok || ref.Bytes != size {
		return nil, false
	}
	return s.o.Bulk.Reader(ref), true
}

// use returns where a kept pack rests, and notes that it is being read.
func (s *Store) use(id pack.ID) (bulk.Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.kept[id]
	if e == nil {
		return bulk.Ref{}, false
	}
	s.order.MoveToFront(e)
	c := e.Value.(*copied)
	c.opened = time.Now().UnixMicro()
	return c.ref, true
}

// Ciphertext returns a kept pack as it rests, for a node that asks for it, and
// the record of it; fault.NotFound if it is not kept.
func (s *Store) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	row, err := s.row(id)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, ok := s.Reader(id, row.Pack.BlobBytes)
	if !ok {
		return nil, nil, errNotKept()
	}
	return row.Pack, ciphertext, nil
}

// Key returns the study key of a kept pack; fault.NotFound if it is not kept.
func (s *Store) Key(id pack.ID) (seal.Key, error) {
	row, err := s.row(id)
	if err != nil {
		return seal.Key{}, err
	}
	return s.o.Ring.Unwrap([16]byte(row.Pack.Key), row.Key)
}

func (s *Store) row(id pack.ID) (*cachedpb.Copy, error) {
	if !s.Has(id) {
		return nil, errNotKept()
	}
	value, ok, err := s.o.Copies.Get(string(id[:]))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errNotKept()
	}
	return parseCopy(value)
}

func errNotKept() error { return fault.New(fault.NotFound, "cached: no such pack is kept") }

// Discard drops a pack that could not be read.
func (s *Store) Discard(id pack.ID, cause error) {
	s.mu.Lock()
	c := s.removeLocked(id)
	s.mu.Unlock()
	if c == nil {
		return
	}
	s.stats.Dropped.Add(1)
	err := s.forget(c)
	s.o.Log.Warn("a cached pack could not be read and is dropped; it will be fetched again",
		"pack", hex.EncodeToString(id[:]), "cause", cause, "error", err)
}

// forget takes the rows, and then the bytes, of copies that are in the list no
// more.
func (s *Store) forget(gone ...*copied) error {
	if len(gone) == 0 {
		return nil
	}
	rows := map[string][]byte{}
	refs := make([]bulk.Ref, 0, len(gone))
	for _, c := range gone {
		rows[string(c.id[:])] = nil
		refs = append(refs, c.ref)
	}
	if err := s.o.Copies.Note(rows); err != nil {
		return err // the blobs stay until the next start
	}
	return s.o.Bulk.Delete(refs...)
}

// Forget drops packs that were purged.
func (s *Store) Forget(ids ...pack.ID) error {
	s.writing.Lock() // no row comes back, nor one of the open table after us
	defer s.writing.Unlock()
	return s.dropLocked(ids, func(c *copied) bool { return slices.Contains(ids, c.id) })
}

// dropLocked drops packs, and the open table if what is in it is to go: the others of
// it are fetched again.
func (s *Store) dropLocked(ids []pack.ID, goes func(pending *copied) bool) error {
	if slices.ContainsFunc(s.pending, goes) {
		s.abortLocked()
	}
	var dropped []*copied
	s.mu.Lock()
	for _, id := range ids {
		if c := s.removeLocked(id); c != nil {
			dropped = append(dropped, c)
		}
	}
	s.mu.Unlock()
	s.stats.Dropped.Add(uint64(len(dropped)))
	return s.forget(dropped...)
}

// DropIf drops what is kept of series of which gone says so, when being the time
// at which it came.
func (s *Store) DropIf(gone func(study, series string, when time.Time) bool) error {
	var ids []pack.ID
	err := s.o.Copies.Each(func(_ string, value []byte) error {
		row, err := parseCopy(value)
		if err == nil && gone(row.Pack.Study, row.Pack.Series, time.UnixMicro(row.Kept)) {
			ids = append(ids, pack.ID(row.Pack.Id))
		}
		return nil //nolint:nilerr // the next start drops a row that does not parse
	})
	if err != nil {
		return err
	}
	s.writing.Lock() // no row comes back, nor one of the open table after us
	defer s.writing.Unlock()
	if err := s.dropLocked(ids, func(c *copied) bool {
		return gone(c.row.Pack.Study, c.row.Pack.Series, time.UnixMicro(c.row.Kept))
	}); err != nil {
		return err
	}
	return s.dropTold(gone)
}
