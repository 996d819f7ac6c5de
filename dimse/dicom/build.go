package dicom

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"pelago/dimse/dict"
)

// NewDataset returns an empty data set in explicit little endian whose
// character set is ISO_IR 192. The element (0008,0005) that says so is put by
// [Dataset.Set] with the first value that needs it, so that command sets and
// plain items stay without.
func NewDataset() *Dataset {
	syntax, _ := dict.Syntax(dict.ExplicitLittleEndian)
	return &Dataset{Syntax: syntax, Charset: utf8Charset}
}

// Set puts values given as text, in tag order; it replaces an element of the
// same tag. With no value the element is empty. Text is encoded in the data
// set's character set; what that cannot hold becomes a question mark. Numbers
// of binary VRs are given in decimal and AT as GGGGEEEE; what is no such number
// leaves the element empty. Setting (0008,0005) changes how later values are
// encoded, not those that are there: see [Dataset.Recode].
func (d *Dataset) Set(t dict.Tag, vr dict.VR, values ...string) {
	e := Element{Tag: t, VR: vr}
	switch {
	case vr.Text():
		e.Value = d.text(strings.Join(values, `\`), vr)
	case len(values) > 0:
		e.Value = binaryValues(values, vr, order(d.Syntax.BigEndian))
	}
	d.Put(e)
}

// text encodes a value and pads it to even length.
func (d *Dataset) text(s string, vr dict.VR) []byte {
	charset := d.Charset
	if charset == nil {
		charset = defaultCharset
	}
	if vr.Extended() && !isASCII(s) && !d.Has(dict.SpecificCharacterSet) && charset == utf8Charset {
		d.Put(Element{Tag: dict.SpecificCharacterSet, VR: dict.CS, Value: []byte("ISO_IR 192")})
	}
	// The error tells of question marks, which the contract names.
	b, _ := charset.Encode(s, vr)
	return pad(b, vr)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// pad appends the padding byte of the VR (PS3.5 §6.2) to an odd value.
func pad(b []byte, vr dict.VR) []byte {
	if len(b)&1 == 1 {
		b = append(b, padding(vr))
	}
	return b
}

// padding is the byte that makes a value of odd length even.
func padding(vr dict.VR) byte {
	if vr.Text() && vr != dict.UI {
		return ' '
	}
	return 0
}

func binaryValues(values []string, vr dict.VR, o binary.ByteOrder) []byte {
	var b []byte
	for _, v := range values {
		var err error
		switch vr {
		case dict.FL, dict.OF:
			var f float64
			f, err = strconv.ParseFloat(v, 32)
			b = appendUint(b, uint64(math.Float32bits(float32(f))), 4, o)
		case dict.FD, dict.OD:
			var f float64
			f, err = strconv.ParseFloat(v, 64)
			b = appendUint(b, math.Float64bits(f), 8, o)
		case dict.AT:
			var n uint64
			n, err = strconv.ParseUint(v, 16, 32)
			b = appendUint(appendUint(b, n>>16, 2, o), n, 2, o)
		case dict.SL, dict.SS, dict.SV:
			var n int64
			n, err = strconv.ParseInt(v, 10, 8*vr.Size())
			b = appendUint(b, uint64(n), vr.Size(), o)
		case dict.UL, dict.US, dict.UV:
			var n uint64
			n, err = strconv.ParseUint(v, 10, 8*vr.Size())
			b = appendUint(b, n, vr.Size(), o)
		default:
			return nil
		}
		if err != nil {
			return nil
		}
	}
	return b
}

func appendUint(b []byte, v uint64, size int, o binary.ByteOrder) []byte {
	var full [8]byte
	switch size {
	case 2:
		o.PutUint16(full[:], uint16(v))
	case 4:
		o.PutUint32(full[:], uint32(v))
	default:
		o.PutUint64(full[:], v)
	}
	return append(b, full[:size]...)
}

// SetUint puts US, UL, UV, or AT values; the upper bits that the VR has no room
// for are dropped.
func (d *Dataset) SetUint(t dict.Tag, vr dict.VR, values ...uint64) {
	o := order(d.Syntax.BigEndian)
	var b []byte
	for _, v := range values {
		if vr == dict.AT {
			b = appendUint(appendUint(b, v>>16, 2, o), v, 2, o)
		} else {
			b = appendUint(b, v, vr.Size(), o)
		}
	}
	d.Put(Element{Tag: t, VR: vr, Value: b})
}

// SetSequence puts a sequence.
func (d *Dataset) SetSequence(t dict.Tag, items ...*Dataset) {
	d.Put(Element{Tag: t, VR: dict.SQ, Items: items})
}
