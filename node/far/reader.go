package far

import (
	"context"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// Reader reads a pack's ciphertext, or a staged instance, from other nodes.
type Reader struct {
	series *Series
	index  int // of the object in the series
	size   int64
	unit   int64

	passing bool // what it reads is for other readers: it stays for them
}

// Size is the number of bytes.
func (r *Reader) Size() int64 { return r.size }

// ReadAt reads as io.ReaderAt does. fault.NotFound if no node holds it any more,
// fault.Unavailable if none answers, fault.Corrupt if all send other bytes.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "far: read at %d", off)
	}
	if off >= r.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > r.size-off
	if short {
		p = p[:r.size-off]
	}
	done := 0
	for done < len(p) {
		n, err := r.some(ctx, p[done:], off+int64(done))
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

// some reads what one block has of a range, having waited for it.
func (r *Reader) some(ctx context.Context, p []byte, off int64) (int, error) {
	c := r.series.client
	unit := int(off / r.unit)
	to := int((off + int64(len(p)) + r.unit - 1) / r.unit)
	now := time.Now()
	for tried := false; ; {
		c.mu.Lock()
		c.read = now
		o, err := r.series.objectLocked(r.index)
		if err != nil {
			c.mu.Unlock()
			return 0, err
		}
		if b := o.blocks[unit/unitsAtOnce]; b.has(unit) {
			c.pinLocked(b) // before anything is read ahead into its place
			r.series.readLocked(r.index, unit)
			return c.copyUnlock(b, p, off, !r.passing), nil
		}
		f := o.coming(unit)
		own := f == nil
		if own {
			if f = r.series.demandLocked(r.index, o, unit, to); f == nil {
				room := c.mem.room
				c.mu.Unlock()
				select {
				case <-room:
					continue
				case <-ctx.Done():
					return 0, context.Cause(ctx)
				}
			}
		}
		f.demand = true
		r.series.readLocked(r.index, unit)
		c.mu.Unlock()
		if err := c.await(ctx, f, unit); err != nil {
			if own || tried || ctx.Err() != nil {
				return 0, err
			}
			tried = true // it failed for another reader: once more for this one
		}
	}
}

// await waits until a fetch has brought a unit, or failed.
func (c *Client) await(ctx context.Context, f *fetch, unit int) error {
	for {
		c.mu.Lock()
		changed, here, done, err := f.changed, f.next > unit, f.done, f.err
		c.mu.Unlock()
		switch {
		case here:
			return nil
		case done && err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// copyUnlock copies what a pinned block has from off on, without the lock, unpins
// it, and returns how much that was.
func (c *Client) copyUnlock(b *block, p []byte, off int64, seen bool) int {
	full := unitsAtOnce * b.of.unit
	from := off - int64(b.index)*full
	to := from/b.of.unit*b.of.unit + b.of.unit
	for to < int64(len(b.mem)) && b.has(int(to/b.of.unit)) {
		to += b.of.unit
	}
	to = min(to, int64(len(b.mem)), from+int64(len(p)))
	for u := from / b.of.unit; seen && u*b.of.unit < to; u++ {
		b.seen |= 1 << u
	}
	c.mu.Unlock()
	n := copy(p, b.mem[from:to])
	c.mu.Lock()
	c.unpinLocked(b)
	c.mu.Unlock()
	return n
}

// With returns the reader as an io.ReaderAt bound to a context. Reads of a
// context that never ends still end: a peer that sends nothing is given up.
func (r *Reader) With(ctx context.Context) io.ReaderAt { return bound{r, ctx} }

// bound is a reader for one context, as readers of the standard library want it.
type bound struct {
	r   *Reader
	ctx context.Context //nolint:containedctx // that is its purpose
}

// ReadAt implements io.ReaderAt.
func (b bound) ReadAt(p []byte, off int64) (int, error) { return b.r.ReadAt(b.ctx, p, off) }

// Plaintext returns the plaintext of a pack (seal.Reader), bound to a context. Of
// a staged instance it is the instance.
func (r *Reader) Plaintext(ctx context.Context) io.ReaderAt {
	if r.index >= len(r.series.manifest.Packs) {
		return r.With(ctx)
	}
	p := &r.series.manifest.Packs[r.index]
	return seal.Reader(r.With(ctx), p.Bytes, seal.PackKey(p.Key, p.ID))
}
