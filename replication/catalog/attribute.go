package catalog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

const (
	// maxValue bounds one value in a record, in bytes of UTF-8: twice what a
	// full person name of three groups may take.
	maxValue = 1024
	// maxAttributes bounds a fact's data set: what goes through the log is small.
	maxAttributes = 8 << 10
)

// The private element of a fact's data set that lists, as text, the tags whose
// values are too long for a record, so that nobody takes them for absent: they
// are answered from the instances' headers.
const (
	omittedCreator dict.Tag = 0x00090010
	omittedTags    dict.Tag = 0x00091001
	creatorName             = "PELAGO CATALOG"
)

// codeOmitted marks, in a record, the list of omitted codes. It is no index
// into the table.
const codeOmitted = 0xFF

// attr is an attribute of a record: its code and its value in UTF-8, padded to
// an even length.
type attr struct {
	code  uint8
	value []byte
}

// attrs are ascending by code.
type attrs []attr

func tagsOf(l level, implied dict.Tag) []dict.Tag {
	tags := []dict.Tag{implied}
	for _, a := range attributes {
		if a.level == l {
			tags = append(tags, a.tag)
		}
	}
	slices.Sort(tags)
	return tags
}

// codeOf returns the code of a tag.
func codeOf(t dict.Tag) (uint8, bool) {
	for i := range attributes {
		if attributes[i].tag == t {
			return uint8(i), true
		}
	}
	return 0, false
}

