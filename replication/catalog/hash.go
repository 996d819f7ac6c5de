package catalog

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/blake3"
)

// sum is the state hash: the sum modulo 2^256, little endian, of BLAKE3-256 of
// every committed record. It does not depend on the order in which records were
// written, so that it follows from the records and is kept by adding and taking
// away.
type sum [4]uint64

func (s *sum) add(record []byte) {
	h := blake3.Sum256(record)
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
}

func (s *sum) sub(record []byte) {
	h := blake3.Sum256(record)
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], binary.LittleEndian.Uint64(h[8*i:]), borrow)
	}
}

func (s sum) bytes() (b [32]byte) {
	for i := range s {
		binary.LittleEndian.PutUint64(b[8*i:], s[i])
	}
	return b
}

func sumOf(b [32]byte) (s sum) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

// appendAgreed appends a small record as the state hash has it. Its key tells
// its kind.
func appendAgreed(b, key, value []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	return append(append(b, key...), value...)
}

// appendSaying appends what an origin said of a series as the state hash has it:
// all of it, whatever the record leaves out.
func appendSaying(b []byte, study, series string, o *origin) []byte {
	s := o.said
	b = append(b, 0) // the length of no key
	for _, text := range [...]string{study, series, o.node, s.site, s.issuer} {
		b = appendString(b, text)
	}
	for _, v := range [...]uint64{o.first.index, uint64(o.first.ordinal), s.asOf, s.instances, s.bytes} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(appendAttrs(b, s.attrs), s.uidHash[:]...)
	b = append(appendStrings(b, s.classes), flag(s.reserved))
	return binary.AppendVarint(b, s.arrived)
}

// agree sets a small record that all nodes have, or drops it when value is nil.
func (t *txn) agree(key, value []byte) error {
	old, err := t.read(key)
	if err != nil {
		return err
	}
	if old != nil {
		t.scratch = appendAgreed(t.scratch[:0], key, old)
		t.hash.sub(t.scratch)
	}
	if value != nil {
		t.scratch = appendAgreed(t.scratch[:0], key, value)
		t.hash.add(t.scratch)
	}
	t.small[string(key)] = value
	return nil
}
