package catalog

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// tickedVersion is of a catalogue whose clock has begun, and which an older program must
// not open: it has rows that that one knows nothing of.
const (
	metaVersion   = 4
	tickedVersion = 5
)

// meta is the one row that changes with every Apply.
type meta struct {
	index, term uint64 // of the position
	next        uint32
	indexer     uint32
	founded     bool
	ticked      bool
	totals      Totals
	sealed      Sealed
	hash        sum
}

func (m meta) encode() []byte {
	b := []byte{metaVersion}
	if m.ticked {
		b[0] = tickedVersion
	}
	for _, v := range []uint64{m.index, m.term, uint64(m.next), uint64(m.indexer),
		m.totals.Patients, m.totals.Studies, m.totals.Series, m.totals.Instances, m.totals.Bytes} {
		b = binary.AppendUvarint(b, v)
	}
	b = m.sealed.append(append(b, flag(m.founded)))
	hash := m.hash.bytes()
	return append(b, hash[:]...)
}

func decodeMeta(b []byte) (meta, error) {
	d := &decoder{b: b}
	v := d.byte()
	if !d.bad && v != metaVersion && v != tickedVersion {
		return meta{}, fault.New(fault.Unsupported, "catalog: meta row of version %d", v)
	}
	m := meta{index: d.uvarint(), term: d.uvarint(), next: uint32(d.uvarint()), indexer: uint32(d.uvarint())}
	m.ticked = v == tickedVersion
	m.totals = Totals{d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()}
	m.founded = d.byte() != 0
	m.sealed = d.sealed()
	var hash [32]byte
	copy(hash[:], d.take(uint64(len(hash))))
	m.hash = sumOf(hash)
	return m, d.done("meta")
}
