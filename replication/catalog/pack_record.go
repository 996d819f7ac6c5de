package catalog

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"pelago/cluster/fault"
	"pelago/shard"
)

// pack is the record of a pack that has seals.
type pack struct {
	id            [16]byte
	study, series string
	origin        string
	key           [16]byte
	size          int64
	instances     uint64
	withdrawn     uint32   // generations up to this one are; 0: none
	stripes       []stripe // ascending by generation, at least one
}

// stripe is what is known of one stripe of a pack.
type stripe struct {
	generation uint32
	by         string // who told it last
	revision   uint64
	code       shard.Code
	root       [32]byte
	layout     uint64
	receipts   uint16
	virtual    int
	elsewhere  []Elsewhere
}

func (s *stripe) equal(other *stripe) bool {
	return s.generation == other.generation && s.by == other.by && s.revision == other.revision && s.code == other.code && s.root == other.root &&
		s.layout == other.layout && s.receipts == other.receipts && s.virtual == other.virtual && slices.Equal(s.elsewhere, other.elsewhere)
}

// spare is as [SealFact.Spare].
func (s *stripe) spare() int { return bits.OnesCount16(s.receipts) - s.code.K }

// spare is that of the stripe that has most; below 0 without any.
func (p *pack) spare() int {
	most := -1
	for i := range p.stripes {
		most = max(most, p.stripes[i].spare())
	}
	return most
}

// find returns where a generation is, or would be, among the stripes.
func (p *pack) find(generation uint32) (int, bool) {
	return slices.BinarySearchFunc(p.stripes, generation, func(s stripe, generation uint32) int { return cmp.Compare(s.generation, generation) })
}

const packVersion = 1

// encode returns the row, which is the same on every node.
func (p *pack) encode() []byte {
	b := make([]byte, 0, 256)
	b = appendString(append(b, packVersion), p.study)
	shared := commonPrefix(p.study, p.series)
	b = appendString(binary.AppendUvarint(b, uint64(shared)), p.series[shared:])
	b = append(appendString(b, p.origin), p.key[:]...)
	b = binary.AppendUvarint(b, uint64(p.size))
	b = binary.AppendUvarint(b, p.instances)
	b = binary.AppendUvarint(b, uint64(p.withdrawn))
	b = binary.AppendUvarint(b, uint64(len(p.stripes)))
	for i := range p.stripes {
		b = p.stripes[i].append(b, p.origin)
	}
	return b
}

func (s *stripe) append(b []byte, origin string) []byte {
	b = binary.AppendUvarint(b, uint64(s.generation))
	if s.by == origin {
		b = appendString(b, "")
	} else {
		b = appendString(b, s.by)
	}
	b = binary.AppendUvarint(b, s.revision)
	b = append(b, byte(s.code.K), byte(s.code.M))
	b = append(b, s.root[:]...)
	b = binary.AppendUvarint(b, s.layout)
	b = binary.BigEndian.AppendUint16(b, s.receipts)
	b = append(b, byte(s.virtual+1))
	b = binary.AppendUvarint(b, uint64(len(s.elsewhere)))
	for _, e := range s.elsewhere {
		b = appendString(append(b, byte(e.Shard)), e.Node)
	}
	return b
}

// decodePack reads the row of a pack by its key.
func decodePack(key, row []byte) (*pack, error) {
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != packVersion {
		return nil, fault.New(fault.Unsupported, "catalog: seals of version %d", v)
	}
	p := &pack{study: d.string()}
	shared := d.uvarint()
	if shared > uint64(len(p.study)) {
		d.fail()
		shared = 0
	}
	p.series, p.origin = p.study[:shared]+d.string(), d.string()
	copy(p.key[:], d.take(16))
	size := d.uvarint()
	if size > math.MaxInt64 {
		d.fail()
	}
	p.size, p.instances, p.withdrawn = int64(size), d.uvarint(), d.uint32()
	for n := d.count(); n > 0 && !d.bad; n-- {
		s := d.stripe(p.origin)
		if last := len(p.stripes) - 1; last >= 0 && s.generation <= p.stripes[last].generation || s.generation <= p.withdrawn || len(p.stripes) == maxStripes {
			d.fail()
		}
		p.stripes = append(p.stripes, s)
	}
	if len(p.stripes) == 0 {
		d.fail()
	}
	if err := d.done("pack"); err != nil {
		return nil, err
	}
	var err error
	p.id, err = idAfter(key, 1+2*hashBytes)
	return p, err
}

func (d *decoder) stripe(origin string) stripe {
	s := stripe{generation: d.uint32(), by: d.string(), revision: d.uvarint()}
	if s.by == "" {
		s.by = origin
	}
	s.code = shard.Code{K: int(d.byte()), M: int(d.byte())}
	copy(s.root[:], d.take(32))
	s.layout = d.uvarint()
	if b := d.take(2); b != nil {
		s.receipts = binary.BigEndian.Uint16(b)
	}
	s.virtual = int(d.byte()) - 1
	for n := d.count(); n > 0 && !d.bad; n-- {
		s.elsewhere = append(s.elsewhere, Elsewhere{int(d.byte()), d.string()})
	}
	return s
}

// uint32 reads a uvarint of so many bits.
func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > math.MaxUint32 {
		d.fail()
		return 0
	}
	return uint32(v)
}

// fact returns a stripe as a fact has it.
func (p *pack) fact(s *stripe) SealFact {
	return SealFact{
		By: s.by, Study: p.study, Series: p.series, Stripe: shard.Stripe{Pack: p.id, Generation: s.generation},
		Origin: p.origin, Key: p.key, Size: p.size, Instances: p.instances, Code: s.code, Root: s.root,
		Revision: s.revision, Layout: s.layout, Receipts: s.receipts, Virtual: s.virtual, Elsewhere: s.elsewhere, Withdrawn: p.withdrawn,
	}
}
