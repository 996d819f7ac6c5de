package spread

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"pelago/cluster/pause"
	"pelago/shard"
)

const (
	// maxLoaded is the longest ciphertext that is read into memory: packs are closed
	// at 64 MiB, and only one of a single larger instance is longer.
	maxLoaded = 96 << 20
	// pieceBytes is what is read between two looks at who else wants the processors.
	pieceBytes = 1 << 20
	// yieldFor is how long that is left to others then.
	yieldFor = 30 * time.Millisecond
)

// source is a pack's ciphertext: in memory while it is encoded and its shards go out
// at the pace of their holders, and in bulk/ for those that take long. Memory is
// outside the Go heap, which would keep twice of it.
type source struct {
	from io.ReaderAt
	size int64

	mu     sync.RWMutex
	loaded []byte // nil: it is read from
	mapped bool
}

// load reads it into memory, unless it is too long.
func (s *source) load(ctx context.Context, yield func(context.Context) error) error {
	if s.size > maxLoaded {
		return nil
	}
	var b []byte
	mapped := s.size > shard.SmallBytes
	if mapped {
		var err error
		b, err = mapBytes(int(s.size))
		mapped = err == nil
	}
	if !mapped {
		b = make([]byte, s.size)
	}
	for at := int64(0); at < s.size; at += pieceBytes {
		piece := b[at:min(at+pieceBytes, s.size)]
		err := yield(ctx)
		if err == nil {
			var n int
			if n, err = s.from.ReadAt(piece, at); n == len(piece) {
				err = nil
			} else if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
		}
		if err != nil {
			if mapped {
				err = errors.Join(err, unmapBytes(b))
			}
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.mapped = b, mapped
	return nil
}

// unload gives the memory back; reading goes on from bulk/.
func (s *source) unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mapped {
		unmapBytes(s.loaded) //nolint:errcheck // what was mapped can be unmapped
	}
	s.loaded, s.mapped = nil, false
}

// ReadAt implements [io.ReaderAt].
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	if s.loaded != nil {
		defer s.mu.RUnlock()
		if off < 0 || off >= s.size {
			return 0, io.EOF
		}
		n := copy(p, s.loaded[off:])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	}
	s.mu.RUnlock()
	return s.from.ReadAt(p, off)
}

// paced reads in slices between which others come to their turn.
type paced struct {
	io.ReaderAt
	ctx   context.Context //nolint:containedctx // of one encoding
	yield func(context.Context) error

	mu   sync.Mutex
	left int64 // bytes until the next look
}

func (p *paced) ReadAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	p.left -= int64(len(b))
	look := p.left < 0
	if look {
		p.left = pieceBytes
	}
	p.mu.Unlock()
	if look {
		if err := p.yield(p.ctx); err != nil {
			return 0, err
		}
	}
	return p.ReaderAt.ReadAt(b, off)
}

// yielding returns what makes pauses while somebody sends, but not for what somebody
// waits for.
func (s *Spread) yielding(hurried bool) func(context.Context) error {
	return func(ctx context.Context) error {
		if !hurried && s.o.Packs.Busy() && !pause.For(ctx, yieldFor) || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
}
