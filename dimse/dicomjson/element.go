package dicomjson

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// NewElement returns an element with the values of a text or binary number VR,
// in explicit little endian and UTF-8, padded to even length. An empty string is
// an empty value. fault.Invalid for what the VR cannot hold: a number out of
// range, a backslash where it would divide values, values of a bulk VR.
func NewElement(t dict.Tag, vr dict.VR, values []string) (dicom.Element, error) {
	e := dicom.Element{Tag: t, VR: vr}
	if len(values) == 0 {
		return e, nil
	}
	switch {
	case vr.Text():
		if vr.Single() && len(values) > 1 {
			return e, fault.New(fault.Invalid, "dicomjson: %v holds one value, and has %d", t, len(values))
		}
		for _, v := range values {
			if !vr.Single() && strings.ContainsRune(v, '\\') {
				return e, fault.New(fault.Invalid, "dicomjson: backslash in a value of %v", t)
			}
		}
		joined := strings.Join(values, `\`)
		if vr == dict.IS && strings.ContainsAny(joined, ".eE") {
			integers := make([]string, len(values))
			for i, v := range values {
				integers[i] = integer(v)
			}
			joined = strings.Join(integers, `\`)
		}
		e.Value = pad([]byte(joined), vr)
		return e, nil
	case numberSize(vr) == 0:
		return e, fault.New(fault.Invalid, "dicomjson: %v of VR %v cannot have a Value", t, vr)
	}
	for _, v := range values {
		var err error
		if e.Value, err = appendBinary(e.Value, v, vr); err != nil {
			return e, fault.New(fault.Invalid, "dicomjson: a value of %v is no %v", t, vr)
		}
	}
	return e, nil
}

// pad makes a length even (PS3.5 §6.2).
func pad(v []byte, vr dict.VR) []byte {
	if len(v)%2 == 0 {
		return v
	}
	if vr == dict.UI || vr.Bulk() {
		return append(v, 0)
	}
	return append(v, ' ')
}

// appendBinary appends one binary number in little endian.
func appendBinary(b []byte, v string, vr dict.VR) ([]byte, error) {
	le := binary.LittleEndian
	switch vr {
	case dict.AT:
		t, ok := ParseTag(v)
		if !ok {
			return b, strconv.ErrSyntax
		}
		return le.AppendUint16(le.AppendUint16(b, t.Group()), t.Element()), nil
	case dict.FL:
		f, err := parseFloat(v)
		if err == nil && math.Abs(f) > math.MaxFloat32 && !math.IsInf(f, 0) {
			err = strconv.ErrRange
		}
		return le.AppendUint32(b, math.Float32bits(float32(f))), err
	case dict.FD:
		f, err := parseFloat(v)
		return le.AppendUint64(b, math.Float64bits(f)), err
	case dict.US, dict.UL, dict.UV:
		n, err := strconv.ParseUint(integer(v), 10, 8*numberSize(vr))
		return le.AppendUint64(b, n)[:len(b)+numberSize(vr)], err
	}
	n, err := strconv.ParseInt(integer(v), 10, 8*numberSize(vr))
	return le.AppendUint64(b, uint64(n))[:len(b)+numberSize(vr)], err
}

// integer writes a JSON number such as 1.0 or 1e3 that is an integer as one.
func integer(v string) string {
	if !strings.ContainsAny(v, ".eE") {
		return v
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxExact {
		return v
	}
	return strconv.FormatInt(int64(f), 10)
}

// parseFloat reads a number, NaN, or an infinity as writers spell it.
func parseFloat(v string) (float64, error) {
	switch v {
	case "NaN":
		return math.NaN(), nil
	case "inf", "Infinity", "+inf":
		return math.Inf(1), nil
	case "-inf", "-Infinity":
		return math.Inf(-1), nil
	}
	if strings.ContainsAny(v, "xX_pPnN") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(v, 64)
}
