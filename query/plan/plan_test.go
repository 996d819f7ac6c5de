package plan

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query/match"
	"pelago/replication/catalog"
)

type posting struct {
	index byte
	term  string
}

// holdsSet reports whether a study filed under postings is in a set; sets that
// hold every study count as holding it.
func holdsSet(s Set, postings []posting, words []string) bool {
	some := func(keep func(posting) bool) bool { return slices.ContainsFunc(postings, keep) }
	switch s := s.(type) {
	case nil:
		return true
	case Term:
		return some(func(p posting) bool { return p == posting{s.Index, s.Term} })
	case Prefix:
		return some(func(p posting) bool { return p.index == s.Index && strings.HasPrefix(p.term, s.Prefix) }) &&
			(s.Else == nil || holdsSet(s.Else, postings, words)) // either may be looked in
	case Dictionary:
		return some(func(p posting) bool { return p.index == s.Index && s.Keep(p.term) })
	case Words:
		found := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, s.Prefix) })
		return holdsSet(s.Make(found, true), postings, words) && holdsSet(s.Make(nil, false), postings, words)
	case All:
		return !slices.ContainsFunc(s, func(m Set) bool { return !holdsSet(m, postings, words) })
	case Any:
		return slices.ContainsFunc(s, func(m Set) bool { return holdsSet(m, postings, words) })
	}
	panic("a set of another kind")
}

var alphabet = []rune("ABaé^ -'=.1?*7ß山\x04\\")

func drawText(t *rapid.T, name string, n int) string {
	return string(rapid.SliceOfN(rapid.SampledFrom(alphabet), 1, n).Draw(t, name))
}

// Whatever matches is where the plan looks for it.
func TestPlanMissesNothing(t *testing.T) {
	tags := []dict.Tag{dict.PatientName, dict.PatientID, dict.AccessionNumber, dict.StudyID, dict.StudyDescription, dict.ReferringPhysicianName}
	drawn, matched, narrowed := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		for range 50 {
			drawn++
			tag := rapid.SampledFrom(tags).Draw(rt, "tag")
			vr := vrOf(t, tag)
			value := strings.NewReplacer("*", "", "?", "").Replace(drawText(rt, "value", 10))
			key := drawText(rt, "key", 6)
			if runes := []rune(value); rapid.Bool().Draw(rt, "related") && len(runes) > 0 {
				from := rapid.IntRange(0, len(runes)-1).Draw(rt, "from")
				to := rapid.IntRange(from, len(runes)).Draw(rt, "to")
				key = rapid.SampledFrom([]string{"", "*", "?"}).Draw(rt, "before") + string(runes[from:to]) + rapid.SampledFrom([]string{"", "*", "^*", "?"}).Draw(rt, "after")
			}
			options := match.Options{Fuzzy: rapid.Bool().Draw(rt, "fuzzy"), FoldText: rapid.Bool().Draw(rt, "fold")}
			candidate, keys := dicom.NewDataset(), dicom.NewDataset()
			candidate.Set(tag, vr, value)
			keys.Set(tag, vr, key)
			m, err := match.Compile(keys, options)
			if err != nil || len(m.Keys()) == 0 || !m.Match(candidate, nil) {
				continue
			}
			matched++
			var postings []posting
			addText(tag, value, func(index byte, term string) { postings = append(postings, posting{index, term}) })
			for _, p := range postings {
				if strings.ContainsAny(p.term, "\x00\x01\x02\x03") {
					rt.Fatalf("a term holds a byte below 04: %q", p.term)
				}
			}
			set := forKey(m.Keys()[0], Options{WildName: strings.ContainsAny(key, "*?")})
			var words []string
			addWords(value, func(w string) { words = append(words, w) })
			if set != nil {
				narrowed++
			}
			if !holdsSet(set, postings, words) {
				rt.Fatalf("%v: key %q matches %q (fuzzy %t), but the plan %v misses its postings %v", tag, key, value, options.Fuzzy, set, postings)
			}
		}
	})
	if matched < drawn/10 || narrowed < matched/5 {
		t.Errorf("%d of the drawn keys matched, %d were narrowed by an index: too few to tell", matched, narrowed)
	}
}

func vrOf(t *testing.T, tag dict.Tag) dict.VR {
	e, ok := dict.Lookup(tag)
	if !ok {
		t.Fatalf("%v is not in the dictionary", tag)
	}
	return e.VR
}

func planOf(t *testing.T, tag dict.Tag, value string, options match.Options) Plan {
	t.Helper()
	keys := dicom.NewDataset()
	keys.Set(tag, vrOf(t, tag), value)
	m, err := match.Compile(keys, options)
	if err != nil {
		t.Fatal(err)
	}
	return For(m.Keys(), Options{Issuer: "NORTH"})
}

