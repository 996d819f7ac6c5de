package dicomjson

import (
	"strings"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Values returns the values of a text or binary number VR in UTF-8, as the model
// has them but none changed into JSON: without padding, IS and DS in their own
// digits, floats as the shortest digits that give them again or NaN, inf, -inf.
// It is nil if there is nothing but padding.
func Values(ds *dicom.Dataset, el *dicom.Element) []string {
	vr, bigEndian := Meaning(ds, el)
	if size := numberSize(vr); size > 0 {
		var values []string
		for v := el.Value; len(v) >= size; v = v[size:] {
			var room [32]byte
			values = append(values, strings.Trim(string(appendNumber(room[:0], v, vr, bigEndian)), `"`))
		}
		return values
	}
	if !vr.Text() {
		return nil
	}
	if el.Tag == dict.SpecificCharacterSet {
		return []string{utf8Term}
	}
	text := textOf(ds, el, vr)
	if isEmpty(trim(text, vr), vr) {
		return nil
	}
	if vr.Single() {
		return []string{string(trim(text, vr))}
	}
	values := strings.Split(string(text), `\`)
	for i, v := range values {
		values[i] = string(trim([]byte(v), vr))
	}
	return values
}
