package keys

import (
	"slices"

	"pelago/cluster/fault"
)

// places finds records by a hash of what they are looked up by: a table of
// 8-byte slots, open addressing with linear probing. A slot holds the upper bits
// of the hash and where the record stands; what stands there decides. So a
// million keys take 16 MiB, no pointers for the collector to follow, and a ring
// is indexed at the speed at which its file is read.
type places struct {
	slots []uint64 // tag << placeBits | place; 0 is free, for no record stands at 0
	used  int
}

const (
	// placeBits is the width of a place in a slot: rings up to 128 GiB.
	placeBits = 37
	maxPlace  = 1<<placeBits - 1
	tagBits   = 64 - placeBits
	// maxKeys bounds the records of a ring: three quarters of as many slots as
	// tags can address.
	maxKeys = 3 << (tagBits - 2)
	// leastSlots is the least length of a table; a power of two, as all are.
	leastSlots = 1 << 6
)

// newPlaces returns a table with room for about so many records.
func newPlaces(records int64) places {
	slots := leastSlots
	for int64(slots)/4*3 < min(records, maxKeys) {
		slots *= 2
	}
	return places{slots: make([]uint64, slots)}
}

// room reports whether so many more records may stand up to a place: fault.Full
// if the ring would grow beyond what can be addressed.
func (p *places) room(records int, end int64) error {
	if p.used+records > maxKeys || end > maxPlace {
		return fault.New(fault.Full, "keys: a ring of over %d keys, or over %d bytes", maxKeys, int64(maxPlace))
	}
	return nil
}

// add notes that a record stands at a place, for which there must be room.
func (p *places) add(hash uint64, at int64) {
	if p.used >= len(p.slots)/4*3 {
		old := p.slots
		p.slots = make([]uint64, 2*len(old))
		for _, s := range old {
			if s != 0 {
				p.put(s)
			}
		}
	}
	p.put(hash>>placeBits<<placeBits | uint64(at))
	p.used++
}

// put stores a slot in the first free one from where its tag belongs.
func (p *places) put(slot uint64) {
	i := p.home(slot)
	for p.slots[i] != 0 {
		i = (i + 1) & (len(p.slots) - 1)
	}
	p.slots[i] = slot
}

// home is where the slots of a tag begin. Tags are spread by their upper bits,
// so that a table is copied into a larger one from front to front.
func (p *places) home(slot uint64) int {
	return int((slot >> placeBits) * uint64(len(p.slots)) >> tagBits)
}

// find returns where records with a hash may stand, the newest first.
func (p *places) find(hash uint64) []int64 {
	var found []int64
	for i := p.home(hash); p.slots[i] != 0; i = (i + 1) & (len(p.slots) - 1) {
		if p.slots[i]>>placeBits == hash>>placeBits {
			found = append(found, int64(p.slots[i]&maxPlace))
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	return found
}
