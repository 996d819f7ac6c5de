package catalog

import (
	"encoding/binary"

	"pelago/shard"
)

// Sealed is how many keys and packs the catalogue knows, those of deleted studies
// too: they stay until they are purged.
type Sealed struct {
	Keys   uint64
	Packs  uint64                  // that have a seal
	Bytes  uint64                  // of their ciphertext
	Spares [shard.MaxShards]Amount // by the most shards that one of a pack's stripes can lose, going by receipts; packs that lack some are in none

	lastKey uint64 // StudyKey.At of the last key
}

// Amount is how many packs, and the bytes of their ciphertext.
type Amount struct{ Packs, Bytes uint64 }

// Surviving is what has receipts to survive the loss of so many shards, and with them
// of so many sites, from 0.
func (s *Sealed) Surviving(lost int) (a Amount) {
	for i := max(lost, 0); i < len(s.Spares); i++ {
		a.Packs, a.Bytes = a.Packs+s.Spares[i].Packs, a.Bytes+s.Spares[i].Bytes
	}
	return a
}

// Sealed returns the numbers, kept up to date by Apply.
func (c *Catalog) Sealed() Sealed { return *c.sealed.Load() }

// count adds a pack of so many bytes, the best of whose stripes has a spare, or takes
// it out.
func (s *Sealed) count(size int64, spare, sign int) {
	n, bytes := uint64(sign), uint64(size)*uint64(sign) //nolint:gosec // modulo 2⁶⁴
	s.Packs, s.Bytes = s.Packs+n, s.Bytes+bytes
	if spare >= 0 {
		a := &s.Spares[spare]
		a.Packs, a.Bytes = a.Packs+n, a.Bytes+bytes
	}
}

func (s *Sealed) append(b []byte) []byte {
	for _, v := range [...]uint64{s.lastKey, s.Keys, s.Packs, s.Bytes} {
		b = binary.AppendUvarint(b, v)
	}
	levels := 0
	for _, a := range s.Spares {
		if a != (Amount{}) {
			levels++
		}
	}
	b = append(b, byte(levels))
	for i, a := range s.Spares {
		if a != (Amount{}) {
			b = binary.AppendUvarint(binary.AppendUvarint(append(b, byte(i)), a.Packs), a.Bytes)
		}
	}
	return b
}

func (d *decoder) sealed() Sealed {
	s := Sealed{lastKey: d.uvarint(), Keys: d.uvarint(), Packs: d.uvarint(), Bytes: d.uvarint()}
	for n := d.byte(); n > 0 && !d.bad; n-- {
		i := int(d.byte())
		if i >= len(s.Spares) {
			d.fail()
			break
		}
		s.Spares[i] = Amount{d.uvarint(), d.uvarint()}
	}
	return s
}
