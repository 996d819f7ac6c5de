package bulk

import (
	"context"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"pelago/cluster/fault"
)

// Reader reads a blob by ranges; fault.Corrupt for rotten bytes (Lost is told),
// fault.NotFound for a blob that was deleted or lost. Safe for concurrent use.
func (s *Store) Reader(r Ref) io.ReaderAt { return &reader{store: s, ref: r} }

type reader struct {
	store *Store
	ref   Ref
}

// ReadAt implements io.ReaderAt.
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	s := r.store
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	size, ok := s.size(r.ref)
	if !ok {
		return 0, fault.New(fault.NotFound, "bulk: blob %v is not here", r.ref)
	}
	if size != r.ref.Bytes || off < 0 {
		return 0, fault.New(fault.Invalid, "bulk: blob %v has %d bytes, asked as %d at %d", r.ref, size, r.ref.Bytes, off)
	}
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > size-off
	if short {
		p = p[:size-off]
	}
	done := 0
	for done < len(p) {
		n, err := s.readPiece(p[done:], r.ref, off+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	if short {
		return done, io.EOF
	}
	return done, nil
}

// size is the blob's length, if it is alive.
func (s *Store) size(r Ref) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[tableKey{r.Space, r.Table}]
	if t == nil || !t.alive(r.Blob) {
		return 0, false
	}
	return t.sizes[r.Blob], true
}

// readPiece copies from the piece that holds off. Rot is believed only when a
// second read, past the caches, meets it too.
func (s *Store) readPiece(p []byte, r Ref, off int64) (int, error) {
	n, err := s.piece(p, r, off)
	if err == nil {
		return n, nil
	}
	if done := s.swapping(tableKey{r.Space, r.Table}); done != nil {
		<-done
	}
	if n, again := s.piece(p, r, off); again == nil {
		s.o.Log.Warn("a read of bulk storage failed once", "blob", r.String(), "error", err)
		return n, nil
	}
	if !errors.Is(err, errRotten) {
		return 0, fault.New(fault.Unavailable, "bulk: read blob %v: %w", r, err)
	}
	if _, ok := s.size(r); !ok { // it went while we read
		return 0, fault.New(fault.NotFound, "bulk: blob %v is not here", r)
	}
	err = fault.New(fault.Corrupt, "bulk: blob %v: %w", r, err)
	return 0, errors.Join(err, s.lose(r, err))
}

// errRotten marks errors of bytes, as opposed to errors of reading.
var errRotten = errors.New("rotten")

func (s *Store) piece(p []byte, r Ref, off int64) (int, error) {
	number := off / pieceBytes
	var key [keyBytes]byte
	value, closer, err := s.db.Get(tableKey{r.Space, r.Table}.key(key[:0], r.Blob, uint32(number)))
	if err != nil {
		if rotten(err) {
			return 0, errors.Join(errRotten, err)
		}
		return 0, err
	}
	defer closer.Close()
	if int64(len(value)) != min(pieceBytes, r.Bytes-number*pieceBytes) {
		return 0, errors.Join(errRotten, errors.New("a piece has a wrong length"))
	}
	return copy(p, value[off-number*pieceBytes:]), nil
}

// rotten reports whether bytes are lost. A key that is not found was lost too:
// the ledger says that it is there.
func rotten(err error) bool {
	return pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrNotFound)
}

// lose reports a rotten blob, or its whole table if that cannot be read at all,
// and takes it out of service.
func (s *Store) lose(r Ref, cause error) error {
	key := tableKey{r.Space, r.Table}
	s.mu.Lock()
	if s.losing[key] {
		s.mu.Unlock()
		return nil // another reader is reporting; the next read sees the outcome
	}
	s.losing[key] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.losing, key)
		s.mu.Unlock()
	}()
	refs := []Ref{r}
	if _, err := s.index(key); err != nil && rotten(err) {
		refs = s.refs(key)
	} else if _, ok := s.size(r); !ok {
		return nil // reported in the meantime
	}
	return s.loseAll(refs, cause)
}

func (s *Store) loseAll(refs []Ref, cause error) error {
	if len(refs) == 0 {
		return nil
	}
	s.o.Lost(refs, cause)
	if err := s.usable(); err != nil {
		return err
	}
	return s.kill(context.Background(), refs)
}

// index reads a table's list of blobs from the table itself.
func (s *Store) index(key tableKey) ([]int64, error) {
	value, closer, err := s.db.Get(key.key(nil, indexBlob, 0))
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	sizes, ok := parseIndex(value)
	if !ok {
		return nil, pebble.ErrNotFound
	}
	return sizes, nil
}
