package match

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// textTest matches text with case, or without it for free text.
type textTest struct {
	vr    dict.VR
	exact []string // ascending
	globs []glob
	fold  bool
}

func compileText(r *rule, values []string, options Options) error {
	t := &textTest{vr: r.key.VR, fold: options.FoldText && isFreeText(r.key.Tag, r.key.VR)}
	for i, v := range values {
		if t.fold {
			v = FoldText(v)
			values[i] = v
		}
		if !hasWildcards(r.key.VR) || !strings.ContainsAny(v, "*?") {
			t.exact = append(t.exact, v)
			continue
		}
		if len(v) > maxPattern {
			return fault.New(fault.Mismatch, "match: pattern of key %v is longer than %d bytes", r.key.Tag, maxPattern)
		}
		t.globs = append(t.globs, newGlob(v))
	}
	slices.Sort(t.exact)
	r.test, r.key.Values = t, values
	r.key.Kind = kindOf(len(t.exact), len(t.globs))
	return nil
}

// kindOf returns the kind of a text key with so many plain values and patterns.
func kindOf(exact, globs int) Kind {
	switch {
	case exact == 1 && globs == 0:
		return Single
	case globs == 0:
		return List
	case exact == 0 && globs == 1:
		return Wildcard
	}
	return Mixed
}

// hasWildcards reports whether * and ? are wildcards in keys of the VR
// (PS3.4 C.2.2.2.4). Attributes of unknown VR are searched as text.
func hasWildcards(vr dict.VR) bool {
	switch vr {
	case dict.AE, dict.CS, dict.LO, dict.LT, dict.PN, dict.SH, dict.ST, dict.UC, dict.UR, dict.UT, dict.UN:
		return true
	}
	return false
}

func (t *textTest) match(c candidate, el *dicom.Element) bool {
	return eachValue(textOf(c.ds, el, t.vr), t.vr, t.matchValue)
}

func (t *textTest) matchValue(v []byte) bool {
	if len(v) == 0 {
		return false
	}
	if t.fold {
		var room [128]byte
		v = appendFoldText(room[:0], v)
	}
	if len(t.exact) == 1 {
		if string(v) == t.exact[0] {
			return true
		}
	} else if len(t.exact) > 1 {
		lo, hi := 0, len(t.exact)
		for lo < hi { // not sort.Find, whose closure would move v to the heap
			mid := (lo + hi) / 2
			switch {
			case t.exact[mid] == string(v):
				return true
			case t.exact[mid] < string(v):
				lo = mid + 1
			default:
				hi = mid
			}
		}
	}
	for i := range t.globs {
		if t.globs[i].match(v) {
			return true
		}
	}
	return false
}

// textOf returns an element's value in UTF-8, not yet split. It is the value
// itself where the bytes mean the same in every character set, or are UTF-8.
func textOf(ds *dicom.Dataset, el *dicom.Element, vr dict.VR) []byte {
	if isPlain(el.Value) || ds.Charset == nil || !vr.Extended() && vr != dict.UN {
		return el.Value
	}
	if terms := ds.Charset.Terms(); len(terms) == 1 && terms[0] == "ISO_IR 192" && utf8.Valid(el.Value) {
		return el.Value
	}
	if vr == dict.UN {
		vr = dict.LO
	}
	s, _ := ds.Charset.Decode(el.Value, vr) // what cannot be decoded is U+FFFD, which no key equals
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

// eachValue calls fn with each value, without its padding, until it returns
// true, and reports whether it did.
func eachValue(text []byte, vr dict.VR, fn func([]byte) bool) bool {
	if vr.Single() {
		return fn(trim(text, vr))
	}
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return fn(trim(text, vr))
		}
		if fn(trim(text[:i], vr)) {
			return true
		}
		text = text[i+1:]
	}
}

// trim removes padding (PS3.5 §6.2): trailing spaces and nulls, and leading
// spaces where they mean nothing.
func trim(v []byte, vr dict.VR) []byte {
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == 0) {
		v = v[:len(v)-1]
	}
	switch vr {
	case dict.LT, dict.ST, dict.UC, dict.UR, dict.UT:
		return v
	}
	for len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	return v
}

// isFreeText reports whether an attribute is prose, whose case a person who
// searches does not know: all LT, ST and UT, and the descriptions, comments and
// reasons of other VRs. Identifiers such as Patient ID never are.
func isFreeText(t dict.Tag, vr dict.VR) bool {
	switch vr {
	case dict.LT, dict.ST, dict.UT:
		return true
	case dict.LO, dict.SH, dict.UC:
	default:
		return false
	}
	e, ok := dict.Lookup(t)
	if !ok {
		return false
	}
	for _, word := range [...]string{"Description", "Comment", "Reason", "History", "CodeMeaning", "ProtocolName"} {
		if strings.Contains(e.Keyword, word) {
			return true
		}
	}
	return false
}

// FoldText returns free text as keys with Options.FoldText compare it: upper
// case, accents kept.
func FoldText(s string) string { return string(appendFoldText(nil, []byte(s))) }

func appendFoldText(dst, s []byte) []byte {
	if !isPlain(s) {
		return append(dst, strings.ToUpper(string(s))...)
	}
	for _, c := range s {
		dst = append(dst, upper(c))
	}
	return dst
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}
