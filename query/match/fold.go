package match

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// FoldName returns a person name (one component group) as indexes hold it:
// case, accents and punctuation folded, components separated by ^, no trailing
// delimiters.
//
// Letters are upper case without accents; ß is SS, Æ AE, Ø O, Ł L and so on;
// width variants are one. Hyphens, commas, underscores and slashes count as
// spaces, runs of spaces as one, other punctuation not at all: O'Brien is
// OBRIEN, Müller-Lüdenscheidt MULLER LUDENSCHEIDT. Wildcards stay as they are.
func FoldName(name string) string { return string(appendFoldName(nil, []byte(name), false)) }

// appendFoldName appends a folded component group. With marks, punctuation
// stays, so that each ? of a pattern finds its character.
func appendFoldName(dst, name []byte, marks bool) []byte {
	var room [96]byte
	if !isPlain(name) {
		if plain, ok := appendLatin(room[:0], name); ok {
			name = plain
		} else {
			name = []byte(foldLetters(string(name)))
		}
	}
	start := len(dst)
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z':
			dst = append(dst, c-('a'-'A'))
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= utf8.RuneSelf, c == '*', c == '?':
			dst = append(dst, c)
		case c == '^':
			dst = append(trimEnd(dst, start, ' '), c)
		case marks && c > ' ' && c != 0x7F:
			dst = append(dst, c)
		case c == ' ', c == '-', c == ',', c == '_', c == '/', c == '\t':
			if len(dst) > start && dst[len(dst)-1] != ' ' && dst[len(dst)-1] != '^' {
				dst = append(dst, ' ')
			}
		}
	}
	for len(dst) > start && (dst[len(dst)-1] == ' ' || dst[len(dst)-1] == '^') {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// appendLatin folds a name of ASCII and the letters of latinLetters; false if it
// holds others.
func appendLatin(dst, name []byte) ([]byte, bool) {
	for i := 0; i < len(name); {
		if name[i] < utf8.RuneSelf {
			dst = append(dst, name[i])
			i++
			continue
		}
		r, size := utf8.DecodeRune(name[i:])
		if r < 0xC0 || r >= 0x180 {
			return dst, false
		}
		dst = append(dst, latinLetters[r-0xC0]...)
		i += size
	}
	return dst, true
}

func trimEnd(b []byte, start int, c byte) []byte {
	for len(b) > start && b[len(b)-1] == c {
		b = b[:len(b)-1]
	}
	return b
}

// foldLetters removes accents and case from letters beyond ASCII.
func foldLetters(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range norm.NFKD.String(s) {
		if isAccent(r) {
			continue
		}
		if plain, ok := plainLetter(r); ok {
			b.WriteString(plain)
			continue
		}
		if r >= utf8.RuneSelf && (unicode.IsSpace(r) || unicode.Is(unicode.Pd, r)) {
			r = ' '
		} else if r >= utf8.RuneSelf && (unicode.IsPunct(r) || unicode.Is(unicode.Cf, r)) {
			continue
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return norm.NFC.String(b.String()) // marks that are no accents join their letters again
}

// isAccent reports whether a combining mark only decorates its letter. Vowel
// signs of Indic and Thai scripts and the voicing marks of kana do not.
func isAccent(r rune) bool {
	switch {
	case 0x0300 <= r && r <= 0x036F, 0x1AB0 <= r && r <= 0x1AFF, 0x1DC0 <= r && r <= 0x1DFF,
		0x20D0 <= r && r <= 0x20FF, 0xFE20 <= r && r <= 0xFE2F: // Latin, Greek, Cyrillic
		return true
	case 0x0591 <= r && r <= 0x05BD, r == 0x05BF, r == 0x05C1, r == 0x05C2, r == 0x05C4, r == 0x05C5, r == 0x05C7: // Hebrew points
		return true
	case 0x064B <= r && r <= 0x065F, r == 0x0670, r == 0x0640: // Arabic vowel signs, tatweel
		return true
	}
	return false
}

// plainLetter spells letters that Unicode does not decompose as their bearers'
// documents do.
func plainLetter(r rune) (string, bool) {
	switch r {
	case 'ß', 'ẞ':
		return "SS", true
	case 'æ', 'Æ':
		return "AE", true
	case 'œ', 'Œ':
		return "OE", true
	case 'ø', 'Ø':
		return "O", true
	case 'ł', 'Ł':
		return "L", true
	case 'đ', 'Đ', 'ð', 'Ð':
		return "D", true
	case 'þ', 'Þ':
		return "TH", true
	case 'ħ', 'Ħ':
		return "H", true
	case 'ŧ', 'Ŧ':
		return "T", true
	case 'ı':
		return "I", true
	case 'ĸ':
		return "K", true
	case 'ŋ', 'Ŋ':
		return "NG", true
	case 'ə', 'Ə':
		return "A", true
	}
	return "", false
}
