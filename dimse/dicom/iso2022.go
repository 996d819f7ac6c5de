package dicom

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"

	"pelago/dimse/dict"
)

const escape = 0x1B

// resets reports whether a character is a delimiter at which the initial code
// elements are active again (PS3.5 §6.1.2.5.3).
func resets(r rune, vr dict.VR) bool {
	switch r {
	case '\t', '\n', '\f', '\r':
		return true
	case '\\':
		return !vr.Single()
	case '^', '=':
		return vr == dict.PN
	}
	return false
}

// decoder2022 decodes one value.
type decoder2022 struct {
	c      *Charset
	vr     dict.VR
	g0, g1 codeSet
	out    strings.Builder
	bad    bool
}

func (d *decoder2022) decode(b []byte) (string, error) {
	d.out.Grow(2 * len(b))
	d.g0, d.g1 = d.c.g0, d.c.g1
	for len(b) > 0 {
		switch c := b[0]; {
		case c == escape:
			b = d.escape(b)
		case c >= 0x80:
			b = d.upper(b)
		case c > 0x20 && c < 0x7F && codeSets[d.g0].width == 2:
			b = d.pairs(b, d.g0, 0x21, 0x7E)
		default:
			d.lower(c)
			b = b[1:]
		}
	}
	if d.bad {
		return d.out.String(), errUndecodable
	}
	return d.out.String(), nil
}

func (d *decoder2022) invalid() {
	d.bad = true
	d.out.WriteRune(utf8.RuneError)
}

// escape obeys an escape sequence. One that is unknown is dropped.
func (d *decoder2022) escape(b []byte) []byte {
	s, n := invoked(b[1:])
	if n == 0 {
		d.bad = true
		return b[1:]
	}
	if codeSets[s].g1 {
		d.g1 = s
	} else {
		d.g0 = s
	}
	return b[1+n:]
}

// lower decodes a byte of G0 that is one character, or a control character.
func (d *decoder2022) lower(c byte) {
	r := rune(c)
	if resets(r, d.vr) {
		d.g0 = d.c.g0
		if d.c.g1 != noSet {
			d.g1 = d.c.g1
		}
		// Without an initial G1 the last one stays: many writers do not invoke
		// it again after a delimiter, and its bytes mean nothing else.
	} else if d.g0 == romaji {
		switch r {
		case '\\':
			r = '¥'
		case '~':
			r = '‾'
		}
	}
	d.out.WriteRune(r)
}

// upper decodes bytes of G1.
func (d *decoder2022) upper(b []byte) []byte {
	c := b[0]
	def := &codeSets[d.g1]
	switch {
	case d.g1 == katakana && c >= 0xA1 && c <= 0xDF:
		d.out.WriteRune(0xFF61 + rune(c-0xA1))
	case d.g1 == katakana && len(b) > 1:
		// Shift JIS, which some writers send as ISO_IR 13.
		if text, err := japanese.ShiftJIS.NewDecoder().Bytes(b[:2]); err == nil && string(text) != "\uFFFD" && utf8.RuneCount(text) == 1 {
			d.out.Write(text)
			return b[2:]
		}
		d.invalid()
	case def.width == 2:
		return d.pairs(b, d.g1, 0xA1, 0xFE)
	case def.table != nil && c >= 0xA0:
		r := def.table.DecodeByte(c)
		d.bad = d.bad || r == utf8.RuneError
		d.out.WriteRune(r)
	default:
		d.invalid()
	}
	return b[1:]
}

// pairs decodes characters of two bytes, each between lo and hi, as long as
// there are any.
func (d *decoder2022) pairs(b []byte, s codeSet, lo, hi byte) []byte {
	var euc []byte
	n := 0
	for n+1 < len(b) && b[n] >= lo && b[n] <= hi && b[n+1] >= lo && b[n+1] <= hi {
		if s == jisX0212 {
			euc = append(euc, 0x8F)
		}
		euc = append(euc, b[n]|0x80, b[n+1]|0x80)
		n += 2
	}
	if n == 0 {
		d.invalid()
		return b[1:]
	}
	text, err := multiByte(s).NewDecoder().Bytes(euc)
	if err != nil {
		d.invalid()
		return b[n:]
	}
	d.bad = d.bad || strings.ContainsRune(string(text), utf8.RuneError)
	d.out.Write(text)
	return b[n:]
}

