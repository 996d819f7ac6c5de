package match

import (
	"cmp"
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Options are the negotiated and face-dependent rules.
type Options struct {
	Fuzzy            bool // person names also match by sound (see FuzzyCodes)
	CombinedDateTime bool // a date and its time are one range
	Timezone         bool // dates and times are compared in the zone of the keys' (0008,0201)
	FoldText         bool // case does not count in free-text descriptions
}

// Limits of what a query may ask for; all of them far above what clients send.
const (
	maxKeys    = 4096 // keys of all levels: a data set of this many costs a millisecond a candidate
	maxDepth   = 16   // sequences in sequences
	maxValues  = 8192 // values of one key: a list of the UIDs of a large study
	maxPattern = 1024 // bytes of a pattern with wildcards, to bound the work for one value
)

// Matcher is a compiled set of keys. It may be used by many goroutines.
type Matcher struct {
	rules []rule
	zone  zone // of the keys, when time zones count
}

// rule is one compiled key with its test.
type rule struct {
	key     Key
	creator string // of a private key: its block is looked up in each candidate
	test    test
}

// test decides about one candidate's element. el is never nil.
type test interface {
	match(c candidate, el *dicom.Element) bool
}

// candidate is a data set under test and what its items inherit.
type candidate struct {
	ds    *dicom.Dataset
	shift int64 // microseconds to add to its dates and times to have them in the keys' zone
	zoned zone  // its own zone; for DT values
	keys  zone
}

// Compile checks and normalises keys; fault.Mismatch for values that the VR
// forbids as a key: unreadable dates and times, several items in a sequence,
// and anything beyond the limits of this package.
func Compile(keys *dicom.Dataset, options Options) (*Matcher, error) {
	budget := maxKeys
	m, err := compile(keys, options, &budget, 0)
	if err != nil {
		return nil, err
	}
	if options.Timezone {
		m.zone = zoneOf(keys)
		if m.zone.known {
			widen(m.rules)
		}
	}
	return m, nil
}

func compile(keys *dicom.Dataset, options Options, budget *int, depth int) (*Matcher, error) {
	if depth > maxDepth {
		return nil, fault.New(fault.Mismatch, "match: keys nested deeper than %d sequences", maxDepth)
	}
	m := &Matcher{}
	for i := range keys.Elements {
		el := &keys.Elements[i]
		if !isKey(el.Tag) {
			continue
		}
		if *budget--; *budget < 0 {
			return nil, fault.New(fault.Mismatch, "match: more than %d keys", maxKeys)
		}
		r, err := compileKey(keys, el, options, budget, depth)
		if err != nil {
			return nil, err
		}
		if r.key.Kind != Universal {
			m.rules = append(m.rules, r)
		}
	}
	slices.SortStableFunc(m.rules, func(a, b rule) int { return cmp.Compare(a.key.Tag, b.key.Tag) })
	if options.CombinedDateTime {
		m.rules = combine(m.rules)
	}
	return m, nil
}

// isKey reports whether an element of an identifier can be a matching key.
func isKey(t dict.Tag) bool {
	switch t {
	case dict.SpecificCharacterSet, dict.QueryRetrieveLevel, dict.QueryRetrieveView, dict.TimezoneOffsetFromUTC:
		return false
	}
	if t.Group() < 8 || t.IsGroupLength() || t.Group() == 0xFFFC || t.Group() == 0xFFFE {
		return false
	}
	return !t.IsPrivate() || t.Element() >= 0x1000 // private creators say where, not what
}

// compileKey compiles one element; the rule's kind is Universal if it matches
// everything.
func compileKey(keys *dicom.Dataset, el *dicom.Element, options Options, budget *int, depth int) (rule, error) {
	r := rule{key: Key{Tag: el.Tag, VR: keyVR(el)}}
	if el.Tag.IsPrivate() {
		r.creator = keys.String(creatorOf(el.Tag))
	}
	if el.Cut != nil {
		return r, fault.New(fault.Mismatch, "match: value of key %v is too long", el.Tag)
	}
	if r.key.VR == dict.SQ {
		err := compileSequence(&r, el, options, budget, depth)
		return r, err
	}
	if numberSize(r.key.VR) > 0 {
		err := compileNumbers(&r, keys, el)
		return r, err
	}
	if r.key.VR.Bulk() && r.key.VR != dict.UN {
		if len(el.Value) > 0 {
			return r, fault.New(fault.Mismatch, "match: %v values cannot be matched: key %v", r.key.VR, el.Tag)
		}
		return r, nil
	}
	values, err := keyValues(keys, el, r.key.VR)
	if err != nil || len(values) == 0 {
		return r, err
	}
	switch r.key.VR {
	case dict.PN:
		err = compileNames(&r, values, options)
	case dict.DA, dict.TM, dict.DT:
		err = compileTimes(&r, values)
	case dict.IS, dict.DS:
		compileDecimals(&r, values)
	default:
		err = compileText(&r, values, options)
	}
	return r, err
}

// keyVR returns the VR that a key is matched by. The dictionary's counts where
// it and the key's are both text (a client that sends Patient's Name as LO
// still means a name), and where the key comes without one.
func keyVR(el *dicom.Element) dict.VR {
	if len(el.Items) > 0 {
		return dict.SQ
	}
	if el.Tag.IsPrivate() {
		return el.VR
	}
	if e, ok := dict.Lookup(el.Tag); ok && (el.VR == dict.UN || e.VR.Text() && el.VR.Text()) {
		return e.VR
	}
	return el.VR
}

// keyValues returns the values of a text key that are not universal, without
// padding. None means that the key is universal: one universal value makes the
// whole list so.
func keyValues(keys *dicom.Dataset, el *dicom.Element, vr dict.VR) ([]string, error) {
	var values []string
	universal := false
	text := textOf(keys, el, vr)
	eachValue(text, vr, func(v []byte) bool {
		if len(v) > 0 && len(values) <= maxValues {
			values = append(values, string(v))
		}
		universal = universal || len(v) > 0 && isUniversal(v, vr)
		return false
	})
	if universal {
		return nil, nil
	}
	if vr == dict.UI || vr == dict.CS {
		for i := 0; i < len(values); i++ {
			if strings.Contains(values[i], ",") {
				parts := strings.FieldsFunc(values[i], func(r rune) bool { return r == ',' || r == ' ' && vr == dict.UI })
				for j := range parts {
					parts[j] = strings.Trim(parts[j], " \x00")
				}
				parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
				values = slices.Replace(values, i, i+1, parts...)
				i += len(parts) - 1
			}
		}
	}
	if len(values) > maxValues {
		return nil, fault.New(fault.Mismatch, "match: key %v has more than %d values", el.Tag, maxValues)
	}
	slices.Sort(values)
	return slices.Compact(values), nil
}

// isUniversal reports whether a value stands for everything: asterisks alone,
// in names between any delimiters, and for dates and times a bare hyphen.
func isUniversal(v []byte, vr dict.VR) bool {
	for _, c := range v {
		switch {
		case c == '*', c == ' ':
		case vr == dict.PN && (c == '^' || c == '='):
		case (vr == dict.DA || vr == dict.TM || vr == dict.DT) && c == '-':
		default:
			return false
		}
	}
	return true
}

// Match reports whether a data set matches every key whose tag only accepts
// (nil: every key). Of a combined date and time it is the date's tag.
func (m *Matcher) Match(ds *dicom.Dataset, only func(dict.Tag) bool) bool {
	c := candidate{ds: ds, keys: m.zone}
	if m.zone.known {
		if c.zoned = zoneOf(ds); c.zoned.known {
			c.shift = m.zone.offset - c.zoned.offset
		}
	}
	return m.match(c, only)
}

func (m *Matcher) match(c candidate, only func(dict.Tag) bool) bool {
	for i := range m.rules {
		r := &m.rules[i]
		if only != nil && !only(r.key.Tag) {
			continue
		}
		tag := r.key.Tag
		if r.creator != "" {
			var ok bool
			if tag, ok = blockOf(c.ds, tag, r.creator); !ok {
				return false
			}
		}
		el := c.ds.Get(tag)
		if el == nil || el.Cut != nil || !r.test.match(c, el) {
			return false
		}
	}
	return true
}

// creatorOf returns the tag of the private creator that reserves t's block
// (PS3.5 §7.8.1).
func creatorOf(t dict.Tag) dict.Tag {
	return dict.Tag(uint32(t)&0xFFFF0000 | uint32(t.Element()>>8))
}

// blockOf returns the tag that a private attribute has in ds, where its creator
// may have reserved another block than in the keys.
func blockOf(ds *dicom.Dataset, t dict.Tag, creator string) (dict.Tag, bool) {
	if ds.String(creatorOf(t)) == creator {
		return t, true
	}
	for i := range ds.Elements {
		at := ds.Elements[i].Tag
		if at.Group() != t.Group() || at.Element() < 0x10 || at.Element() > 0xFF {
			continue
		}
		if ds.String(at) == creator {
			return dict.Tag(uint32(t)&0xFFFF00FF | uint32(at.Element())<<8), true
		}
	}
	return t, false
}
