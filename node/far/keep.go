package far

import (
	"io"
	"time"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// completeLocked asks for the rest of a pack of which most has come, so that it
// can be kept: its own manifest, say, that nobody reads.
func (c *Client) completeLocked(o *object) {
	if c.o.Keep == nil || o.verifier == nil || o.completing {
		return
	}
	if o.size > maxResident {
		c.followLocked(o)
		return
	}
	// The manifest is most of a small pack.
	instances := int((o.pack.Manifest + seal.SegmentBytes - 1) / seal.SegmentBytes)
	if o.here*4 < max(1, instances)*3 {
		return
	}
	o.completing = true
	o.gaps(0, o.units, func(from, to int) bool {
		c.startLocked(o, from, to, false)
		return true
	})
}

// offerLocked has a pack kept that is here whole.
func (c *Client) offerLocked(o *object) {
	if c.o.Keep == nil || o.verifier == nil || o.offered || o.here < o.units || c.closed {
		return
	}
	o.offered = true
	c.keeping = append(c.keeping, o)
	if len(c.keeping) == 1 {
		c.work.Go(c.keep)
	}
}

// keepAfter is how long nobody must have read for packs to be kept: hashing and
// writing them takes the cores and the disk from those who wait.
const keepAfter = time.Second

// restLocked says how long packs should still wait to be kept. Those that are half
// of the memory do not, lest they go before.
func (c *Client) restLocked() time.Duration {
	var waiting int64
	for _, o := range c.keeping {
		waiting += o.size
	}
	if c.closed || waiting > c.mem.limit/2 {
		return 0
	}
	return keepAfter - time.Since(c.read)
}

// keep offers packs, one after the other, until there is none left.
func (c *Client) keep() {
	for {
		c.mu.Lock()
		if len(c.keeping) == 0 {
			c.mu.Unlock()
			return
		}
		if rest := c.restLocked(); rest > 0 {
			c.mu.Unlock()
			select {
			case <-time.After(rest):
			case <-c.ctx.Done():
			}
			continue
		}
		o := c.keeping[0]
		whole := o.here == o.units && !c.closed && c.takeLocked(o, 0, o.units, true)
		c.mu.Unlock()
		kept := false
		if whole {
			kept = c.keepOne(o)
		}
		c.mu.Lock()
		c.keeping = c.keeping[1:]
		if whole {
			c.letGoLocked(o, 0, len(o.blocks))
		} else {
			o.offered = false // some of it went meanwhile
		}
		if kept { // it is elsewhere now: let its memory go first
			for _, b := range o.blocks {
				c.mem.recent.MoveToBack(b.elem)
			}
		}
		c.mu.Unlock()
	}
}

// keepOne checks a pinned pack's root and has it kept.
func (c *Client) keepOne(o *object) bool {
	tree, err := seal.ReadTree(pinned{o}, o.size)
	if err == nil && tree.Root() != o.pack.Root {
		err = fault.New(fault.Corrupt, "far: the pack has another root than its node says")
	}
	if err == nil {
		err = c.o.Keep.Keep(c.ctx, o.pack, pinned{o})
	}
	if err != nil && c.ctx.Err() == nil && !fault.Is(err, fault.Unavailable) { // who keeps tells of that
		c.o.Log.Warn("a pack that was read from another node is not kept", "error", err, "kind", fault.KindOf(err).String())
	}
	return err == nil
}

// rightHash reports whether a pinned staged instance is the one that was meant.
func rightHash(o *object) bool {
	h := blake3.New()
	if _, err := io.Copy(h, io.NewSectionReader(pinned{o}, 0, o.size)); err != nil {
		return false
	}
	return [32]byte(h.Sum(nil)) == o.key.hash
}
