package match

import (
	"strings"

	"pelago/dimse/dict"
)

// Kind is how a key matches.
type Kind uint8

// The kinds of PS3.4 C.2.2.2, and two that only a test of each candidate
// decides: no index can narrow them.
const (
	Universal Kind = iota
	Single
	List     // list of UIDs, or a list of codes such as ModalitiesInStudy
	Wildcard // * and ?
	Range    // dates and times
	Sequence
	Phonetic // person names, fuzzily
	Mixed    // several patterns or ranges, a time range across midnight, DT with an offset
)

// Key is one compiled matching key, for planners. What it says is necessary for
// a match, not always sufficient: [Matcher.Match] decides.
type Key struct {
	Tag    dict.Tag
	VR     dict.VR
	Kind   Kind
	Values []string // Single: one; List: all; Wildcard: the pattern; Phonetic: the words; normalised as the index holds them (names folded)
	Low    string   // Range: inclusive bounds, normalised (YYYYMMDD, HHMMSS.FFFFFF, or both joined); "" = open
	High   string
	Keys   []Key // Sequence: of its item
}

// Keys returns the compiled keys that are not universal, in tag order. With
// CombinedDateTime a date and its time are one Key under the date's tag; a
// candidate without the time then matches when its day touches the range, so
// an index of dates is searched by the first eight digits of the bounds. With
// Timezone bounds of dates are two days wider, and times are Mixed, as the
// candidates' zones are not known yet. A name key of several component groups
// gives the first of them.
func (m *Matcher) Keys() []Key {
	keys := make([]Key, len(m.rules))
	for i := range m.rules {
		keys[i] = m.rules[i].key
	}
	return keys
}

// Prefix returns what every match of a Single or Wildcard key starts with in an
// index of normalised values; "" when nothing is known. Delimiters and spaces
// before the first wildcard are not part of it: SMITH^* matches SMITH too.
func (k Key) Prefix() string {
	if len(k.Values) != 1 {
		return ""
	}
	switch v := k.Values[0]; k.Kind {
	case Single:
		return v
	case Wildcard:
		if i := strings.IndexAny(v, "*?"); i >= 0 {
			v = v[:i]
		}
		return strings.TrimRight(v, " ^")
	}
	return ""
}
