package reach

import (
	"context"
	"io"
	"sync"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/shard/seal"
)

// Bytes reads the packs and the staged instances of one manifest. *far.Series,
// through [Far], is one.
type Bytes interface {
	// Whole says that all of it will be read in order, Begin that an instance was
	// read, by its index, and what follows is to be read ahead.
	Whole()
	Begin(instance int)
	// Plaintext reads the plaintext of a pack, by its index. Its reads end by
	// themselves when no node sends anything.
	Plaintext(pack int) io.ReaderAt
	// Staged reads an instance that was not packed when the node told, by its index.
	Staged(ctx context.Context, instance int) io.ReaderAt
}

// Far makes a [Client] of a *far.Client.
func Far(c *far.Client) Client { return farClient{c} }

type farClient struct{ *far.Client }

// Read implements [Client].
func (c farClient) Read(m *far.Manifest, nodes ...string) Bytes {
	return farBytes{c.Client.Read(m, nodes...)}
}

type farBytes struct{ *far.Series }

// Plaintext implements [Bytes]. It serves many readers, so that it is bound to
// none of them.
func (b farBytes) Plaintext(pack int) io.ReaderAt {
	return b.Pack(pack).Plaintext(context.Background())
}

// Staged implements [Bytes].
func (b farBytes) Staged(ctx context.Context, instance int) io.ReaderAt {
	return b.Series.Staged(instance).With(ctx)
}

// isEnd reports whether a read ended where the bytes do, as io.ReaderAt has it: alone.
// In the tree of an error it is why bytes are lost: a table that is cut short.
func isEnd(err error) bool { return err == io.EOF } //nolint:errorlint // see above

// plaintext reads a pack: the copy here, else other nodes.
type plaintext struct {
	copies *cached.Store
	pack   far.Pack
	here   io.ReaderAt // opens the copy
	away   io.ReaderAt
}

func newPlaintext(copies *cached.Store, p far.Pack, away io.ReaderAt) *plaintext {
	copied := copyOf{copies, p}
	return &plaintext{copies, p, seal.Reader(copied, p.Bytes, seal.PackKey(p.Key, p.ID)), away}
}

// ReadAt implements io.ReaderAt.
func (t *plaintext) ReadAt(p []byte, off int64) (int, error) {
	if t.copies.Has(t.pack.ID) {
		n, err := t.here.ReadAt(p, off)
		if err == nil || isEnd(err) {
			t.copies.Counters().Hits.Add(1)
			return n, err
		}
		if !fault.Is(err, fault.NotFound) { // not just evicted
			t.copies.Discard(t.pack.ID, err)
		}
	}
	t.copies.Counters().Misses.Add(1)
	return t.away.ReadAt(p, off)
}

// copyOf is the ciphertext of a copy, wherever in bulk/ it is at the moment of a
// read: it may be evicted and kept again.
type copyOf struct {
	copies *cached.Store
	pack   far.Pack
}

func (c copyOf) ReadAt(p []byte, off int64) (int, error) {
	ciphertext, ok := c.copies.Reader(c.pack.ID, c.pack.Bytes)
	if !ok {
		return 0, fault.New(fault.NotFound, "reach: the copy of a pack is gone")
	}
	return ciphertext.ReadAt(p, off)
}

// verified hashes what is read in order from the beginning. The read that reaches
// the end fails, fault.Corrupt, if it is not what was stored. Reads in any other
// order pass: every segment of a pack was authenticated.
type verified struct {
	io.ReaderAt
	size int64
	want [32]byte

	mu   sync.Mutex // guards what follows
	hash *blake3.Hasher
	next int64 // what is hashed; -1: some was passed over
}

func verify(stored io.ReaderAt, size int64, want [32]byte) io.ReaderAt {
	return wrapped(&verified{ReaderAt: stored, size: size, want: want}, stored)
}

// ReadAt implements io.ReaderAt.
func (v *verified) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.ReaderAt.ReadAt(p, off)
	if n > 0 && !v.add(p[:n], off) {
		return 0, errNotStored()
	}
	return n, err
}

func errNotStored() error {
	return fault.New(fault.Corrupt, "reach: an instance that came is not the one that was stored")
}

// add reports whether bytes may be those that were stored.
func (v *verified) add(b []byte, off int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case off == 0:
		if v.hash == nil {
			v.hash = blake3.New()
		}
		v.hash.Reset()
		v.next = 0
	case off != v.next:
		v.next = -1
		return true
	}
	_, _ = v.hash.Write(b) // never fails (hash.Hash)
	v.next += int64(len(b))
	return v.next != v.size || [32]byte(v.hash.Sum(nil)) == v.want
}

// alternatives reads from the first of many sources of the same bytes that gives
// them. One that failed is not asked again.
type alternatives struct {
	next func(failed error) (io.ReaderAt, error) // the next one, or why there is none

	// mu guards now. It is held over next, I/O and all: none can read on before.
	mu  sync.Mutex
	now io.ReaderAt
}

func anyOf(now io.ReaderAt, next func(failed error) (io.ReaderAt, error)) io.ReaderAt {
	return wrapped(&alternatives{now: now, next: next}, now)
}

// ReadAt implements io.ReaderAt.
func (a *alternatives) ReadAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	from := a.now
	a.mu.Unlock()
	for {
		n, err := from.ReadAt(p, off)
		if err == nil || isEnd(err) || !elsewhere(err) {
			return n, err
		}
		if from, err = a.replace(from, err); err != nil {
			return 0, err
		}
	}
}

// elsewhere reports whether the same bytes may be had from another node.
func elsewhere(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.NotFound, fault.Corrupt, fault.Denied, fault.Other:
		return true
	}
	return false
}

// replace puts the next source in the place of one that failed, unless another
// reader has.
func (a *alternatives) replace(failed io.ReaderAt, cause error) (io.ReaderAt, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now != failed {
		return a.now, nil
	}
	now, err := a.next(cause)
	if err != nil {
		return nil, err
	}
	a.now = now
	return now, nil
}