func TestPlanOfEachShape(t *testing.T) {
	name := func(grams ...string) Set {
		var all All
		for _, g := range grams {
			all = append(all, Term{nameGrams, g})
		}
		return all
	}
	for _, test := range []struct {
		rule  string
		tag   dict.Tag
		value string
		want  []Set
	}{
		{"a prefix is anchored", dict.PatientName, "smi*", []Set{Any{Prefix{wholeNames, "SMI", name("\x04SM", "SMI")}}}},
		{"grams lie side by side", dict.PatientName, "smith^jo*", []Set{Any{Prefix{wholeNames, "SMITH^JO", name("\x04SM", "ITH", "^JO")}}}},
		{"a whole name ends", dict.PatientName, "li", []Set{Any{Prefix{wholeNames, "LI\x05", name("\x04LI", "LI\x05")}}}},
		{"an infix is not anchored", dict.PatientName, "*anna*", []Set{Any{name("ANN", "NNA")}}},
		{"a suffix is anchored at the end", dict.PatientName, "*ith", []Set{Any{name("ITH", "TH\x05")}}},
		{"one letter is a prefix", dict.PatientName, "s*", []Set{Any{Prefix{wholeNames, "S", Prefix{Index: nameGrams, Prefix: "\x04S"}}}}},
		{"delimiters before a wildcard do not count", dict.PatientName, "LI^*", []Set{Any{Prefix{wholeNames, "LI", name("\x04LI")}}}},
		{"an exact id is a patient", dict.PatientID, "P1", []Set{Patient{catalog.PatientKey{Issuer: "NORTH", ID: "P1"}}}},
		{"an exact accession is anchored at both ends", dict.AccessionNumber, "A12", []Set{Any{All{Term{accessionGrams, "\x04A12"}, Term{accessionGrams, "A12\x05"}}}}},
		{"UIDs are looked up", dict.StudyInstanceUID, `1.2\1.3`, []Set{Studies{[]string{"1.2", "1.3"}}}},
		{"modalities are terms", dict.ModalitiesInStudy, `CT\MR`, []Set{Any{Term{modalities, "CT"}, Term{modalities, "MR"}}}},
		{"too little is nothing", dict.PatientID, "*1*", nil},
	} {
		t.Run(test.rule, func(t *testing.T) {
			got := planOf(t, test.tag, test.value, match.Options{})
			want := slices.Clone(test.want)
			if _, exact := first(want).(Patient); !exact && len(want) > 0 {
				want[0] = orLeftOut(test.tag, want[0])
			}
			if len(got.Sets) != len(want) || len(got.Sets) > 0 && !equalSets(got.Sets[0], want[0]) {
				t.Errorf("%v, want %v", got.Sets, want)
			}
		})
	}
}

func first(sets []Set) Set {
	if len(sets) == 0 {
		return nil
	}
	return sets[0]
}

func equalSets(a, b Set) bool {
	switch a := a.(type) {
	case All:
		b, ok := b.(All)
		return ok && slices.EqualFunc(a, b, equalSets)
	case Any:
		b, ok := b.(Any)
		return ok && slices.EqualFunc(a, b, equalSets)
	case Words, Dictionary:
		return false
	case Studies:
		b, ok := b.(Studies)
		return ok && slices.Equal(a.UIDs, b.UIDs)
	case Prefix:
		b, ok := b.(Prefix)
		return ok && a.Index == b.Index && a.Prefix == b.Prefix && equalSets(a.Else, b.Else)
	}
	return a == b
}

func TestDatesAreSpans(t *testing.T) {
	for value, want := range map[string]int{"20240101-20240131": 2, "20240101": 2, "-20240131": 2} {
		p := planOf(t, dict.StudyDate, value, match.Options{})
		if len(p.Spans) != want || p.Spans[0] == (catalog.Span{Last: catalog.LastOrder()}) {
			t.Errorf("%s: spans %v", value, p.Spans)
		}
	}
}

func TestGramsAreRunsOfCharacters(t *testing.T) {
	for value, want := range map[string][]string{
		"":              nil,
		"A":             {"\x04A\x05"},
		"AB":            {"\x04AB", "AB\x05"},
		"Ünïé":          {"\x04Ün", "Ünï", "nïé", "ïé\x05"},
		"山田^":           {"\x04山田", "山田^", "田^\x05"},
		"A\x01B":        {"\x04A ", "A B", " B\x05"},
		"A\xFFB":        {"\x04A\uFFFD", "A\uFFFDB", "\uFFFDB\x05"},
		"\U0001F9B4\t!": {"\x04\U0001F9B4\t", "\U0001F9B4\t!", "\t!\x05"},
	} {
		var got []string
		grams(value, 3, func(g string) { got = append(got, g) })
		if !slices.Equal(got, want) {
			t.Errorf("grams of %q: %q, want %q", value, got, want)
		}
	}
	var long []string
	if grams("A", 4, func(g string) { long = append(long, g) }); !slices.Equal(long, []string{"\x04A\x05"}) {
		t.Errorf("a value that is too short for one: %q", long)
	}
}