// Attributes picks PatientTags, StudyTags and SeriesTags from an instance's
// header, decoded to ISO_IR 192, as SeriesFact.Attributes has them. Empty
// values are left out; values longer than a record takes are listed as omitted.
func Attributes(h *dicom.Header) []byte {
	picked := make(attrs, 0, len(attributes))
	var omitted []byte
	total := 0
	for code, a := range attributes {
		e := h.Dataset.Get(a.tag)
		if e == nil {
			continue
		}
		text := e.Cut != nil
		var value []byte
		if !text {
			known := *e
			known.VR = a.vr
			values, _ := h.Dataset.ElementStrings(&known) // what cannot be decoded shows as U+FFFD
			value = clean(strings.Join(values, `\`))
			text = len(value) > 0
		}
		if !text {
			continue
		}
		if e.Cut != nil || len(value) > maxValue || total+len(value) > maxAttributes/2 {
			omitted = append(omitted, uint8(code))
			continue
		}
		total += len(value)
		picked = append(picked, attr{uint8(code), value})
	}
	if len(omitted) > 0 {
		picked = append(picked, attr{codeOmitted, omitted})
	}
	return picked.dataset()
}

// clean pads a value to an even length, without the NULs that some writers leave.
func clean(s string) []byte {
	s = strings.TrimRight(strings.ReplaceAll(s, "\x00", " "), " ")
	if s == "" {
		return nil
	}
	if len(s)%2 != 0 {
		s += " "
	}
	return []byte(s)
}

// dataset encodes attributes as SeriesFact.Attributes has them.
func (as attrs) dataset() []byte {
	type element struct {
		tag   dict.Tag
		vr    dict.VR
		value []byte
	}
	elements := append(make([]element, 0, len(as)+3), element{dict.SpecificCharacterSet, dict.CS, []byte("ISO_IR 192")})
	for _, a := range as {
		if a.code == codeOmitted {
			names := make([]string, len(a.value))
			for i, code := range a.value {
				t := attributes[code].tag
				names[i] = strings.ToUpper(strings.NewReplacer("(", "", ",", "", ")", "").Replace(t.String()))
			}
			elements = append(elements,
				element{omittedCreator, dict.LO, []byte(creatorName)},
				element{omittedTags, dict.LO, clean(strings.Join(names, `\`))})
			continue
		}
		at := attributes[a.code]
		elements = append(elements, element{at.tag, at.vr, a.value})
	}
	slices.SortFunc(elements, func(x, y element) int { return cmp.Compare(x.tag, y.tag) })
	const head = 8 // tag, VR, length
	total := 0
	for _, e := range elements {
		total += head + len(e.value)
	}
	b := make([]byte, 0, total)
	for _, e := range elements {
		b = binary.LittleEndian.AppendUint16(b, e.tag.Group())
		b = binary.LittleEndian.AppendUint16(b, e.tag.Element())
		b = append(b, byte(e.vr>>8), byte(e.vr))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(e.value)))
		b = append(b, e.value...)
	}
	return b
}

// parseAttributes reads SeriesFact.Attributes. Attributes that records do not
// hold are passed over; anything that is not a flat data set in explicit little
// endian is fault.Invalid.
func parseAttributes(b []byte) (attrs, error) {
	if len(b) > maxAttributes {
		return nil, fault.New(fault.Invalid, "catalog: attributes of %d bytes", len(b))
	}
	as := make(attrs, 0, min(len(b)/8, len(attributes)+1))
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, fault.New(fault.Invalid, "catalog: attributes are cut short")
		}
		tag := dict.Tag(binary.LittleEndian.Uint16(b))<<16 | dict.Tag(binary.LittleEndian.Uint16(b[2:]))
		vr := dict.VR(b[4])<<8 | dict.VR(b[5])
		n := int(binary.LittleEndian.Uint16(b[6:]))
		if vr.Long() || !vr.Known() || 8+n > len(b) {
			return nil, fault.New(fault.Invalid, "catalog: attribute %v cannot be delimited", tag)
		}
		value := b[8 : 8+n : 8+n]
		b = b[8+n:]
		if tag == omittedTags {
			as = append(as, attr{codeOmitted, parseOmitted(value)})
			continue
		}
		if code, ok := codeOf(tag); ok && n > 0 && n <= maxValue {
			if n%2 != 0 {
				value = append(value, ' ')
			}
			as = append(as, attr{code, value})
		}
	}
	slices.SortStableFunc(as, func(x, y attr) int { return cmp.Compare(x.code, y.code) })
	return slices.CompactFunc(as, func(x, y attr) bool { return x.code == y.code }), nil
}

func parseOmitted(value []byte) []byte {
	var codes []byte
	for _, name := range bytes.Split(bytes.TrimRight(value, " "), []byte{'\\'}) {
		for code, a := range attributes {
			if strings.NewReplacer("(", "", ",", "", ")", "").Replace(a.tag.String()) == string(name) {
				codes = append(codes, uint8(code))
			}
		}
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// bounded reports whether attributes that were read are no more than a fact may
// have.
func (as attrs) bounded() bool {
	total := 0
	for _, a := range as {
		if len(a.value) > maxValue || len(a.value)%2 != 0 && a.code != codeOmitted {
			return false
		}
		total += len(a.value)
	}
	return total <= maxAttributes
}

// get returns the padded value of a code, or nil.
func (as attrs) get(code uint8) []byte {
	i, ok := as.find(code)
	if !ok {
		return nil
	}
	return as[i].value
}

// find returns where a code is, or would be.
func (as attrs) find(code uint8) (int, bool) {
	return slices.BinarySearchFunc(as, code, func(a attr, c uint8) int { return cmp.Compare(a.code, c) })
}

// text returns the value of a code without padding.
func (as attrs) text(code uint8) string { return strings.TrimRight(string(as.get(code)), " \x00") }

// fill adds to as what only more has, and reports whether that was anything.
// Lists of omitted attributes are united.
func (as *attrs) fill(more attrs) bool {
	old, changed := *as, false
	for i := 0; len(more) > 0; i++ { // up to the first that is to be added: often there is none
		for i < len(old) && old[i].code < more[0].code {
			i++
		}
		if more[0].code == codeOmitted || i == len(old) || old[i].code != more[0].code {
			break
		}
		more = more[1:]
	}
	if len(more) == 0 {
		return false
	}
	filled := make(attrs, 0, len(old)+len(more))
	for _, m := range more {
		n := 0
		for n < len(old) && old[n].code < m.code {
			n++
		}
		filled, old = append(filled, old[:n]...), old[n:]
		if len(old) == 0 || old[0].code != m.code {
			filled, changed = append(filled, m), true
			continue
		}
		known := old[0]
		if old = old[1:]; m.code == codeOmitted {
			union := slices.Concat(known.value, m.value)
			slices.Sort(union)
			if union = slices.Compact(union); len(union) > len(known.value) {
				known.value, changed = union, true
			}
		}
		filled = append(filled, known)
	}
	if changed {
		*as = append(filled, old...)
	}
	return changed
}

// of returns the attributes of one level.
func (as attrs) of(l level) attrs {
	n := 0
	for _, a := range as {
		if a.code == codeOmitted || attributes[a.code].level == l {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	out := make(attrs, 0, n)
	for _, a := range as {
		if a.code != codeOmitted {
			if attributes[a.code].level == l {
				out = append(out, a)
			}
			continue
		}
		var codes []byte
		for _, c := range a.value {
			if attributes[c].level == l {
				codes = append(codes, c)
			}
		}
		if len(codes) > 0 {
			out = append(out, attr{codeOmitted, codes})
		}
	}
	return out
}

func (as attrs) equal(other attrs) bool {
	return slices.EqualFunc(as, other, func(x, y attr) bool { return x.code == y.code && bytes.Equal(x.value, y.value) })
}

// omits reports whether the value of a tag was too long for the record.
func (as attrs) omits(t dict.Tag) bool {
	if len(as) == 0 || as[len(as)-1].code != codeOmitted { // the list stands last, and is rare
		return false
	}
	for _, code := range as[len(as)-1].value {
		if attributes[code].tag == t {
			return true
		}
	}
	return false
}

// elements appends the attributes as elements of a data set in explicit little
// endian.
func (as attrs) elements(to []dicom.Element) []dicom.Element {
	for _, a := range as {
		if a.code != codeOmitted {
			to = append(to, dicom.Element{Tag: attributes[a.code].tag, VR: attributes[a.code].vr, Value: a.value})
		}
	}
	return to
}
