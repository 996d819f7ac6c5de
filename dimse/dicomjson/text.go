package dicomjson

import (
	"bytes"
	"unicode/utf8"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// utf8Term is the defined term of UTF-8 (PS3.3 C.12.1.1.2).
const utf8Term = "ISO_IR 192"

// text appends the Value of a text VR; none if there is nothing but padding.
func (e *encoder) text(ds *dicom.Dataset, el *dicom.Element, vr dict.VR) {
	if el.Tag == dict.SpecificCharacterSet { // all terms, and none, are one now
		e.b = append(e.b, `,"Value":["`+utf8Term+`"]`...)
		return
	}
	text := textOf(ds, el, vr)
	if isEmpty(trim(text, vr), vr) {
		return
	}
	e.b = append(e.b, `,"Value":[`...)
	if vr.Single() {
		e.b = append(appendString(e.b, trim(text, vr)), ']')
		return
	}
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			e.b = append(appendValue(e.b, trim(text, vr), vr), ']')
			return
		}
		e.b = append(appendValue(e.b, trim(text[:i], vr), vr), ',')
		text = text[i+1:]
	}
}

// appendValue appends one value of a text VR.
func appendValue(b, v []byte, vr dict.VR) []byte {
	if len(v) == 0 {
		return append(b, "null"...)
	}
	switch vr {
	case dict.PN:
		return appendName(b, v)
	case dict.IS:
		return appendIS(b, v)
	case dict.DS:
		return appendDS(b, v)
	}
	return appendString(b, v)
}

// isEmpty reports whether a trimmed value says nothing.
func isEmpty(v []byte, vr dict.VR) bool {
	return len(v) == 0 || vr == dict.PN && len(bytes.Trim(v, "^= ")) == 0
}

// appendName appends a person name as an object of its component groups
// (PS3.18 F.2.2) without the delimiters at their ends; null if all are empty.
func appendName(b, v []byte) []byte {
	start := len(b)
	b = append(b, '{')
	for _, group := range [...]string{"Alphabetic", "Ideographic", "Phonetic"} {
		part, rest, more := bytes.Cut(v, []byte{'='})
		if group == "Phonetic" {
			part, more = v, false // a fourth group would be the name's own mistake
		}
		if part = bytes.TrimRight(part, " ^"); len(part) > 0 {
			b = append(b, '"')
			b = append(b, group...)
			b = append(b, `":`...)
			b = append(appendString(b, part), ',')
		}
		if v = rest; !more {
			break
		}
	}
	if b[len(b)-1] == '{' {
		return append(b[:start], "null"...)
	}
	b[len(b)-1] = '}'
	return b
}

// textOf returns a value in UTF-8, not yet split: the value itself where its
// bytes mean the same in every character set, or are UTF-8.
func textOf(ds *dicom.Dataset, el *dicom.Element, vr dict.VR) []byte {
	if !vr.Extended() || ds.Charset == nil || isPlain(el.Value) {
		return el.Value
	}
	if terms := ds.Charset.Terms(); len(terms) == 1 && terms[0] == utf8Term {
		return el.Value
	}
	s, _ := ds.Charset.Decode(el.Value, vr) // what cannot be decoded is U+FFFD
	return []byte(s)
}

// isPlain reports whether bytes are ASCII without escape sequences.
func isPlain(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf || c == 0x1B {
			return false
		}
	}
	return true
}

// trim removes padding (PS3.5 §6.2): trailing spaces and nulls, and leading
// spaces where they mean nothing.
func trim(v []byte, vr dict.VR) []byte {
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == 0) {
		v = v[:len(v)-1]
	}
	switch vr {
	case dict.LT, dict.PN, dict.ST, dict.UC, dict.UR, dict.UT:
		return v
	}
	for len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	return v
}

// appendString appends a JSON string. Bytes that are no UTF-8 become U+FFFD.
func appendString(b, s []byte) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			b = append(append(b, s[start:i]...), "\uFFFD"...)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
