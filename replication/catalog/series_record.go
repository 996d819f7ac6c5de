package catalog

import (
	"encoding/binary"
	"slices"

	"pelago/cluster/fault"
)

const seriesVersion = 2

// uidHashBytes is how much of SeriesFact.UIDHash is told and kept, the first half
// of it: enough to tell equal sets of instances from others.
const uidHashBytes = 16

// saying is what one node said of a series.
type saying struct {
	site      string
	asOf      uint64
	issuer    string
	attrs     attrs // of all levels
	instances uint64
	bytes     uint64
	uidHash   [uidHashBytes]byte
	classes   []string
	reserved  bool
	arrived   int64
}

// origin is a node and what it said of a series, which counts once it is
// committed, and here at once.
type origin struct {
	node  string
	first place   // of its first committed saying; without any, of the one that is not
	said  *saying // the last that is committed; nil: none
	ahead *saying // that is not committed yet; nil: none. One of the two there is
}

// now is what counts here.
func (o *origin) now() *saying {
	if o.ahead != nil {
		return o.ahead
	}
	return o.said
}

// series is a series record.
type series struct {
	uid     string
	deleted bool     // a tombstone of the series or its study covers it
	origins []origin // in the order of first announcement
}

// place is when the series was first announced.
func (x *series) place() place { return x.origins[0].first }

// isAhead reports whether any saying of the series is not committed yet.
func (x *series) isAhead() bool {
	return slices.ContainsFunc(x.origins, func(o origin) bool { return o.ahead != nil })
}

// effective returns the saying whose attributes count: of the first origin that
// still holds anything, else of the first.
func (x *series) effective() *saying {
	for i := range x.origins {
		if s := x.origins[i].now(); s.instances > 0 {
			return s
		}
	}
	return x.origins[0].now()
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
		s := x.origins[i].now()
		if s.instances == 0 {
			continue
		}
		if hash != nil && *hash != s.uidHash {
			c.approx = true
		}
		hash = &s.uidHash
		c.instances, c.bytes, c.arrived = max(c.instances, s.instances), max(c.bytes, s.bytes), max(c.arrived, s.arrived)
		for _, class := range s.classes {
			c.classes = insert(c.classes, class)
		}
		c.sites = insert(c.sites, s.site)
	}
	return c
}

// change is how far a saying reaches.
type change uint8

const (
	changedNothing change = iota
	changedCounts         // only counts, and classes added
	changedAll
)

// difference tells what changes when one saying takes another's place.
func difference(old, new *saying) change {
	switch {
	case old == new:
		return changedNothing
	case old == nil || new == nil, (old.instances == 0) != (new.instances == 0), old.reserved != new.reserved, old.issuer != new.issuer,
		old.site != new.site, !old.attrs.equal(new.attrs), !subset(old.classes, new.classes):
		return changedAll
	case old.instances == new.instances && old.bytes == new.bytes && old.uidHash == new.uidHash && old.arrived == new.arrived &&
		slices.Equal(old.classes, new.classes):
		return changedNothing
	}
	return changedCounts
}

// equal reports whether two sayings are the same.
func (s *saying) equal(other *saying) bool {
	return s.asOf == other.asOf && difference(s, other) == changedNothing
}

func subset(small, large []string) bool {
	for _, s := range small {
		if !slices.Contains(large, s) {
			return false
		}
	}
	return true
}

// Which sayings of an origin a record has.
const (
	hasSaid  = 1
	hasAhead = 2
)

// encode returns the record; patient and study attributes that equal the
// study record's are left out. number gives a node and its site their number.
func (x *series) encode(s *study, number func(name) int) []byte {
	b := []byte{seriesVersion, flag(x.deleted)}
	b = binary.AppendUvarint(b, uint64(len(x.origins)))
	for i := range x.origins {
		o := &x.origins[i]
		var has byte
		if o.said != nil {
			has = hasSaid
		}
		if o.ahead != nil {
			has |= hasAhead
		}
		b = append(b, has)
		if o.said != nil {
			b = binary.AppendUvarint(b, o.first.index)
		}
		b = binary.AppendUvarint(b, uint64(o.first.ordinal))
		for _, said := range [...]*saying{o.said, o.ahead} {
			if said != nil {
				b = binary.AppendUvarint(b, uint64(number(name{o.node, said.site})))
				b = said.append(b, s)
			}
		}
	}
	return b
}

func (o *saying) append(b []byte, s *study) []byte {
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
	return binary.AppendVarint(b, o.arrived)
}

// shared returns which of the study's patients, with the study's attributes,
// is exactly what the saying has, or -1.
func (o *saying) shared(s *study) int {
	if !o.attrs.of(ofStudy).equal(s.attrs) {
		return -1
	}
	mine := o.attrs.of(ofPatient)
	return slices.IndexFunc(s.patients, func(p patient) bool { return p.issuer == o.issuer && p.attrs.equal(mine) })
}

// decodeSeries reads a series record, whose values alias b, beside the study
// record that it was written with.
func decodeSeries(b []byte, uid string, s *study, names []name) (*series, error) {
	d := &decoder{b: b}
	if v := d.byte(); !d.bad && v != seriesVersion {
		return nil, fault.New(fault.Unsupported, "catalog: series record of version %d", v)
	}
	x := &series{uid: uid, deleted: d.byte() != 0}
	n := d.count()
	x.origins = make([]origin, 0, min(n, 8))
	for ; n > 0 && !d.bad; n-- {
		o := origin{first: place{index: uncommitted}}
		has := d.byte()
		if has == 0 || has > hasSaid|hasAhead {
			d.fail()
		}
		if has&hasSaid != 0 {
			o.first.index = d.uvarint()
		}
		o.first.ordinal = uint32(d.uvarint())
		if has&hasSaid != 0 {
			o.said = d.saying(&o, s, names)
		}
		if has&hasAhead != 0 {
			o.ahead = d.saying(&o, s, names)
		}
		x.origins = append(x.origins, o)
	}
	if len(x.origins) == 0 {
		d.fail()
	}
	return x, d.done("series")
}

// saying reads a saying and the node that it is of.
func (d *decoder) saying(of *origin, s *study, names []name) *saying {
	number := d.uvarint()
	if number >= uint64(len(names)) || of.node != "" && of.node != names[number].node {
		d.fail()
		return nil
	}
	of.node = names[number].node
	o := &saying{site: names[number].site, asOf: d.uvarint()}
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
	return o
}
