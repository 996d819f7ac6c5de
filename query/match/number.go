package match

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// numberTest matches US, SS, UL, SL, UV, SV, AT, FL and FD by value. Integers
// are compared as their 64 bits, floats as float64.
type numberTest struct {
	vr     dict.VR
	ints   []int64
	floats []float64
}

// numberSize returns the bytes of one value of a binary number VR, else 0.
func numberSize(vr dict.VR) int {
	switch vr {
	case dict.US, dict.SS:
		return 2
	case dict.UL, dict.SL, dict.AT, dict.FL:
		return 4
	case dict.UV, dict.SV, dict.FD:
		return 8
	}
	return 0
}

func compileNumbers(r *rule, keys *dicom.Dataset, el *dicom.Element) error {
	if len(el.Value) == 0 {
		return nil
	}
	size := numberSize(r.key.VR)
	if len(el.Value)%size != 0 || len(el.Value) > size*maxValues {
		return fault.New(fault.Mismatch, "match: length of key %v does not fit %v", el.Tag, r.key.VR)
	}
	t := &numberTest{vr: r.key.VR}
	for at := 0; at < len(el.Value); at += size {
		i, f := number(el.Value[at:at+size], r.key.VR, keys.Syntax.BigEndian)
		var text string
		switch r.key.VR {
		case dict.FL, dict.FD:
			t.floats = append(t.floats, f)
			text = strconv.FormatFloat(f, 'g', -1, 64)
		case dict.AT:
			t.ints = append(t.ints, i)
			text = formatTag(i)
		case dict.UV:
			t.ints = append(t.ints, i)
			text = strconv.FormatUint(uint64(i), 10)
		default:
			t.ints = append(t.ints, i)
			text = strconv.FormatInt(i, 10)
		}
		r.key.Values = append(r.key.Values, text)
	}
	r.test, r.key.Kind = t, List
	if len(r.key.Values) == 1 {
		r.key.Kind = Single
	}
	return nil
}

func formatTag(v int64) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 8)
	for i := range b {
		b[i] = hex[v>>(28-4*i)&15]
	}
	return string(b)
}

// number decodes one value: integers to i, floats to f.
func number(b []byte, vr dict.VR, bigEndian bool) (i int64, f float64) {
	var order binary.ByteOrder = binary.LittleEndian
	if bigEndian {
		order = binary.BigEndian
	}
	switch vr {
	case dict.US:
		return int64(order.Uint16(b)), 0
	case dict.SS:
		return int64(int16(order.Uint16(b))), 0
	case dict.UL:
		return int64(order.Uint32(b)), 0
	case dict.SL:
		return int64(int32(order.Uint32(b))), 0
	case dict.AT:
		return int64(order.Uint16(b))<<16 | int64(order.Uint16(b[2:])), 0
	case dict.FL:
		return 0, float64(math.Float32frombits(order.Uint32(b)))
	case dict.FD:
		return 0, math.Float64frombits(order.Uint64(b))
	}
	return int64(order.Uint64(b)), 0
}

func (t *numberTest) match(c candidate, el *dicom.Element) bool {
	vr := el.VR
	size := numberSize(vr)
	if size == 0 || (vr == dict.FL || vr == dict.FD) != (t.floats != nil) {
		vr, size = t.vr, numberSize(t.vr) // UN, or a VR that holds something else
	}
	bigEndian := c.ds.Syntax.BigEndian && el.VR != dict.UN // UN never is (PS3.5 §6.2.2)
	for v := el.Value; len(v) >= size; v = v[size:] {
		i, f := number(v[:size], vr, bigEndian)
		if t.floats != nil {
			if slices.Contains(t.floats, f) {
				return true
			}
		} else if slices.Contains(t.ints, i) {
			return true
		}
	}
	return false
}

// decimalTest matches IS and DS by value; what is no number, as text.
type decimalTest struct {
	vr    dict.VR
	exact []string
	nums  []float64
}

func compileDecimals(r *rule, values []string) {
	t := &decimalTest{vr: r.key.VR}
	for i, v := range values {
		f, ok := decimal([]byte(v))
		if !ok {
			t.exact = append(t.exact, v)
			continue
		}
		t.nums = append(t.nums, f)
		values[i] = strconv.FormatFloat(f, 'g', -1, 64)
	}
	r.test, r.key.Values, r.key.Kind = t, values, List
	if len(values) == 1 {
		r.key.Kind = Single
	}
}

func (t *decimalTest) match(_ candidate, el *dicom.Element) bool {
	return eachValue(el.Value, t.vr, func(v []byte) bool {
		if f, ok := decimal(v); ok && slices.Contains(t.nums, f) {
			return true
		}
		for _, s := range t.exact {
			if string(v) == s {
				return true
			}
		}
		return false
	})
}

// decimal reads IS and DS. Up to 15 digits are exact in a float64 and need no
// string; anything else goes the long way.
func decimal(v []byte) (float64, bool) {
	b, negative := v, false
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		negative = b[0] == '-'
		b = b[1:]
	}
	var mantissa int64
	places, point, seen := 0, false, 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9' && seen < 15:
			mantissa = mantissa*10 + int64(c-'0')
			seen++
			if point {
				places++
			}
		case c == '.' && !point:
			point = true
		default:
			return longDecimal(v)
		}
	}
	if seen == 0 {
		return 0, false
	}
	f := float64(mantissa) / pow10(places)
	if negative {
		f = -f
	}
	return f, true
}

func pow10(n int) float64 {
	p := 1.0
	for range n {
		p *= 10
	}
	return p
}

func longDecimal(v []byte) (float64, bool) {
	for _, c := range v { // no hexadecimal, underscores, Inf or NaN
		if (c < '0' || c > '9') && c != '.' && c != '+' && c != '-' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil
}
