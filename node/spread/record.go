package spread

import (
	"encoding/binary"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/stripe"
)

// Rows of the store (docs/formats/spread.md). Integers in keys are big endian.
const (
	rowStripe = 's' // s pack generation → record, below
	rowFact   = 'f' // f number          → what is told under it: 's' pack generation, or 'k' id
	rowKey    = 'k' // k id              → number: the study key is told
	rowNumber = 'n' // n                 → number: the last one that was given
)

const recordVersion = 1

// record is what is known of a stripe: of this node's pack, or of one that this node
// has told about.
type record struct {
	seal   catalog.SealFact // as it is to be told; By is this node
	number uint64           // of the row that tells it; 0: it was never told
	told   uint64           // its revision when it was told last

	// Of this node's packs; head is nil for others.
	head *stripe.Head
	at   []string // by shard, the node that has given a receipt, or this one for the virtual; "": none has
}

// virtual is the byte for no virtual shard.
const noVirtual = 255

func (r *record) encode() ([]byte, error) {
	f := &r.seal
	e := encoder{recordVersion}
	for _, s := range []string{f.By, f.Study, f.Series, f.Origin} {
		e.text(s)
	}
	e = append(append(e, f.Key[:]...), f.Root[:]...)
	e = append(e, byte(f.Code.K), byte(f.Code.M))
	virtual := byte(noVirtual)
	if f.Virtual != catalog.NoShard {
		virtual = byte(f.Virtual)
	}
	e = append(e, virtual)
	for _, n := range []uint64{
		uint64(f.Size), f.Instances, f.Revision, f.Base, f.Layout, uint64(f.Receipts), uint64(f.Withdrawn), uint64(f.Survives), r.number, r.told, uint64(len(f.Elsewhere)),
	} {
		e.number(n)
	}
	for _, x := range f.Elsewhere {
		e = append(e, byte(x.Shard))
		e.text(x.Node)
	}
	if r.head == nil {
		return append(e, 0), nil
	}
	head, err := r.head.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	e = append(e, 1)
	e.text(string(head))
	for _, node := range r.at {
		e.text(node)
	}
	return e, nil
}

// decodeRecord reads the row of a stripe: fault.Unsupported for one of a newer
// program, fault.Corrupt for what is none.
func decodeRecord(of shard.Stripe, b []byte) (*record, error) {
	if len(b) > 0 && b[0] > recordVersion {
		return nil, fault.New(fault.Unsupported, "spread: a row of version %d, newer than %d", b[0], recordVersion)
	}
	if len(b) == 0 || b[0] != recordVersion {
		return nil, fault.New(fault.Corrupt, "spread: a row of %d bytes", len(b))
	}
	d := decoder{b: b[1:]}
	r := &record{}
	f := &r.seal
	f.Stripe = of
	f.By, f.Study, f.Series, f.Origin = d.text(maxText), d.text(maxText), d.text(maxText), d.text(maxText)
	copy(f.Key[:], d.bytes(len(f.Key)))
	copy(f.Root[:], d.bytes(len(f.Root)))
	f.Code = shard.Code{K: int(d.byte()), M: int(d.byte())}
	if f.Virtual = int(d.byte()); f.Virtual == noVirtual {
		f.Virtual = catalog.NoShard
	}
	f.Size, f.Instances, f.Revision, f.Base, f.Layout = int64(d.number(1<<62)), d.number(1<<62), d.number(1<<62), d.number(1<<62), d.number(1<<62)
	f.Receipts, f.Withdrawn, f.Survives = uint16(d.number(1<<16-1)), uint32(d.number(1<<32-1)), int(d.number(shard.MaxShards))
	r.number, r.told = d.number(1<<62), d.number(1<<62)
	for range d.number(shard.MaxShards) {
		f.Elsewhere = append(f.Elsewhere, catalog.Elsewhere{Shard: int(d.byte()), Node: d.text(maxText)})
	}
	if d.byte() == 1 {
		head := d.text(stripe.MaxHeadBytes)
		if d.failed == nil {
			r.head, d.failed = stripe.ParseHead([]byte(head))
		}
		if d.failed == nil && (r.head.Stripe != of || r.head.Code != f.Code || r.head.Root() != f.Root) {
			d.fail()
		}
		for range f.Code.N() {
			if d.failed == nil {
				r.at = append(r.at, d.text(maxText))
			}
		}
	}
	if d.failed == nil && (len(d.b) > 0 || f.Code.Check() != nil || f.Virtual >= f.Code.N()) {
		d.fail()
	}
	if d.failed != nil {
		return nil, fault.New(fault.Corrupt, "spread: the row of %v: %w", of, d.failed)
	}
	return r, nil
}

// maxText bounds a name in a row.
const maxText = 1 << 10

type encoder []byte

func (e *encoder) number(n uint64) { *e = binary.AppendUvarint(*e, n) }

func (e *encoder) text(s string) { e.number(uint64(len(s))); *e = append(*e, s...) }

// decoder reads what encoder wrote; after a failure it reads zeros.
type decoder struct {
	b      []byte
	failed error
}

func (d *decoder) fail() {
	if d.failed == nil {
		d.failed = fault.New(fault.Corrupt, "spread: it does not parse")
	}
	d.b = nil
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) number(most uint64) uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 || n > most {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) text(most uint64) string { return string(d.bytes(int(d.number(most)))) }

func keyStripe(of shard.Stripe) string {
	b := append([]byte{rowStripe}, of.Pack[:]...)
	return string(binary.BigEndian.AppendUint32(b, of.Generation))
}

// stripeOf reads the stripe in a key of keyStripe, or behind its first letter in the
// value of a fact.
func stripeOf(key string) (of shard.Stripe, ok bool) {
	if len(key) != 1+len(of.Pack)+4 || key[0] != rowStripe {
		return of, false
	}
	copy(of.Pack[:], key[1:])
	of.Generation = binary.BigEndian.Uint32([]byte(key[1+len(of.Pack):]))
	return of, of.Generation > 0
}

func keyKey(id [16]byte) string { return string(append([]byte{rowKey}, id[:]...)) }

func keyFact(number uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte{rowFact}, number))
}

// numberOf reads the number in a key of keyFact.
func numberOf(key string) (uint64, bool) {
	if len(key) != 1+8 || key[0] != rowFact {
		return 0, false
	}
	return binary.BigEndian.Uint64([]byte(key[1:])), true
}
