package catalog

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"pelago/shard"
)

// SlotGroups is how finely slots tell where packs belong: the most placement groups
// that a layout has (cluster/layout). Those of one with fewer are runs of these.
const SlotGroups = 4096

// slotPage is how many packs are counted while no entry is applied: a millisecond or
// two.
const slotPage = 512

// Slot is a place that shards have under every layout: a placement group, and the
// position in its row.
type Slot struct {
	Group uint16 // from 0, of SlotGroups
	Shard uint8  // from 0
	// Cut is the node from whose copies these shards are cut while it has them; "": they
	// are held.
	Cut string
}

// slots are how many bytes of shards the seals have in each slot. They are counted
// once, in the order of keys and page by page between two Applies, and from then on
// kept up to date by Apply: of a pack behind upto nothing is counted yet.
type slots struct {
	upto []byte // guarded by Catalog.mu, as is whole; nil: nothing was counted
	done bool   // all are

	mu    sync.Mutex // a leaf
	known bool       // as done, for who reads
	sums  map[Slot]int64
}

// CountSlots counts what EachSlot tells, from where it stands, and returns when all is
// counted: at once if it is. That takes seconds for a million packs; applying goes on
// beside it.
func (c *Catalog) CountSlots(ctx context.Context) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if done, err := c.countSlots(slotPage); done || err != nil {
			return err
		}
	}
}

// countSlots counts a page of so many packs.
func (c *Catalog) countSlots(most int) (done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.slots
	if s.done {
		return true, nil
	}
	lower := []byte{rowPack}
	if s.upto != nil {
		lower = append(bytes.Clone(s.upto), 0)
	}
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after([]byte{rowPack})})
	if err != nil {
		return false, fmt.Errorf("catalog: count shards: %w", err)
	}
	defer it.Close()
	var page []slotBytes
	n := 0
	for it.First(); it.Valid() && n < most; it.Next() {
		p, err := decodePack(it.Key(), it.Value())
		if err != nil {
			s.forget() // a part of the page is passed over
			return false, err
		}
		page = p.slots(page, +1)
		s.upto = append(s.upto[:0], it.Key()...)
		n++
	}
	s.done = n < most
	if err := it.Error(); err != nil {
		s.forget()
		return false, fmt.Errorf("catalog: count shards: %w", err)
	}
	s.add(page)
	return s.done, nil
}

// EachSlot visits how many bytes of shards the seals have in each slot that has any, in
// no order: of all generations that stand, what is deleted and not purged among them,
// without the hashes and the manifest that a shard at rest has besides. It holds no
// lock while it does. False, and nothing is visited, before CountSlots has ended, or
// after the catalogue was replaced until it has again.
func (c *Catalog) EachSlot(visit func(at Slot, bytes int64)) bool {
	s := &c.slots
	s.mu.Lock()
	all := make([]slotBytes, 0, len(s.sums))
	for at, n := range s.sums {
		all = append(all, slotBytes{at, n})
	}
	known := s.known
	s.mu.Unlock()
	if !known {
		return false
	}
	for _, one := range all {
		visit(one.Slot, one.bytes)
	}
	return true
}

// slotBytes is what a pack adds to a slot, or takes from it.
type slotBytes struct {
	Slot
	bytes int64
}

// slots appends what a pack has in each slot, with a sign.
func (p *pack) slots(to []slotBytes, sign int64) []slotBytes {
	group := uint16(shard.Group(p.id, SlotGroups)) //nolint:gosec // below SlotGroups
	for i := range p.stripes {
		s := &p.stripes[i]
		g, err := shard.NewGeometry(s.code, p.size)
		if err != nil {
			continue // nothing is committed that has none
		}
		for n := range s.code.N() {
			at := Slot{Group: group, Shard: uint8(n)} //nolint:gosec // below shard.MaxShards
			if n == s.virtual {
				at.Cut = p.origin
			}
			to = append(to, slotBytes{at, sign * g.ShardBytes(n)})
		}
	}
	return to
}

// slot notes what a pack has in each slot, which is to be added or taken out with the
// transaction. key is that of its row.
func (t *txn) slot(p *pack, key []byte, sign int64) {
	if s := &t.c.slots; s.done || s.upto != nil && bytes.Compare(key, s.upto) <= 0 {
		t.slots = p.slots(t.slots, sign)
	}
}

// add changes the sums. Catalog.mu is held.
func (s *slots) add(all []slotBytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = s.done
	if s.sums == nil {
		s.sums = map[Slot]int64{}
	}
	for _, one := range all {
		if n := s.sums[one.Slot] + one.bytes; n != 0 {
			s.sums[one.Slot] = n
		} else {
			delete(s.sums, one.Slot)
		}
	}
}

// forget has all counted anew. Catalog.mu is held.
func (s *slots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upto, s.done, s.known, s.sums = nil, false, false, nil
}
