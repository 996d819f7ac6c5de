package far

import (
	"container/list"
	"math/bits"
	"time"

	"pelago/cluster/fault"
)

// A block is the memory of 16 units of an object: about 256 KiB, mapped outside
// the Go heap unless it is the short one at an object's end. Blocks that nobody
// uses go, the least recently used first, when room is needed; what was read
// ahead and not read yet goes last, and not for what else is read ahead.

const (
	blockBytes = unitsAtOnce * segmentBytes
	// maxResident is what one object may have in memory: a whole pack, which is
	// closed beyond 64 MiB after its last instance. Of a larger one, what was read
	// longest ago goes.
	maxResident = 80 << 20
	// forDemand is the part of the memory that read-ahead leaves to who waits.
	forDemand = 4
	// minMemory is needed for two fetches under way.
	minMemory = 4 * maxFetch
)

type block struct {
	of     *object
	index  int
	mem    []byte
	mapped bool
	have   uint16              // units that are here
	taken  uint16              // units that are here or coming
	by     [unitsAtOnce]*fetch // of units that are coming
	users  int                 // who reads or writes it now; it stays
	seen   uint16              // units that were read
	came   time.Time           // the last of it
	elem   *list.Element       // in Client.recent
}

func (b *block) has(unit int) bool { return b != nil && b.have&(1<<(unit%unitsAtOnce)) != 0 }

// blocks is the memory of a client. Client.mu guards it.
type blocks struct {
	limit  int64
	used   int64 // of blocks, in use or not
	recent list.List
	free   [][]byte      // mapped, of blocks that went
	room   chan struct{} // closed, and made anew, when a block is let go of
}

func (c *Client) pinLocked(b *block) {
	b.users++
	c.mem.recent.MoveToFront(b.elem)
}

func (c *Client) unpinLocked(b *block) {
	if b.users--; b.users > 0 {
		return
	}
	if c.closed {
		c.evictLocked(b)
		return
	}
	close(c.mem.room)
	c.mem.room = make(chan struct{})
}

// takeLocked pins the blocks of units [from, to) of an object, making those that
// are missing; false if there is no room for them now, or, unless somebody waits
// for them, only that of others that will be read.
func (c *Client) takeLocked(o *object, from, to int, demand bool) bool {
	first, last := from/unitsAtOnce, (to-1)/unitsAtOnce
	for i := first; i <= last; i++ {
		if o.blocks[i] == nil && !c.addLocked(o, i, demand) {
			c.letGoLocked(o, first, i)
			return false
		}
		c.pinLocked(o.blocks[i])
	}
	return true
}

// letGoLocked unpins blocks [first, end) of an object.
func (c *Client) letGoLocked(o *object, first, end int) {
	for i := first; i < end; i++ {
		c.unpinLocked(o.blocks[i])
	}
}

func (c *Client) addLocked(o *object, index int, demand bool) bool {
	full := unitsAtOnce * o.unit
	size := min(full, o.size-int64(index)*full)
	for o.resident+size > maxResident {
		if !c.evictOneLocked(o, demand) {
			return false
		}
	}
	limit := c.mem.limit
	if !demand { // else the read-ahead of some readers leaves others nothing but each other's
		limit -= limit / forDemand
	}
	for c.mem.used+size > limit {
		if !c.evictOneLocked(nil, demand) {
			return false
		}
	}
	b := &block{of: o, index: index, came: time.Now()}
	if size == full {
		b.mem, b.mapped = c.mem.memory(int(size))
	} else {
		b.mem = make([]byte, size)
	}
	b.elem = c.mem.recent.PushFront(b)
	o.blocks[index] = b
	o.resident += size
	c.mem.used += size
	return true
}

// memory returns memory for a whole block, of either kind of object.
func (m *blocks) memory(size int) (mem []byte, mapped bool) {
	if n := len(m.free); n > 0 {
		mem, m.free = m.free[n-1], m.free[:n-1]
		return mem[:size], true
	}
	if mem, err := mapBytes(blockBytes); err == nil {
		return mem[:size], true
	}
	return make([]byte, size), false
}

// keepUnread is how long read-ahead has a right to its memory: its reader has
// gone elsewhere.
const keepUnread = 20 * time.Second

// evictOneLocked drops the least recently used block, of an object if one is
// given, that nobody uses: one that was read if there is one, else one that was
// not read for long, else, if somebody waits, any.
func (c *Client) evictOneLocked(of *object, demand bool) bool {
	var last *block
	now := time.Now()
	for e := c.mem.recent.Back(); e != nil; e = e.Prev() {
		b := e.Value.(*block)
		if b.users > 0 || of != nil && b.of != of {
			continue
		}
		if b.have&^b.seen == 0 || now.Sub(b.came) > keepUnread {
			c.evictLocked(b)
			return true
		}
		if last == nil {
			last = b
		}
	}
	if last == nil || !demand {
		return false
	}
	c.evictLocked(last)
	return true
}

// maxFree bounds the memory that waits for the next block instead of going back
// to the system: one object's read-ahead.
const maxFree = 16 << 20 / blockBytes

func (c *Client) evictLocked(b *block) {
	c.mem.recent.Remove(b.elem)
	o := b.of
	delete(o.blocks, b.index)
	o.here -= bits.OnesCount16(b.have)
	o.resident -= int64(len(b.mem))
	c.mem.used -= int64(len(b.mem))
	if b.mapped {
		if mem := b.mem[:blockBytes]; len(c.mem.free) < maxFree && !c.closed {
			c.mem.free = append(c.mem.free, mem)
		} else if err := unmapBytes(mem[:cap(mem)]); err != nil {
			panic("far: unmap: " + err.Error()) // only for bytes that were not mapped
		}
	}
	b.mem = nil
	c.forgetLocked(o)
}

// idleAfter is how long blocks stay when nothing is fetched any more.
const idleAfter = 5 * time.Minute

// rest gives the memory back.
func (c *Client) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked()
}

// dropLocked gives back what nobody uses; after Close, the rest goes with its
// users.
func (c *Client) dropLocked() {
	for e := c.mem.recent.Front(); e != nil; {
		b := e.Value.(*block)
		e = e.Next()
		if b.users == 0 {
			c.evictLocked(b)
		}
	}
	for _, mem := range c.mem.free {
		if err := unmapBytes(mem[:cap(mem)]); err != nil {
			panic("far: unmap: " + err.Error())
		}
	}
	c.mem.free = nil
}

var errClosed = fault.New(fault.Unavailable, "far: closed")
