package dicomjson

import (
	"encoding/binary"
	"math"
	"strconv"

	"pelago/dimse/dict"
)

// maxExact is the largest integer up to which a float64, and so JavaScript,
// holds every one.
const maxExact = 1 << 53

// numbers appends the Value of a binary number VR. A value whose length is no
// multiple of the number's loses what is left over.
func (e *encoder) numbers(v []byte, vr dict.VR, bigEndian bool) {
	size := numberSize(vr)
	if len(v) < size {
		return
	}
	e.b = append(e.b, `,"Value":[`...)
	for ; len(v) >= size; v = v[size:] {
		e.b = append(appendNumber(e.b, v, vr, bigEndian), ',')
	}
	e.b[len(e.b)-1] = ']'
}

// numberSize returns the bytes of one value of a binary number VR; 0 for others.
func numberSize(vr dict.VR) int {
	if vr == dict.AT {
		return 4
	}
	switch vr {
	case dict.US, dict.SS, dict.UL, dict.SL, dict.UV, dict.SV, dict.FL, dict.FD:
		return vr.Size()
	}
	return 0
}

// appendNumber appends the first value of v, which holds at least one.
func appendNumber(b, v []byte, vr dict.VR, bigEndian bool) []byte {
	var order binary.ByteOrder = binary.LittleEndian
	if bigEndian {
		order = binary.BigEndian
	}
	switch vr {
	case dict.US:
		return strconv.AppendUint(b, uint64(order.Uint16(v)), 10)
	case dict.SS:
		return strconv.AppendInt(b, int64(int16(order.Uint16(v))), 10)
	case dict.UL:
		return strconv.AppendUint(b, uint64(order.Uint32(v)), 10)
	case dict.SL:
		return strconv.AppendInt(b, int64(int32(order.Uint32(v))), 10)
	case dict.AT:
		b = append(b, '"')
		b = appendTag(b, dict.Tag(order.Uint16(v))<<16|dict.Tag(order.Uint16(v[2:])))
		return append(b, '"')
	case dict.FL:
		return appendFloat(b, float64(math.Float32frombits(order.Uint32(v))), 32)
	case dict.FD:
		return appendFloat(b, math.Float64frombits(order.Uint64(v)), 64)
	case dict.UV:
		n := order.Uint64(v)
		if n <= maxExact {
			return strconv.AppendUint(b, n, 10)
		}
		b = strconv.AppendUint(append(b, '"'), n, 10)
		return append(b, '"')
	}
	n := int64(order.Uint64(v)) // SV
	if -maxExact <= n && n <= maxExact {
		return strconv.AppendInt(b, n, 10)
	}
	b = strconv.AppendInt(append(b, '"'), n, 10)
	return append(b, '"')
}

// appendFloat appends the shortest digits that give f again.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"inf"`...)
	case math.IsInf(f, -1):
		return append(b, `"-inf"`...)
	case f == math.Trunc(f) && math.Abs(f) < 1e15:
		if f == 0 && math.Signbit(f) {
			return append(b, "-0.0"...)
		}
		return strconv.AppendInt(b, int64(f), 10)
	}
	return strconv.AppendFloat(b, f, 'g', -1, bits)
}

// maxIntegerDigits of an IS are written as a number: all that float64 holds.
// Valid ones have ten at most.
const maxIntegerDigits = 15

// appendIS appends an integer string (PS3.5 §6.2) as a number without + and
// leading zeros, or as the string it is.
func appendIS(b, v []byte) []byte {
	digits, negative := sign(v)
	if len(digits) == 0 || !allDigits(digits) {
		return appendString(b, v)
	}
	digits = trimZeros(digits)
	if len(digits) > maxIntegerDigits {
		return appendString(b, v)
	}
	if negative {
		b = append(b, '-')
	}
	return append(b, digits...)
}

// appendDS appends a decimal string (PS3.5 §6.2) as a number in the digits it
// came in, changed only where JSON's grammar (RFC 8259 §6) is narrower: +5, 05,
// .5 and 5. are 5, 5, 0.5 and 5. What is no number, or beyond float64, stays a
// string.
func appendDS(b, v []byte) []byte {
	rest, negative := sign(v)
	n := countDigits(rest)
	whole := rest[:n]
	rest = rest[n:]
	var fraction, exponent []byte
	if len(rest) > 0 && rest[0] == '.' {
		n = countDigits(rest[1:])
		fraction, rest = rest[1:1+n], rest[1+n:]
	}
	small := false
	if len(rest) > 1 && (rest[0] == 'e' || rest[0] == 'E') {
		exponent, small = sign(rest[1:])
		n = countDigits(exponent)
		if exponent, rest = trimZeros(exponent[:n]), exponent[n:]; n == 0 || len(exponent) > 2 {
			return appendString(b, v)
		}
	}
	if len(rest) > 0 || len(whole)+len(fraction) == 0 || len(v) > 64 {
		return appendString(b, v)
	}
	if negative {
		b = append(b, '-')
	}
	if whole = trimZeros(whole); len(whole) == 0 {
		b = append(b, '0')
	}
	b = append(b, whole...)
	if len(fraction) > 0 {
		b = append(append(b, '.'), fraction...)
	}
	if len(exponent) > 0 {
		b = append(b, 'e')
		if small {
			b = append(b, '-')
		}
	}
	return append(b, exponent...)
}

// sign cuts a leading + or - off.
func sign(v []byte) (rest []byte, negative bool) {
	if len(v) > 0 && (v[0] == '+' || v[0] == '-') {
		return v[1:], v[0] == '-'
	}
	return v, false
}

func countDigits(v []byte) int {
	n := 0
	for n < len(v) && v[n] >= '0' && v[n] <= '9' {
		n++
	}
	return n
}

func allDigits(v []byte) bool { return countDigits(v) == len(v) }

// trimZeros removes leading zeros but the last digit.
func trimZeros(v []byte) []byte {
	for len(v) > 1 && v[0] == '0' {
		v = v[1:]
	}
	return v
}

// AppendLittleEndian appends a value in little endian, which is how binary
// values are given outside DICOM (PS3.18 F.2.7, PS3.19 A.1.6): swapped by the
// number size of its VR if it comes from a big endian syntax. UN and OB are
// never swapped.
func AppendLittleEndian(dst, value []byte, vr dict.VR, syntax dict.TransferSyntax) []byte {
	size := vr.Size()
	start := len(dst)
	dst = append(dst, value...)
	if !syntax.BigEndian || size < 2 {
		return dst
	}
	for v := dst[start:]; len(v) >= size; v = v[size:] {
		for i, j := 0, size-1; i < j; i, j = i+1, j-1 {
			v[i], v[j] = v[j], v[i]
		}
	}
	return dst
}
