package plan

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"pelago/dimse/dict"
	"pelago/query/match"
	"pelago/replication/catalog"
)

// Plan is where the studies of a query are to be looked for: in the spans, and
// in every set.
type Plan struct {
	Spans []catalog.Span
	Sets  []Set
}

// Set is a set of studies as indexes have it; one of the types below.
type Set interface{ set() }

type (
	// Term is the studies that have a term.
	Term struct {
		Index byte
		Term  string
	}
	// Prefix is the studies that have a term with a prefix, which are read in the
	// order of the terms: if there are many, Else finds the first of them sooner.
	// An Else of nil means that nothing better is known.
	Prefix struct {
		Index  byte
		Prefix string
		Else   Set
	}
	// Dictionary is the studies with a term that Keep accepts, of an index whose
	// terms are few.
	Dictionary struct {
		Index byte
		Keep  func(term string) bool
	}
	// Words is the set that Make makes of the words with a prefix in an index's
	// vocabulary; of none, and false, when they are too many.
	Words struct {
		Index  byte
		Prefix string
		Make   func(words []string, complete bool) Set
	}
	// Patient is a patient's studies.
	Patient struct{ Key catalog.PatientKey }
	// Studies is the studies of UIDs.
	Studies struct{ UIDs []string }
	// SeriesOf is the studies that hold the series of UIDs.
	SeriesOf struct{ UIDs []string }
	// All is what is in every set, Any what is in one of them.
	All []Set
	Any []Set
)

func (Term) set()       {}
func (Prefix) set()     {}
func (Dictionary) set() {}
func (Words) set()      {}
func (Patient) set()    {}
func (Studies) set()    {}
func (SeriesOf) set()   {}
func (All) set()        {}
func (Any) set()        {}

// Options are what a plan needs to know beside the keys.
type Options struct {
	Issuer string // that a Patient ID is of
	// Timeline is every id of the patient whose Patient ID is a key, itself
	// included; none: just that one.
	Timeline  []catalog.PatientKey
	AnyIssuer bool // it does not count
	WildName  bool // the key of Patient's Name holds wildcards, which fuzzy keys do not show
}

// For returns the plan of compiled keys.
func For(keys []match.Key, o Options) Plan {
	p := Plan{Spans: []catalog.Span{{Last: catalog.LastOrder()}}}
	for _, k := range keys {
		switch k.Tag {
		case dict.StudyDate:
			if k.Kind == match.Range || k.Kind == match.Single {
				p.Spans = catalog.Spans(day(k.Low), day(k.High))
			}
			continue
		case dict.PatientID:
			if k.Kind == match.Single && !o.AnyIssuer {
				p.Sets = append(p.Sets, timeline(catalog.PatientKey{Issuer: o.Issuer, ID: k.Values[0]}, o.Timeline))
				continue
			}
		}
		if s := forKey(k, o); s != nil {
			p.Sets = append(p.Sets, orLeftOut(k.Tag, s))
		}
	}
	return p
}

// orLeftOut adds to a set of values those studies whose records leave the value
// out. There are hardly ever any.
func orLeftOut(t dict.Tag, s Set) Set {
	if !slices.Contains(indexed[:], t) {
		return s
	}
	return Any{s, Term{leftOut, leftOutTerm(t)}}
}

// timeline is a patient's studies under all ids.
func timeline(key catalog.PatientKey, line []catalog.PatientKey) Set {
	if len(line) < 2 {
		return Patient{key}
	}
	any := make(Any, len(line))
	for i, k := range line {
		any[i] = Patient{k}
	}
	return any
}

// day returns the date of a bound of a range of dates, or of dates with times.
func day(bound string) string { return bound[:min(len(bound), 8)] }