// multiByte returns the encoding that holds a set of two-byte characters.
func multiByte(s codeSet) encoding.Encoding {
	switch s {
	case ksX1001:
		return korean.EUCKR
	case gb2312:
		return simplifiedchinese.GBK
	}
	return japanese.EUCJP
}

// encoder2022 encodes one value.
type encoder2022 struct {
	c      *Charset
	vr     dict.VR
	g0, g1 codeSet
	out    []byte
	failed error
}

func (e *encoder2022) encode(s string) ([]byte, error) {
	for _, r := range s {
		if resets(r, e.vr) {
			e.restore()
			e.out = append(e.out, byte(r))
			continue
		}
		e.rune(r)
	}
	e.restore()
	return e.out, e.failed
}

// restore makes the initial code elements active, as they are to be before
// every delimiter and at the end.
func (e *encoder2022) restore() {
	if e.g0 != e.c.g0 {
		e.invoke(e.c.g0)
	}
	if e.g1 != e.c.g1 {
		if e.c.g1 != noSet {
			e.invoke(e.c.g1)
		}
		e.g1 = e.c.g1 // where there is none, the next use invokes it again
	}
}

func (e *encoder2022) invoke(s codeSet) {
	e.out = append(e.out, escape)
	e.out = append(e.out, codeSets[s].escape...)
	if codeSets[s].g1 {
		e.g1 = s
	} else {
		e.g0 = s
	}
}

// rune encodes a character in the sets that are active, else in the first that
// has it.
func (e *encoder2022) rune(r rune) {
	for _, s := range [...]codeSet{e.g0, e.g1} {
		if e.put(s, r) {
			return
		}
	}
	if r < 0x80 && e.g0 != e.c.g0 {
		e.invoke(e.c.g0)
		if e.put(e.c.g0, r) {
			return
		}
	}
	if e.c.extended {
		for _, s := range append([]codeSet{ascii}, e.c.sets...) {
			if _, ok := encodeRune(s, r); ok {
				e.invoke(s)
				e.put(s, r)
				return
			}
		}
	}
	e.failed = errUnencodable
	if codeSets[e.g0].width != 1 {
		e.invoke(e.c.g0)
	}
	e.out = append(e.out, '?')
}

func (e *encoder2022) put(s codeSet, r rune) bool {
	b, ok := encodeRune(s, r)
	if ok {
		e.out = append(e.out, b...)
	}
	return ok
}

// encodeRune returns the bytes of a character in a set.
func encodeRune(s codeSet, r rune) ([]byte, bool) {
	def := &codeSets[s]
	switch {
	case s == noSet || r == utf8.RuneError:
		return nil, false
	case s == ascii:
		return []byte{byte(r)}, r < 0x80 && r != escape
	case s == romaji:
		switch r {
		case '¥':
			return []byte{'\\'}, true
		case '‾':
			return []byte{'~'}, true
		}
		return []byte{byte(r)}, r < 0x80 && r != escape && r != '\\' && r != '~'
	case s == katakana:
		return []byte{byte(r - 0xFF61 + 0xA1)}, r >= 0xFF61 && r <= 0xFF9F
	case def.table != nil:
		b, ok := def.table.EncodeRune(r)
		return []byte{b}, ok && b >= 0xA0
	}
	return encodePair(s, r)
}

// encodePair returns the two bytes of a character of a multi-byte set.
func encodePair(s codeSet, r rune) ([]byte, bool) {
	if r < 0x80 {
		return nil, false
	}
	b, err := multiByte(s).NewEncoder().Bytes([]byte(string(r)))
	if err != nil {
		return nil, false
	}
	if s == jisX0212 {
		if len(b) != 3 || b[0] != 0x8F {
			return nil, false
		}
		b = b[1:]
	}
	// The encodings hold more than the set: bytes outside the 94 × 94 square
	// are extensions.
	if len(b) != 2 || b[0] < 0xA1 || b[1] < 0xA1 || b[0] == 0xFF || b[1] == 0xFF || s == gb2312 && b[0] > 0xF7 {
		return nil, false
	}
	if !codeSets[s].g1 {
		b = []byte{b[0] &^ 0x80, b[1] &^ 0x80}
	}
	return b, true
}
