package plan

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"pelago/dimse/dict"
	"pelago/query/match"
	"pelago/replication/catalog"
)

// The indexes. Their letters are part of the catalogue's rows.
const (
	nameGrams      = 'n' // folded patient names
	wholeNames     = 'w' // folded patient names from their beginnings
	nameCodes      = 'f' // phonetic codes of patient names
	codePairs      = 'q' // pairs of different codes of one name
	patientIDGrams = 'i'
	accessionGrams = 'c'
	studyIDs       = 'k' // whole values
	modalities     = 'm' // dictionary
	descriptions   = 's' // dictionary, without case
	referrers      = 'h' // dictionary, folded names
	leftOut        = 'o' // attributes whose values are too long for the catalogue
)

// indexVersion rises whenever terms change for the same study.
const indexVersion = 6

// Lengths of grams, in characters: names repeat a lot, identifiers do not.
const (
	nameGram = 3
	codeGram = 4
)

// The marks of a value's ends in grams, and the least byte of a term.
const (
	startMark = '\x04'
	endMark   = '\x05'
	leastByte = 6
)

// maxTerm bounds a whole value as a term, in bytes; a longer one is cut and
// ends in cutMark, so that patterns let it pass.
const (
	maxTerm = 96
	cutMark = '\x05'
)

// Indexer names the terms of studies: the catalogue's secondary indexes.
type Indexer struct{}

var _ catalog.Indexer = Indexer{}

// Version is as in [catalog.Indexer].
func (Indexer) Version() uint32 { return indexVersion }

// indexed are the attributes of studies and patients that have an index of values.
var indexed = [...]dict.Tag{
	dict.PatientName, dict.PatientID, dict.AccessionNumber, dict.StudyID, dict.StudyDescription, dict.ReferringPhysicianName,
}

// leftOutTerm is the term of an attribute under which the studies are filed whose
// records leave its value out: what it is, their owners know.
func leftOutTerm(t dict.Tag) string { return fmt.Sprintf("%08X", uint32(t)) }

// Terms is as in [catalog.Indexer].
func (Indexer) Terms(s catalog.StudyRow, add func(index byte, term string)) {
	for _, t := range indexed {
		for i := range s.Patients() {
			if s.Omits(i, t) {
				add(leftOut, leftOutTerm(t))
			}
		}
	}
	for i := range s.Patients() {
		if !s.Omits(i, dict.PatientName) {
			addText(dict.PatientName, s.PatientText(i, dict.PatientName), add)
		}
		addText(dict.PatientID, s.PatientText(i, dict.PatientID), add)
	}
	for _, t := range [...]dict.Tag{dict.AccessionNumber, dict.StudyID, dict.StudyDescription, dict.ReferringPhysicianName} {
		addText(t, s.Text(t), add)
	}
	for _, m := range s.Modalities() {
		add(modalities, whole(m))
	}
}

// Words is as in [catalog.Indexer]: the words of patient names are the
// vocabulary of their codes.
func (Indexer) Words(s catalog.StudyRow, add func(index byte, word string)) {
	for i := range s.Patients() {
		if !s.Omits(i, dict.PatientName) {
			addWords(s.PatientText(i, dict.PatientName), func(w string) { add(nameCodes, w) })
		}
	}
}

// addWords names the folded words of a person name, all groups and values.
func addWords(text string, add func(string)) {
	for _, group := range strings.FieldsFunc(text, func(r rune) bool { return r == '=' || r == '\\' }) {
		for _, w := range strings.FieldsFunc(match.FoldName(group), func(r rune) bool { return r == ' ' || r == '^' }) {
			add(whole(w))
		}
	}
}

// addText names the terms of one attribute's value, its values separated by
// backslash.
func addText(t dict.Tag, text string, add func(index byte, term string)) {
	switch t {
	case dict.PatientName:
		for _, v := range strings.Split(text, `\`) {
			for _, group := range strings.Split(v, "=") {
				folded := match.FoldName(group)
				grams(folded, nameGram, func(g string) { add(nameGrams, g) })
				if folded != "" {
					add(wholeNames, ended(folded))
				}
			}
		}
		for _, v := range strings.Split(text, `\`) {
			codes := match.FuzzyCodes(v)
			for _, code := range codes {
				add(nameCodes, whole(code))
			}
			pairs(codes, func(p string) { add(codePairs, p) })
		}
	case dict.PatientID:
		each(text, func(v string) { grams(v, codeGram, func(g string) { add(patientIDGrams, g) }) })
	case dict.AccessionNumber:
		each(text, func(v string) { grams(v, codeGram, func(g string) { add(accessionGrams, g) }) })
	case dict.StudyID:
		each(text, func(v string) { add(studyIDs, whole(v)) })
	case dict.StudyDescription:
		each(text, func(v string) { add(descriptions, whole(match.FoldText(v))) })
	case dict.ReferringPhysicianName:
		each(text, func(v string) { add(referrers, whole(foldGroups(v))) })
	}
}

// maxPaired bounds the codes of a name that are paired; a name of more is filed
// under manyCodes, where every search by pairs looks too.
const (
	maxPaired = 10
	manyCodes = string(cutMark)
)

// pairs calls add with the pairs of a name's codes.
func pairs(codes []string, add func(string)) {
	if len(codes) > maxPaired {
		add(manyCodes)
		return
	}
	for i, a := range codes {
		for _, b := range codes[i+1:] {
			add(pair(a, b))
		}
	}
}

// pair returns the term of two codes in either order.
func pair(a, b string) string {
	a, b = whole(a), whole(b)
	if a > b {
		a, b = b, a
	}
	return a + string(startMark) + b
}

// each calls fn with each value of an attribute, without its padding.
func each(text string, fn func(string)) {
	for _, v := range strings.Split(text, `\`) {
		if v = strings.Trim(v, " "); v != "" {
			fn(v)
		}
	}
}

// foldGroups folds a person name group by group.
func foldGroups(name string) string {
	groups := strings.Split(name, "=")
	for i, g := range groups {
		groups[i] = match.FoldName(g)
	}
	return strings.Join(groups, "=")
}

// whole returns a value as one term.
func whole(v string) string {
	v = printable(v)
	if len(v) <= maxTerm {
		return v
	}
	cut := maxTerm
	for cut > 0 && !utf8.RuneStart(v[cut]) {
		cut--
	}
	return v[:cut] + string(cutMark)
}

// ended returns a value as one term that tells where the value ends, so that a
// beginning of it may be the whole.
func ended(v string) string {
	if v = whole(v); strings.HasSuffix(v, string(cutMark)) {
		return v
	}
	return v + string(endMark)
}

// printable replaces characters that mean something in terms.
func printable(v string) string {
	return strings.Map(func(r rune) rune {
		if r < leastByte {
			return ' '
		}
		return r
	}, v)
}

// grams calls add with every run of n characters of a value between its marks;
// of a value that is too short for one, with all of it.
func grams(v string, n int, add func(string)) {
	if v == "" {
		return
	}
	v = string(startMark) + printable(v) + string(endMark)
	from, to := 0, 0 // a gram is a piece of the value
	for range n {
		to += charBytes(v[to:])
	}
	add(v[:to])
	for to < len(v) {
		from += charBytes(v[from:])
		to += charBytes(v[to:])
		add(v[from:to])
	}
}

// charBytes is the length of the first character of a text, 0 if it is empty.
func charBytes(text string) int {
	_, n := utf8.DecodeRuneInString(text)
	return n
}