// forKey returns the set of one key, nil when no index narrows it.
func forKey(k match.Key, o Options) Set {
	if k.Kind != match.Single && k.Kind != match.List && k.Kind != match.Wildcard && k.Kind != match.Phonetic {
		return nil
	}
	switch k.Tag {
	case dict.StudyInstanceUID:
		return Studies{k.Values}
	case dict.SeriesInstanceUID:
		return SeriesOf{k.Values}
	case dict.PatientName:
		if k.Kind == match.Phonetic {
			return phonetic(k.Values, o.WildName)
		}
		return patterns(k, nameGrams, nameGram)
	case dict.PatientID:
		return patterns(k, patientIDGrams, codeGram)
	case dict.AccessionNumber:
		return patterns(k, accessionGrams, codeGram)
	case dict.StudyID:
		if k.Kind == match.Wildcard {
			return dictionary(k, studyIDs)
		}
		return terms(k.Values, studyIDs)
	case dict.ModalitiesInStudy, dict.Modality:
		if k.Kind == match.Wildcard {
			return dictionary(k, modalities)
		}
		return terms(k.Values, modalities)
	case dict.StudyDescription:
		folded := make([]string, len(k.Values)) // the matcher keeps its own
		for i, v := range k.Values {
			folded[i] = match.FoldText(v)
		}
		k.Values = folded
		return dictionary(k, descriptions)
	case dict.ReferringPhysicianName:
		if k.Kind == match.Phonetic {
			return nil
		}
		return dictionary(k, referrers)
	}
	return nil
}

func terms(values []string, index byte) Set {
	any := make(Any, len(values))
	for i, v := range values {
		any[i] = Term{index, whole(v)}
	}
	return any
}

// patterns returns the set of values that match one of a key's values by grams.
func patterns(k match.Key, index byte, n int) Set {
	var any Any
	for _, v := range k.Values {
		s := pattern(literals(v, k), index, n)
		if s == nil {
			return nil
		}
		any = append(any, s)
	}
	return any
}

// pattern returns the set of values that hold every literal run of a pattern,
// nil when no run is long enough. A run shorter than a gram is the beginning of
// one if it begins the value, or if only one character is missing and the value
// goes on after it, be it with its end mark. Names that begin alike are also
// found without grams, which are common to many names of which few begin so.
func pattern(runs []string, index byte, n int) Set {
	var all All
	longest := 0
	var prefix Set
	for _, run := range runs {
		chars := []rune(run)
		switch {
		case len(chars) >= n:
			all = append(all, gramsOf(chars, index, n)...)
		case chars[0] == startMark && len(chars) > 1, len(chars) == n-1 && chars[len(chars)-1] != endMark:
			if len(chars) > longest {
				longest, prefix = len(chars), Prefix{Index: index, Prefix: run}
			}
		}
	}
	if len(all) > 0 {
		prefix = all
	}
	if begins, ok := strings.CutPrefix(runs[0], string(startMark)); ok && begins != "" && index == nameGrams {
		return Prefix{wholeNames, beginning(begins), prefix}
	}
	return prefix
}

// gramsOf returns the grams of a run. Of an identifier all: digits are few, so
// that each gram is common to many. Of a name those that lie side by side, the
// last as far to the end as it goes: those between hardly narrow it more.
func gramsOf(run []rune, index byte, n int) All {
	step := n
	if index != nameGrams {
		step = 1
	}
	var all All
	for i := 0; ; i += step {
		i = min(i, len(run)-n)
		all = append(all, Term{index, string(run[i : i+n])})
		if i == len(run)-n {
			return all
		}
	}
}

// literals returns the literal runs of a key's value with the marks of its
// ends. Delimiters and spaces before a wildcard do not count (see
// [match.Key.Prefix]); in a name pattern with `?`, which may stand for
// punctuation that indexes do not hold, nor do those beside the punctuation.
func literals(v string, k match.Key) []string {
	v = string(startMark) + printable(v) + string(endMark)
	if k.Kind != match.Wildcard {
		return []string{v}
	}
	loose := k.VR == dict.PN && strings.Contains(v, "?")
	parts := strings.FieldsFunc(v, func(r rune) bool { return r == '*' || r == '?' || loose && (r == ' ' || r == '^') })
	for i := range parts[:len(parts)-1] {
		parts[i] = strings.TrimRight(parts[i], " ^")
	}
	return slices.DeleteFunc(parts, func(run string) bool { return run == "" })
}

