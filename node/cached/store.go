package cached

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/cached/cachedpb"
	"pelago/shard/bulk"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Pack is another node's pack, as its manifest tells of it.
type Pack struct {
	ID            pack.ID
	Study, Series string
	KeyID         [16]byte // of the study key at the node that stores it
	Key           seal.Key // the study key
	Bytes         int64    // of the ciphertext
	Root          [32]byte // of the hash tree over it
}

// Fetch fills b with a pack's ciphertext from off on, which lies within it.
type Fetch func(ctx context.Context, b []byte, off int64) error

// Rows is where the copies are named. *archive.Rows is one.
type Rows interface {
	Note(rows map[string][]byte) error
	Get(key string) (value []byte, ok bool, err error)
	Each(visit func(key string, value []byte) error) error
}

// Ring wraps study keys of other nodes. *keys.Ring is one.
type Ring interface {
	Wrap(id [16]byte, key seal.Key) ([]byte, error)
	Unwrap(id [16]byte, wrapped []byte) (seal.Key, error)
}

// Options are what a store is made of.
type Options struct {
	FS   vfs.FS
	Dir  string // the data directory: packs are gathered in files there
	Bulk *bulk.Store
	Rows Rows
	Ring Ring

	Limit   int64               // bytes of all copies
	Reserve func(n int64) error // before n bytes are written; fault.Full
	Pressed func() bool         // whether copies should give way to what the disk is for; nil: never
	Log     *slog.Logger        // nil is silent
}

// Store holds the copies.
type Store struct {
	o Options

	// room is held by whoever makes room, over the I/O of it, so that two do not
	// make it for the same bytes.
	room sync.Mutex

	mu             sync.Mutex // guards what follows
	kept           map[pack.ID]*list.Element
	order          list.List // of *copied, the last read in front
	keptBytes      int64
	gathering      map[pack.ID]*gathering
	gatheringBytes int64
	names          uint64 // of files given out
	whole          chan struct{}
}

// copied is a pack that is kept.
type copied struct {
	id            pack.ID
	ref           bulk.Ref
	opened, noted int64 // Unix microseconds; noted is what the row says
}

// rowVersion is the version of the rows that this code writes and the highest
// that it reads.
const rowVersion = 1

// Open finds what is kept. What cannot be read is dropped, and no error: it can
// be fetched again.
func Open(o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Pressed == nil {
		o.Pressed = func() bool { return false }
	}
	s := &Store{o: o, kept: map[pack.ID]*list.Element{}, gathering: map[pack.ID]*gathering{}, whole: make(chan struct{}, 1)}
	if err := s.removeFiles(); err != nil {
		return nil, fmt.Errorf("cached: %w", err)
	}
	if err := s.reconcile(); err != nil {
		return nil, fmt.Errorf("cached: %w", err)
	}
	return s, nil
}

// filePrefix begins the names of files in which packs are gathered.
const filePrefix = ".gather-"

// removeFiles removes what the end of a process left of packs being gathered.
func (s *Store) removeFiles() error {
	names, err := s.o.FS.List(s.o.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, filePrefix) {
			err = errors.Join(err, s.o.FS.Remove(s.o.FS.PathJoin(s.o.Dir, name)))
		}
	}
	return err
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
	err := s.o.Rows.Each(func(key string, value []byte) error {
		row, err := parseRow(value)
		if err != nil || len(key) != len(pack.ID{}) || !blobs[refOf(row)] {
			drop[key] = nil
			return nil //nolint:nilerr // the copy goes
		}
		delete(blobs, refOf(row))
		all = append(all, &copied{id: pack.ID([]byte(key)), ref: refOf(row), opened: row.Opened, noted: row.Opened})
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
		if err := s.o.Rows.Note(drop); err != nil {
			return err
		}
	}
	left := make([]bulk.Ref, 0, len(blobs))
	for ref := range blobs {
		left = append(left, ref)
	}
	return s.o.Bulk.Delete(left...)
}

