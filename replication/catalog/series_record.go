package catalog

import (
	"encoding/binary"
	"slices"

	"pelago/cluster/fault"
)

const seriesVersion = 1

// uidHashBytes is how much of SeriesFact.UIDHash a record keeps, the first half
// of it: enough to tell equal sets of instances from others.
const uidHashBytes = 16

// origin is what one node said of a series.
type origin struct {
	node, site string
	asOf       uint64
	issuer     string
	attrs      attrs // of all levels
	instances  uint64
	bytes      uint64
	uidHash    [uidHashBytes]byte
	classes    []string
	reserved   bool
	arrived    int64
}

// series is a series record.
type series struct {
	uid      string
	sequence uint32   // in the order of first announcement
	deleted  bool     // a tombstone of the series or its study covers it
	origins  []origin // in the order of first announcement
}

// effective returns the origin whose attributes count: the first that still
// holds anything, else the first.
func (x *series) effective() *origin {
	for i := range x.origins {
		if x.origins[i].instances > 0 {
			return &x.origins[i]
		}
	}
	return &x.origins[0]
}

// held reports whether any origin holds anything of the series.
func (x *series) held() bool { return x.effective().instances > 0 }

// visible reports whether queries may see the series.
func (x *series) visible() bool { return !x.deleted && x.held() && !x.effective().reserved }

// counts is what origins say together: of origins with equal UID sets one
// counts, of others the largest, marked approximate until manifests tell.
type counts struct {
	instances, bytes uint64
	approx           bool
	arrived          int64
	classes, sites   []string
}

func (x *series) counts() counts {
	var c counts
	var hash *[uidHashBytes]byte
	for i := range x.origins {
		o := &x.origins[i]
		if o.instances == 0 {
			continue
		}
		if hash != nil && *hash != o.uidHash {
			c.approx = true
		}
		hash = &o.uidHash
		c.instances, c.bytes, c.arrived = max(c.instances, o.instances), max(c.bytes, o.bytes), max(c.arrived, o.arrived)
		for _, class := range o.classes {
			c.classes = insert(c.classes, class)
		}
		c.sites = insert(c.sites, o.site)
	}
	return c
}

// take folds a fact in and tells what it changed.
func (x *series) take(o origin) change {
	i := slices.IndexFunc(x.origins, func(k origin) bool { return k.node == o.node })
	if i < 0 {
		x.origins = append(x.origins, o)
		return changedAll
	}
	old := x.origins[i]
	if o.asOf < old.asOf {
		return changedNothing
	}
	x.origins[i] = o
	switch {
	case (old.instances == 0) != (o.instances == 0), old.reserved != o.reserved, old.issuer != o.issuer,
		old.site != o.site, !old.attrs.equal(o.attrs), !subset(old.classes, o.classes):
		return changedAll
	case o.equal(old):
		return changedNothing
	}
	return changedCounts
}

// change is how far a fact reaches.
type change uint8

const (
	changedNothing change = iota
	changedCounts         // only counts, and classes added
	changedAll
)

func (o origin) equal(other origin) bool {
	return o.asOf == other.asOf && o.instances == other.instances && o.bytes == other.bytes &&
		o.uidHash == other.uidHash && o.arrived == other.arrived && slices.Equal(o.classes, other.classes)
}

func subset(small, large []string) bool {
	for _, s := range small {
		if !slices.Contains(large, s) {
			return false
		}
	}
	return true
}

// encode returns the record; patient and study attributes that equal the
// study record's are left out.
func (x *series) encode(s *study) []byte {
	b := []byte{seriesVersion}
	b = binary.AppendUvarint(b, uint64(x.sequence))
	b = append(b, flag(x.deleted))
	b = binary.AppendUvarint(b, uint64(len(x.origins)))
	for i := range x.origins {
		o := &x.origins[i]
		b = appendString(b, o.node)
		b = appendString(b, o.site)
		b = binary.AppendUvarint(b, o.asOf)
		if k := o.shared(s); k >= 0 {
			b = binary.AppendUvarint(b, uint64(k)+1)
			b = appendAttrs(b, o.attrs.of(ofSeries))
		} else {
			b = binary.AppendUvarint(b, 0)
			b = appendString(b, o.issuer)
			b = appendAttrs(b, o.attrs)
		}
		b = binary.AppendUvarint(b, o.instances)
		b = binary.AppendUvarint(b, o.bytes)
		b = append(b, o.uidHash[:]...)
		b = appendStrings(b, o.classes)
		b = append(b, flag(o.reserved))
		b = binary.AppendVarint(b, o.arrived)
	}
	return b
}

// shared returns which of the study's patients, with the study's attributes,
// is exactly what the origin said, or -1.
func (o *origin) shared(s *study) int {
	if !o.attrs.of(ofStudy).equal(s.attrs) {
		return -1
	}
	mine := o.attrs.of(ofPatient)
	return slices.IndexFunc(s.patients, func(p patient) bool { return p.issuer == o.issuer && p.attrs.equal(mine) })
}

// decodeSeries reads a series record, whose values alias b, beside the study
// record that it was written with.
func decodeSeries(b []byte, uid string, s *study) (*series, error) {
	d := &decoder{b: b}
	if v := d.byte(); !d.bad && v != seriesVersion {
		return nil, fault.New(fault.Unsupported, "catalog: series record of version %d", v)
	}
	x := &series{uid: uid, sequence: uint32(d.uvarint()), deleted: d.byte() != 0}
	for n := d.count(); n > 0 && !d.bad; n-- {
		var o origin
		o.node, o.site, o.asOf = d.string(), d.string(), d.uvarint()
		switch k := d.uvarint(); {
		case k == 0:
			o.issuer, o.attrs = d.string(), d.attrs()
		case k <= uint64(len(s.patients)):
			p := s.patients[k-1]
			o.issuer, o.attrs = p.issuer, d.attrs()
			o.attrs.fill(s.attrs)
			o.attrs.fill(p.attrs)
		default:
			d.fail()
		}
		o.instances, o.bytes = d.uvarint(), d.uvarint()
		copy(o.uidHash[:], d.take(uidHashBytes))
		o.classes, o.reserved = d.strings(), d.byte() != 0
		o.arrived = d.varint()
		x.origins = append(x.origins, o)
	}
	if len(x.origins) == 0 {
		d.fail()
	}
	return x, d.done("series")
}
