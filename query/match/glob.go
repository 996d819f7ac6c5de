package match

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// glob is a compiled pattern: * stands for any characters, none included, ? for
// exactly one (PS3.4 C.2.2.2.4). A character is a Unicode code point.
type glob struct {
	first  segment   // anchored at the start
	middle []segment // in this order, anywhere between
	last   segment   // anchored at the end; unused if whole
	whole  bool      // no *: first is all
}

// segment is a run without *.
type segment struct {
	text  string
	marks bool // holds ?
}

func newGlob(pattern string) glob {
	parts := strings.Split(pattern, "*")
	g := glob{first: newSegment(parts[0]), whole: len(parts) == 1}
	if g.whole {
		return g
	}
	g.last = newSegment(parts[len(parts)-1])
	for _, p := range parts[1 : len(parts)-1] {
		if p != "" {
			g.middle = append(g.middle, newSegment(p))
		}
	}
	return g
}

func newSegment(text string) segment {
	return segment{text: text, marks: strings.ContainsRune(text, '?')}
}

// match reports whether all of v fits. Taking each segment where it first fits
// is enough: a later place never leaves more room for the rest.
func (g *glob) match(v []byte) bool {
	n, ok := g.first.prefix(v)
	if !ok || g.whole && n != len(v) {
		return false
	}
	if g.whole {
		return true
	}
	v = v[n:]
	for i := range g.middle {
		n, ok = g.middle[i].find(v)
		if !ok {
			return false
		}
		v = v[n:]
	}
	return g.last.suffix(v)
}

// prefix returns the bytes of v that the segment takes at its start.
func (s *segment) prefix(v []byte) (int, bool) {
	if !s.marks {
		return len(s.text), len(v) >= len(s.text) && string(v[:len(s.text)]) == s.text
	}
	n := 0
	for i := 0; i < len(s.text); i++ {
		if n >= len(v) {
			return 0, false
		}
		if s.text[i] == '?' {
			_, size := utf8.DecodeRune(v[n:])
			n += size
			continue
		}
		if v[n] != s.text[i] {
			return 0, false
		}
		n++
	}
	return n, true
}

// find returns the bytes of v up to the end of the first place where the
// segment fits.
func (s *segment) find(v []byte) (int, bool) {
	if !s.marks {
		i := indexString(v, s.text)
		return i + len(s.text), i >= 0
	}
	for at := 0; at < len(v); {
		if n, ok := s.prefix(v[at:]); ok {
			return at + n, true
		}
		_, size := utf8.DecodeRune(v[at:])
		at += size
	}
	return 0, false
}

// suffix reports whether the segment fits at the end of v.
func (s *segment) suffix(v []byte) bool {
	if !s.marks {
		return len(v) >= len(s.text) && string(v[len(v)-len(s.text):]) == s.text
	}
	at := len(v)
	for range utf8.RuneCountInString(s.text) {
		if at == 0 {
			return false
		}
		_, size := utf8.DecodeLastRune(v[:at])
		at -= size
	}
	n, ok := s.prefix(v[at:])
	return ok && n == len(v)-at
}

// indexString is bytes.Index for a string.
func indexString(v []byte, s string) int {
	for from := 0; ; {
		i := bytes.IndexByte(v[from:], s[0])
		if i < 0 || len(v)-from-i < len(s) {
			return -1
		}
		if string(v[from+i:from+i+len(s)]) == s {
			return from + i
		}
		from += i + 1
	}
}
