package far

import (
	"context"
	"io"
	"slices"
	"time"

	"pelago/cluster/fault"
)

// A pack of more than maxResident, of one long multi-frame instance mostly, is
// never in memory whole. It is kept while it is read: a follower goes through it
// from its beginning, waits for what readers ask for, and hands it to the Keeper as
// it comes, so that each byte comes about once: again only what readers were too far
// ahead of it with, or read out of order. What readers leave out at the end it asks
// for itself, if they have read most of it.

const (
	// followAfter is how much of a pack has come when a follower begins, at most:
	// who reads a few frames of a long instance does not want all of it. It is still
	// in memory then.
	followAfter = maxResident / 2
	// followFor is how long a follower waits for readers to go on.
	followFor = 30 * time.Second
	// followAtOnce is what it reads at once where nobody is before it.
	followAtOnce = maxFetch
)

// arrivals are the units of a large pack that ever came.
type arrivals struct {
	units map[int]uint64 // 64 bits each; it grows with what comes: the pack's length is only claimed
	count int
	grown chan struct{} // closed, and made anew, when more come; nil: nobody waits
}

// add notes units [from, to).
func (a *arrivals) add(from, to int) {
	for u := from; u < to; u++ {
		if bit := uint64(1) << (u % 64); a.units[u/64]&bit == 0 {
			a.units[u/64] |= bit
			a.count++
		}
	}
	if a.grown != nil {
		close(a.grown)
		a.grown = nil
	}
}

func (a *arrivals) has(unit int) bool { return a.units[unit/64]&(1<<(unit%64)) != 0 }

// followLocked has a large pack kept if it looks as if it will be read whole. One
// is followed at a time: others are, when they are read again.
func (c *Client) followLocked(o *object) {
	if c.o.Keep == nil || o.came == nil || o.offered || c.following || c.closed || int64(o.came.count)*o.unit < min(followAfter, o.size/4) {
		return
	}
	o.offered, o.followed, c.following = true, true, true
	f := &follower{
		series: c.Read(&Manifest{Study: o.pack.Study, Series: o.pack.Series, Packs: []Pack{o.pack}}, slices.Clone(o.nodes)...), o: o,
	}
	c.work.Go(func() {
		err := c.o.Keep.Keep(c.ctx, o.pack, f)
		c.mu.Lock()
		c.following, o.followed = false, false
		if err != nil && !fault.Is(err, fault.Full) { // once more when it has come once more
			o.offered, o.came.count = false, 0
			clear(o.came.units)
		}
		c.forgetLocked(o)
		c.mu.Unlock()
		if err != nil && c.ctx.Err() == nil && !fault.Is(err, fault.Canceled) && !fault.Is(err, fault.Unavailable) {
			c.o.Log.Warn("a long pack that was read from another node is not kept", "error", err, "kind", fault.KindOf(err).String())
		}
	})
}

// follower reads a pack behind its readers. One goroutine reads it, in order.
type follower struct {
	series *Series
	o      *object
	alone  bool // nobody is before it
	buffer []byte
	at     int64 // of buffer
}

// ReadAt implements io.ReaderAt. fault.Canceled if its readers have left most of
// it unread.
func (f *follower) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) && off < f.o.size {
		if off < f.at || off >= f.at+int64(len(f.buffer)) {
			if err := f.fill(off); err != nil {
				return done, err
			}
		}
		n := copy(p[done:], f.buffer[off-f.at:])
		done, off = done+n, off+int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// fill reads on from a place: what has come, or, alone, as much as is asked for at
// once.
func (f *follower) fill(off int64) error {
	first := int(off / f.o.unit)
	end, err := f.await(first)
	if err != nil {
		return err
	}
	from := int64(first) * f.o.unit
	f.buffer = slices.Grow(f.buffer[:0], followAtOnce)[:min(int64(end)*f.o.unit, f.o.size)-from]
	f.at = from
	r := f.series.Pack(0)
	r.passing = true
	if _, err := r.ReadAt(f.series.client.ctx, f.buffer, from); err != nil {
		f.buffer = f.buffer[:0]
		return err
	}
	return nil
}

// await waits until a unit has come for a reader and returns where what came with
// it ends.
func (f *follower) await(unit int) (end int, err error) {
	c := f.series.client
	most := min(f.o.units, unit+followAtOnce/int(f.o.unit))
	if f.alone {
		return most, nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, followFor)
	defer cancel()
	for {
		c.mu.Lock()
		for end = unit; end < most && f.o.came.has(end); end++ {
		}
		read := f.o.came.count*4 >= f.o.units*3
		if f.o.came.grown == nil {
			f.o.came.grown = make(chan struct{})
		}
		grown := f.o.came.grown
		c.mu.Unlock()
		if end > unit {
			return end, nil
		}
		if read && unit >= f.o.units*3/4 { // the pack's own manifest, say, which nobody reads
			f.alone = true
			return most, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			if c.ctx.Err() != nil {
				return 0, errClosed
			}
			if !read {
				return 0, fault.New(fault.Canceled, "far: most of a long pack is not read")
			}
			f.alone = true
			return most, nil
		}
	}
}
