package dicom

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"pelago/dimse/dict"
)

// String returns the first value of a text attribute in UTF-8, without padding;
// "" when absent.
func (d *Dataset) String(t dict.Tag) string {
	e := d.Get(t)
	if e == nil || len(e.Value) == 0 {
		return ""
	}
	values := d.Strings(t)
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// Strings returns all values of a text attribute in UTF-8: decoded first, then
// split on backslash (PS3.5 §6.1.2.3), leading and trailing padding removed as
// the VR says. Binary numbers are formatted in decimal, AT as GGGGEEEE. Nil
// when the attribute is absent, empty, cut, a sequence or bulk. Bytes that the
// character set cannot hold become U+FFFD.
func (d *Dataset) Strings(t dict.Tag) []string {
	e := d.Get(t)
	if e == nil {
		return nil
	}
	// The error only tells of the replacement, which the contract names.
	values, _ := d.ElementStrings(e)
	return values
}

// ElementStrings returns the strings of an element of this data set, as
// [Dataset.Strings]. The error tells of bytes that the character set cannot
// hold; the values then have U+FFFD.
func (d *Dataset) ElementStrings(e *Element) ([]string, error) {
	vr, big := e.meaning(d)
	if len(e.Value) == 0 {
		return nil, nil
	}
	if !vr.Text() {
		return numbers(e.Value, vr, big), nil
	}
	charset := d.Charset
	if charset == nil {
		charset = defaultCharset
	}
	text, err := charset.Decode(e.Value, vr)
	var values []string
	if vr.Single() {
		values = []string{trim(text, vr)}
	} else if strings.IndexByte(text, '\\') < 0 {
		values = []string{trim(text, vr)}
	} else {
		values = strings.Split(text, `\`)
		for i := range values {
			values[i] = trim(values[i], vr)
		}
	}
	if len(values) == 1 && values[0] == "" {
		values = nil // nothing but padding
	}
	return values, err
}

// meaning returns the VR by which a value is to be understood and whether it is
// big endian: a UN whose tag is in the dictionary has that VR, in little endian
// (PS3.5 §6.2.2).
func (e *Element) meaning(d *Dataset) (vr dict.VR, big bool) {
	if e.VR == dict.UN {
		return dict.ImplicitVR(e.Tag, d.signed()), false
	}
	return e.VR, d.Syntax.BigEndian
}

// signed reports whether Pixel Representation says so in this data set.
func (d *Dataset) signed() bool {
	e := d.Get(dict.PixelRepresentation)
	return e != nil && len(e.Value) >= 2 && order(d.Syntax.BigEndian).Uint16(e.Value) == 1
}

// trim removes the padding that is not significant (PS3.5 Table 6.2-1).
// Null bytes are taken for padding in every VR: many writers use them.
func trim(s string, vr dict.VR) string {
	s = strings.TrimRight(s, " \x00")
	switch vr {
	case dict.AE, dict.CS, dict.DS, dict.IS, dict.LO, dict.SH, dict.UI:
		s = strings.TrimLeft(s, " \x00")
	}
	return s
}

// numbers formats binary values; nil for bulk.
func numbers(b []byte, vr dict.VR, big bool) []string {
	switch vr {
	case dict.AT, dict.FL, dict.FD, dict.SL, dict.SS, dict.SV, dict.UL, dict.US, dict.UV:
	default:
		return nil
	}
	size := vr.Size()
	if vr == dict.AT {
		size = 4
	}
	values := make([]string, 0, len(b)/size)
	for ; len(b) >= size; b = b[size:] {
		values = append(values, number(b, vr, order(big)))
	}
	return values
}

func number(b []byte, vr dict.VR, o binary.ByteOrder) string {
	switch vr {
	case dict.AT:
		return fmt.Sprintf("%04X%04X", o.Uint16(b), o.Uint16(b[2:]))
	case dict.FL:
		return strconv.FormatFloat(float64(math.Float32frombits(o.Uint32(b))), 'g', -1, 32)
	case dict.FD:
		return strconv.FormatFloat(math.Float64frombits(o.Uint64(b)), 'g', -1, 64)
	case dict.UV:
		return strconv.FormatUint(o.Uint64(b), 10)
	}
	v, _ := integer(b, vr, o)
	return strconv.FormatInt(v, 10)
}

// integer reads the first binary integer.
func integer(b []byte, vr dict.VR, o binary.ByteOrder) (int64, bool) {
	if n := vr.Size(); len(b) < n {
		return 0, false
	}
	switch vr {
	case dict.US:
		return int64(o.Uint16(b)), true
	case dict.SS:
		return int64(int16(o.Uint16(b))), true
	case dict.UL:
		return int64(o.Uint32(b)), true
	case dict.SL:
		return int64(int32(o.Uint32(b))), true
	case dict.SV:
		return int64(o.Uint64(b)), true
	case dict.UV:
		v := o.Uint64(b)
		return int64(v), v <= math.MaxInt64
	}
	return 0, false
}

// Int returns the first value of US, SS, UL, SL, UV, SV or IS; false when it is
// absent, empty, no integer, or too large for an int64.
func (d *Dataset) Int(t dict.Tag) (int64, bool) {
	e := d.Get(t)
	if e == nil {
		return 0, false
	}
	vr, big := e.meaning(d)
	if vr != dict.IS {
		return integer(e.Value, vr, order(big))
	}
	s, _, _ := strings.Cut(string(e.Value), `\`)
	s = strings.Trim(s, " \x00")
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v, true
	}
	// Some writers put a decimal string where an integer is due.
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}