func parseRow(value []byte) (*cachedpb.Pack, error) {
	var row cachedpb.Pack
	if err := proto.Unmarshal(value, &row); err != nil {
		return nil, fault.New(fault.Corrupt, "cached: a row does not parse: %w", err)
	}
	if row.Version != rowVersion || len(row.KeyId) != 16 || len(row.Root) != 32 {
		return nil, fault.New(fault.Unsupported, "cached: a row of version %d", row.Version)
	}
	return &row, nil
}

func refOf(row *cachedpb.Pack) bulk.Ref {
	return bulk.Ref{Space: bulk.Cached, Table: row.Table, Blob: row.Blob, Bytes: row.Bytes}
}

func (s *Store) addLocked(c *copied) {
	s.kept[c.id] = s.order.PushFront(c)
	s.keptBytes += c.ref.Bytes
}

// removeLocked takes a copy out of the list; nil if it is not there.
func (s *Store) removeLocked(id pack.ID) *copied {
	e := s.kept[id]
	if e == nil {
		return nil
	}
	c := s.order.Remove(e).(*copied)
	delete(s.kept, id)
	s.keptBytes -= c.ref.Bytes
	return c
}

// Has reports whether a pack is kept, whole.
func (s *Store) Has(id pack.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[id] != nil
}

// Bytes is what is kept, and what is being gathered.
func (s *Store) Bytes() (kept, gathering int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keptBytes, s.gatheringBytes
}

// use returns where a kept pack rests, and notes that it was read.
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

// Ciphertext returns a kept pack as it rests, and its length, to be passed on to
// a node that asks for it.
func (s *Store) Ciphertext(id pack.ID) (ciphertext io.ReaderAt, size int64, ok bool) {
	ref, ok := s.use(id)
	if !ok {
		return nil, 0, false
	}
	return s.o.Bulk.Reader(ref), ref.Bytes, true
}

// Reader reads a pack's ciphertext: from the copy if it is kept, else through
// fetch, whose bytes are gathered. Safe for concurrent use; readers of one range
// share its fetch. It may be kept for as long as one likes.
func (s *Store) Reader(p Pack, fetch Fetch) io.ReaderAt { return &reader{s, p, fetch} }

type reader struct {
	store *Store
	pack  Pack
	fetch Fetch
}

// ReadAt implements io.ReaderAt.
func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "cached: read at %d", off)
	}
	if off >= r.pack.Bytes {
		if len(b) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(b)) > r.pack.Bytes-off
	if short {
		b = b[:r.pack.Bytes-off]
	}
	if err := r.read(b, off); err != nil {
		return 0, err
	}
	if short {
		return len(b), io.EOF
	}
	return len(b), nil
}

func (r *reader) read(b []byte, off int64) error {
	s := r.store
	if ref, ok := s.use(r.pack.ID); ok {
		if ref.Bytes == r.pack.Bytes {
			if _, err := s.o.Bulk.Reader(ref).ReadAt(b, off); err == nil {
				return nil
			}
		}
		// Rotten, or evicted since we looked: as if it had never been kept.
		s.Discard(r.pack.ID)
	}
	g := s.gather(r.pack)
	if g == nil {
		return fetchAll(b, off, r.fetch)
	}
	defer s.leave(g)
	return g.read(s, b, off, r.fetch)
}

// fetchTime bounds one fetch: a segment, or a few. A reader who is gone does not
// end it, for others may wait for the same bytes.
const fetchTime = 30 * time.Second