// phonetic returns the set of names in which every word sounds alike or begins
// a word; with wildcards in the key it may also stand anywhere.
func phonetic(words []string, wild bool) Set {
	if !wild {
		return sounding(words, nil)
	}
	var all All
	for _, w := range words {
		if standing := infix(w); standing != nil {
			all = append(all, append(ofCodes(match.FuzzyCodes(w)), standing))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// sound is what is known of the words that a word of a key may stand for: their
// codes if they are few, else a set.
type sound struct {
	codes []string
	set   Set
}

// sounding returns the set of names in which every word has one of its codes:
// its own and those of the longer words that it begins. known is of the words
// before.
func sounding(words []string, known []sound) Set {
	if len(words) == 0 {
		return together(known)
	}
	return Words{nameCodes, beginning(printable(words[0])), func(longer []string, complete bool) Set {
		own := match.FuzzyCodes(words[0])
		all := slices.Clone(own)
		for _, w := range longer {
			all = append(all, match.FuzzyCodes(w)...)
			complete = complete && !strings.HasSuffix(w, string(cutMark))
		}
		slices.Sort(all)
		all = slices.Compact(all)
		next := sound{codes: all}
		if !complete || len(all) > maxCodes {
			next = sound{set: beginsOrIs(words[0], own)}
		}
		return sounding(words[1:], append(slices.Clip(known), next))
	}}
}

// beginsOrIs returns the set of names with a word that begins with a word, or
// has one of its codes, without the vocabulary: nil for a single letter.
func beginsOrIs(word string, codes []string) Set {
	word = beginning(printable(word))
	if utf8.RuneCountInString(word) < nameGram-1 {
		return nil
	}
	any := ofCodes(codes)
	for _, before := range [...]string{string(startMark), "^", " "} {
		run := []rune(before + word)
		var all All
		for i := 0; i+nameGram <= len(run); i++ {
			all = append(all, Term{nameGrams, string(run[i : i+nameGram])})
		}
		any = append(any, all)
	}
	return any
}

const (
	// maxCodes bounds the codes that a beginning may have: more are no better
	// than the beginning itself.
	maxCodes = 24
	// maxPairs bounds the pairs of two words' codes that are read side by side.
	maxPairs = 160
)

// together returns the set of names that have all sounds. Two lists of codes
// are one set of pairs: few names have both codes, many have one of them.
func together(sounds []sound) Set {
	var all All
	var lists [][]string
	for _, s := range sounds {
		if s.codes != nil {
			lists = append(lists, s.codes)
		} else if s.set != nil {
			all = append(all, s.set)
		}
	}
	slices.SortStableFunc(lists, func(a, b []string) int { return cmp.Compare(len(a), len(b)) })
	if len(lists) > 1 && len(lists[0])*len(lists[1]) <= maxPairs {
		any := Any{Term{codePairs, manyCodes}}
		for _, a := range lists[0] {
			for _, b := range lists[1] {
				if a == b { // one word may be both
					any = append(any, Term{nameCodes, whole(a)})
				} else {
					any = append(any, Term{codePairs, pair(a, b)})
				}
			}
		}
		all, lists = append(all, any), lists[2:]
	}
	for _, codes := range lists {
		all = append(all, ofCodes(codes))
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// ofCodes returns the set of names that have one of some codes.
func ofCodes(codes []string) Any {
	any := make(Any, len(codes))
	for i, code := range codes {
		any[i] = Term{nameCodes, whole(code)}
	}
	return any
}

// beginning returns what a value and all that begin with it have in common as
// whole terms, which may be cut. Its marks stay.
func beginning(word string) string {
	cut := min(len(word), maxTerm/2)
	for cut < len(word) && !utf8.RuneStart(word[cut]) {
		cut--
	}
	return word[:cut]
}

// infix returns the set of names that hold a word anywhere.
func infix(word string) Set {
	chars := []rune(printable(word))
	if len(chars) < nameGram {
		return nil
	}
	var all All
	for i := 0; i+nameGram <= len(chars); i++ {
		all = append(all, Term{nameGrams, string(chars[i : i+nameGram])})
	}
	return all
}

// dictionary returns the set of values that hold a pattern's literal runs one
// after the other: a little more than match.
func dictionary(k match.Key, index byte) Set {
	values := make([][]string, len(k.Values))
	for i, v := range k.Values {
		values[i] = []string{printable(v)}
		if k.Kind == match.Wildcard {
			values[i] = strings.FieldsFunc(printable(v), func(r rune) bool { return r == '*' || r == '?' || r == ' ' || r == '^' })
		}
	}
	return Dictionary{index, func(term string) bool {
		if strings.HasSuffix(term, string(cutMark)) {
			return true
		}
		for _, runs := range values {
			if holds(term, runs) {
				return true
			}
		}
		return false
	}}
}

func holds(term string, runs []string) bool {
	for _, run := range runs {
		i := strings.Index(term, run)
		if i < 0 {
			return false
		}
		term = term[i+len(run):]
	}
	return true
}
