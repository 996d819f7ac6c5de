package dicom

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// Charset decodes and encodes text by (0008,0005) (PS3.3 C.12.1.1.2, PS3.5
// §6.1). It is immutable.
type Charset struct {
	terms []string
	form  form

	// Code elements of ISO 2022: what G0 and G1 hold at the start of a value
	// and after every delimiter, and what may be invoked besides.
	g0, g1   codeSet
	extended bool
	sets     []codeSet
}

// form tells by which rules bytes are characters.
type form uint8

const (
	iso2022 form = iota // single byte, with or without code extensions
	unicode8
	gb18030
	gbk
)

// The charsets that nearly all data sets use, shared because they never change.
var (
	defaultCharset = &Charset{g0: ascii}
	latin1Charset  = &Charset{terms: []string{"ISO_IR 100"}, g0: ascii, g1: latin1, sets: []codeSet{latin1}}
	utf8Charset    = &Charset{terms: []string{"ISO_IR 192"}, form: unicode8}
)

// NewCharset returns the character set of the defined terms; unknown terms are
// an error and the charset returned decodes as the default repertoire. Terms
// that are misspelled in a known way (ISO-IR 100, ISO IR 100, latin1, UTF8,
// ISO_IR 6…) are taken for what they mean. No term at all, or an empty first
// one, is the default repertoire.
func NewCharset(terms []string) (*Charset, error) {
	c := &Charset{terms: append([]string(nil), terms...), g0: ascii, extended: len(terms) > 1}
	for i, term := range terms {
		t, ok := lookupTerm(term)
		if !ok {
			return &Charset{terms: c.terms, g0: ascii}, fault.New(fault.Unsupported, "dicom: unknown specific character set, value %d", i+1)
		}
		c.extended = c.extended || t.extended
		if t.form != iso2022 {
			// These stand alone (PS3.3 C.12.1.1.2); what else is named with
			// them has no meaning.
			return &Charset{terms: c.terms, form: t.form}, nil
		}
		for _, s := range t.sets {
			// A multi-byte set is invoked by escape sequences even if it is
			// named first, as some writers do.
			if def := &codeSets[s]; i == 0 && def.width == 1 {
				if def.g1 {
					c.g1 = s
				} else {
					c.g0 = s
				}
			}
			c.sets = append(c.sets, s)
		}
	}
	for _, s := range c.sets {
		c.extended = c.extended || codeSets[s].width > 1
	}
	return c, nil
}

// charsetOf returns the character set that the value of (0008,0005) names; the
// default repertoire if it names none that is known.
func charsetOf(value []byte) *Charset {
	value = bytes.Trim(value, " \x00")
	switch string(value) {
	case "":
		return defaultCharset
	case "ISO_IR 100":
		return latin1Charset
	case "ISO_IR 192":
		return utf8Charset
	}
	terms := strings.Split(string(value), `\`)
	for i := range terms {
		terms[i] = strings.Trim(terms[i], " \x00")
	}
	// An unknown term decodes as the default repertoire; whoever decodes text
	// beyond it hears of it there.
	c, _ := NewCharset(terms)
	return c
}

// Terms returns the defined terms as in (0008,0005).
func (c *Charset) Terms() []string { return append([]string(nil), c.terms...) }

// errUndecodable and errUnencodable carry no text: it may be a patient's name.
var (
	errUndecodable = fault.New(fault.Invalid, "dicom: bytes outside the specific character set")
	errUnencodable = fault.New(fault.Invalid, "dicom: characters outside the specific character set")
)

// Decode returns a value's bytes in UTF-8. ISO 2022 code extensions return to
// the initial sets at delimiters (PS3.5 §6.1.2.5.3): line and page ends,
// backslash where the VR has several values, and for PN also ^ and =. Bytes
// that the character set cannot hold become U+FFFD, and the error tells of
// them.
func (c *Charset) Decode(b []byte, vr dict.VR) (string, error) {
	switch c.form {
	case unicode8:
		if utf8.Valid(b) {
			return string(b), nil
		}
		return strings.ToValidUTF8(string(b), "\uFFFD"), errUndecodable
	case gb18030:
		return decodeAll(simplifiedchinese.GB18030, b)
	case gbk:
		return decodeAll(simplifiedchinese.GBK, b)
	}
	if c.g0 == ascii && isPlain(b) {
		return string(b), nil
	}
	d := decoder2022{c: c, vr: vr}
	return d.decode(b)
}

// isPlain reports whether the bytes are ASCII without escape sequences.
func isPlain(b []byte) bool {
	for _, x := range b {
		if x >= 0x80 || x == escape {
			return false
		}
	}
	return true
}

func decodeAll(e encoding.Encoding, b []byte) (string, error) {
	if isPlain(b) {
		return string(b), nil
	}
	out, err := e.NewDecoder().Bytes(b)
	if err != nil {
		return strings.ToValidUTF8(string(b), "\uFFFD"), errUndecodable
	}
	if bytes.ContainsRune(out, utf8.RuneError) {
		err = errUndecodable
	}
	return string(out), err
}

// Encode is the inverse of Decode. The error tells that a character does not
// fit; it then is a question mark.
func (c *Charset) Encode(s string, vr dict.VR) ([]byte, error) {
	switch c.form {
	case unicode8:
		if utf8.ValidString(s) {
			return []byte(s), nil
		}
		return []byte(strings.ToValidUTF8(s, "?")), errUnencodable
	case gb18030:
		return encodeAll(simplifiedchinese.GB18030, s)
	case gbk:
		return encodeAll(simplifiedchinese.GBK, s)
	}
	if c.g0 == ascii && isASCII(s) {
		return []byte(s), nil
	}
	e := encoder2022{c: c, vr: vr, g0: c.g0, g1: c.g1}
	return e.encode(s)
}

func encodeAll(e encoding.Encoding, s string) ([]byte, error) {
	if b, err := e.NewEncoder().Bytes([]byte(s)); err == nil {
		return b, nil
	}
	var out []byte
	var failed error
	for _, r := range s {
		b, err := e.NewEncoder().Bytes([]byte(string(r)))
		if err != nil || r == utf8.RuneError {
			b, failed = []byte{'?'}, errUnencodable
		}
		out = append(out, b...)
	}
	return out, failed
}