// fetchAll fetches a range, a piece at a time.
func fetchAll(b []byte, off int64, fetch Fetch) error {
	for len(b) > 0 {
		n := min(len(b), maxRun*seal.LeafBytes)
		if err := fetchOne(b[:n], off, fetch); err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func fetchOne(b []byte, off int64, fetch Fetch) error {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	return fetch(ctx, b, off)
}

// Key returns the study key of a kept pack; fault.NotFound if it is not kept.
func (s *Store) Key(id pack.ID) (seal.Key, error) {
	value, ok, err := s.o.Rows.Get(string(id[:]))
	if err != nil {
		return seal.Key{}, err
	}
	if !ok {
		return seal.Key{}, fault.New(fault.NotFound, "cached: no such pack")
	}
	row, err := parseRow(value)
	if err != nil {
		return seal.Key{}, err
	}
	return s.o.Ring.Unwrap([16]byte(row.KeyId), row.Key)
}

// Discard drops a pack, kept or being gathered: it was found rotten.
func (s *Store) Discard(id pack.ID) {
	s.mu.Lock()
	c := s.removeLocked(id)
	g := s.gathering[id]
	if g != nil {
		s.dropLocked(g)
	}
	s.mu.Unlock()
	if g != nil {
		s.leave(g)
	}
	if c != nil {
		s.log("a cached pack is dropped; it could not be read", c.id, s.forget(c))
	}
}

// forget takes the rows and then the bytes of copies that are in the list no
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
	if err := s.o.Rows.Note(rows); err != nil {
		return err // the blobs stay until the next start
	}
	return s.o.Bulk.Delete(refs...)
}

// DropIf drops the copies of series of which gone says so, kept being when one
// was copied: what a tombstone covers.
func (s *Store) DropIf(gone func(study, series string, kept time.Time) bool) error {
	var ids []pack.ID
	err := s.o.Rows.Each(func(key string, value []byte) error {
		row, err := parseRow(value)
		if err == nil && len(key) == len(pack.ID{}) && gone(row.Study, row.Series, time.UnixMicro(row.Kept)) {
			ids = append(ids, pack.ID([]byte(key)))
		}
		return nil //nolint:nilerr // the next start drops a row that does not parse
	})
	if err != nil {
		return err
	}
	var dropped []*copied
	var left []*gathering
	s.mu.Lock()
	for _, id := range ids {
		if c := s.removeLocked(id); c != nil {
			dropped = append(dropped, c)
		}
	}
	for _, g := range s.gathering {
		if gone(g.pack.Study, g.pack.Series, g.began) {
			s.dropLocked(g)
			left = append(left, g)
		}
	}
	s.mu.Unlock()
	for _, g := range left {
		s.leave(g)
	}
	return s.forget(dropped...)
}

// makeRoom evicts so that n more bytes stay below the limit, and reserves them;
// fault.Full if they cannot be had.
func (s *Store) makeRoom(n int64) error {
	if n > s.o.Limit/2 {
		return fault.New(fault.Full, "cached: a pack of %d bytes, of %d for all", n, s.o.Limit)
	}
	s.room.Lock()
	defer s.room.Unlock()
	if err := s.evict(n); err != nil {
		return err
	}
	return s.o.Reserve(n)
}

// gatheringShare is the part of the limit that packs being gathered may have:
// they are read in part, and perhaps never whole.
const gatheringShare = 4

// evict drops what was read longest ago until n more bytes find room. room is
// held.
func (s *Store) evict(n int64) error {
	var gone []*copied
	var left []*gathering
	s.mu.Lock()
	for s.gatheringBytes > 0 && s.gatheringBytes+n > s.o.Limit/gatheringShare {
		g := s.oldestLocked()
		if g == nil {
			break // all are being read
		}
		s.dropLocked(g)
		left = append(left, g)
	}
	for s.keptBytes+s.gatheringBytes+n > s.o.Limit {
		last := s.order.Back()
		if last == nil {
			break
		}
		gone = append(gone, s.removeLocked(last.Value.(*copied).id))
	}
	full := s.keptBytes+s.gatheringBytes+n > s.o.Limit
	s.mu.Unlock()
	for _, g := range left {
		s.leave(g)
	}
	if err := s.forget(gone...); err != nil {
		return err
	}
	if full {
		return fault.New(fault.Full, "cached: what is being read leaves no room for %d bytes", n)
	}
	return nil
}

// same reports whether two manifests tell of the same pack.
func (p Pack) same(other Pack) bool {
	return p.ID == other.ID && p.Bytes == other.Bytes && bytes.Equal(p.Root[:], other.Root[:])
}

func (s *Store) log(what string, id pack.ID, err error) {
	s.o.Log.Warn(what, "pack", hex.EncodeToString(id[:]), "error", err)
}
