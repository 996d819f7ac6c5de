package dicom

import (
	"strings"

	"golang.org/x/text/encoding/charmap"
)

// codeSet is a coded character set of ISO 2375 that (0008,0005) can name.
type codeSet uint8

const (
	noSet codeSet = iota
	ascii
	romaji
	jisX0208
	jisX0212
	latin1
	latin2
	latin3
	latin4
	cyrillic
	arabic
	greek
	hebrew
	latin5
	latin9
	thai
	katakana
	ksX1001
	gb2312
)

// codeSets describes them (PS3.3 Tables C.12-3 and C.12-4).
var codeSets = [...]struct {
	escape string // without ESC
	g1     bool   // a code element of G1: bytes with the upper bit set
	width  int    // bytes of a character
	table  *charmap.Charmap
}{
	noSet:    {width: 1},
	ascii:    {escape: "(B", width: 1},
	romaji:   {escape: "(J", width: 1},
	jisX0208: {escape: "$B", width: 2},
	jisX0212: {escape: "$(D", width: 2},
	latin1:   {escape: "-A", g1: true, width: 1, table: charmap.ISO8859_1},
	latin2:   {escape: "-B", g1: true, width: 1, table: charmap.ISO8859_2},
	latin3:   {escape: "-C", g1: true, width: 1, table: charmap.ISO8859_3},
	latin4:   {escape: "-D", g1: true, width: 1, table: charmap.ISO8859_4},
	cyrillic: {escape: "-L", g1: true, width: 1, table: charmap.ISO8859_5},
	arabic:   {escape: "-G", g1: true, width: 1, table: charmap.ISO8859_6},
	greek:    {escape: "-F", g1: true, width: 1, table: charmap.ISO8859_7},
	hebrew:   {escape: "-H", g1: true, width: 1, table: charmap.ISO8859_8},
	latin5:   {escape: "-M", g1: true, width: 1, table: charmap.ISO8859_9},
	latin9:   {escape: "-b", g1: true, width: 1, table: charmap.ISO8859_15},
	thai:     {escape: "-T", g1: true, width: 1, table: charmap.Windows874}, // TIS 620 above 9F
	katakana: {escape: ")I", g1: true, width: 1},
	ksX1001:  {escape: "$)C", g1: true, width: 2},
	gb2312:   {escape: "$)A", g1: true, width: 2},
}

// invoked returns the set that an escape sequence names and the sequence's
// length without ESC, or zero.
func invoked(b []byte) (codeSet, int) {
	for s := ascii; int(s) < len(codeSets); s++ {
		if e := codeSets[s].escape; strings.HasPrefix(string(b[:min(len(b), len(e))]), e) {
			return s, len(e)
		}
	}
	if strings.HasPrefix(string(b[:min(len(b), 2)]), "$@") {
		return jisX0208, 2 // its 1978 edition
	}
	return noSet, 0
}

// term is what a defined term means.
type term struct {
	form     form
	extended bool // code extensions may be used
	sets     []codeSet
}

// lookupTerm knows defined terms by their letters and digits alone, so that
// ISO_IR 100, ISO-IR 100, ISO IR 100 and iso_ir_100 are one.
func lookupTerm(text string) (term, bool) {
	var b strings.Builder
	for _, r := range strings.ToUpper(text) {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		}
	}
	key := b.String()
	rest, extended := strings.CutPrefix(key, "ISO2022")
	for _, prefix := range [...]string{"ISOIR", "IR"} {
		rest = strings.TrimPrefix(rest, prefix)
	}
	t, ok := lookupNumber(rest)
	if !ok {
		t, ok = lookupAlias(key)
	}
	t.extended = extended
	return t, ok
}

// lookupNumber knows the numbers of ISO 2375 registrations, and the terms
// without one.
func lookupNumber(number string) (term, bool) {
	one := func(s codeSet) (term, bool) { return term{sets: []codeSet{s}}, true }
	switch number {
	case "", "6":
		return one(ascii)
	case "100":
		return one(latin1)
	case "101":
		return one(latin2)
	case "109":
		return one(latin3)
	case "110":
		return one(latin4)
	case "144":
		return one(cyrillic)
	case "127":
		return one(arabic)
	case "126":
		return one(greek)
	case "138":
		return one(hebrew)
	case "148":
		return one(latin5)
	case "203":
		return one(latin9)
	case "166":
		return one(thai)
	case "13":
		return term{sets: []codeSet{romaji, katakana}}, true
	case "87":
		return one(jisX0208)
	case "159":
		return one(jisX0212)
	case "149":
		return one(ksX1001)
	case "58":
		return one(gb2312)
	case "192":
		return term{form: unicode8}, true
	case "GB18030":
		return term{form: gb18030}, true
	case "GBK":
		return term{form: gbk}, true
	}
	return term{}, false
}

// lookupAlias knows names that are no defined terms and yet are met.
func lookupAlias(key string) (term, bool) {
	switch key {
	case "ASCII", "USASCII":
		return lookupNumber("6")
	case "LATIN1", "ISO88591":
		return lookupNumber("100")
	case "LATIN2", "ISO88592":
		return lookupNumber("101")
	case "LATIN3", "ISO88593":
		return lookupNumber("109")
	case "LATIN4", "ISO88594":
		return lookupNumber("110")
	case "ISO88595":
		return lookupNumber("144")
	case "ISO88596":
		return lookupNumber("127")
	case "ISO88597":
		return lookupNumber("126")
	case "ISO88598":
		return lookupNumber("138")
	case "LATIN5", "ISO88599":
		return lookupNumber("148")
	case "ISO885911", "TIS620":
		return lookupNumber("166")
	case "LATIN9", "ISO885915":
		return lookupNumber("203")
	case "UTF8", "UNICODE", "ISO10646", "ISO106461":
		return lookupNumber("192")
	case "GB2312":
		return lookupNumber("GBK") // which contains it
	}
	return term{}, false
}
