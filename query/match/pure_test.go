package match

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pelago/dimse/dict"
)

func TestFoldName(t *testing.T) {
	for _, c := range []struct{ rule, name, want string }{
		{"case", "Smith^John", "SMITH^JOHN"},
		{"trailing delimiters", "Smith^John^^^", "SMITH^JOHN"},
		{"leading components stay", "^John", "^JOHN"},
		{"accents", "Müller^Jérôme", "MULLER^JEROME"},
		{"decomposed accents", "Mu\u0308ller", "MULLER"},
		{"sharp s", "Groß", "GROSS"},
		{"ligatures", "Æbelø^Œuvre", "AEBELO^OEUVRE"},
		{"Polish", "Łukasz^Żółć", "LUKASZ^ZOLC"},
		{"Icelandic", "Þórður^Ðorn", "THORDUR^DORN"},
		{"Turkish", "Işık^İnci", "ISIK^INCI"},
		{"apostrophe", "O'Brien", "OBRIEN"},
		{"typographic apostrophe", "O’Brien", "OBRIEN"},
		{"hyphen is a space", "Müller-Lüdenscheidt", "MULLER LUDENSCHEIDT"},
		{"long hyphen too", "Müller–Lüdenscheidt", "MULLER LUDENSCHEIDT"},
		{"spaces", "  van   der  Berg ^ Jan ", "VAN DER BERG^JAN"},
		{"full width", "Ｓｍｉｔｈ", "SMITH"},
		{"half-width kana", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ"},
		{"kana voicing stays", "ヤマダ", "ヤマダ"},
		{"Hangul", "김^희중", "김^희중"},
		{"Cyrillic", "Люкceмбypг", "ЛЮКCEМБYPГ"},
		{"Greek", "Διονυσιος", "ΔΙΟΝΥΣΙΟΣ"},
		{"Greek accents", "Διονύσιος", "ΔΙΟΝΥΣΙΟΣ"},
		{"Hebrew points", "שָׁלוֹם", "שלום"},
		{"Thai vowel signs stay", "กำ", "กํา"},
		{"empty", "^^^", ""},
	} {
		if got := FoldName(c.name); got != c.want {
			t.Errorf("%s: FoldName(%q) = %q, want %q", c.rule, c.name, got, c.want)
		}
	}
}

func TestLatinTableAgreesWithUnicode(t *testing.T) {
	for r := rune(0xC0); r < 0x180; r++ {
		if got, want := latinLetters[r-0xC0], foldLetters(string(r)); got != want {
			t.Errorf("%q: %q, want %q", r, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.RuneFrom([]rune("aZ ^'-ÄßøŁıſŉ×÷"))).Draw(t, "name")
		fast, ok := appendLatin(nil, []byte(s))
		slow := foldLetters(s)
		if ok && FoldName(string(fast)) != FoldName(slow) {
			t.Fatalf("%q: %q, want %q", s, fast, slow)
		}
	})
}

func TestFoldNameIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "name")
		once := FoldName(s)
		if twice := FoldName(once); twice != once {
			t.Fatalf("FoldName(%q) = %q, then %q", s, once, twice)
		}
	})
}

func TestFuzzyCodesSoundAlike(t *testing.T) {
	for _, group := range [][]string{
		{"Meyer", "Maier", "Mayr", "Meier", "Mayer"},
		{"Schmidt", "Schmitt", "Smith", "Schmid", "Smyth"},
		{"Müller", "Mueller", "Muller", "Miller"},
		{"Zhang", "Chang", "Jang"},
		{"Xu", "Hsu", "Shu"},
		{"Zhou", "Chou"},
		{"Qian", "Chien"},
		{"Tchaikovsky", "Tschaikowski", "Chaikovsky", "Chaikovskij"},
		{"Jansen", "Janssen", "Yansen"},
		{"Jensen", "Yensen"},
		{"Georg", "Jeorg"},
		{"Geoffrey", "Jeffrey", "Jeffry"},
		{"Philip", "Filip", "Phillipp"},
		{"Catherine", "Katharina", "Kathrine"},
		{"Steven", "Stephen", "Stefan"},
		{"Mohammed", "Muhammad", "Mohamed", "Mohamad"},
		{"Wagner", "Vagner"},
		{"Ivanov", "Iwanow", "Ivanoff"},
		{"Brown", "Braun"},
		{"Thompson", "Thomson", "Tomson"},
		{"Knight", "Night"},
		{"Wright", "Right"},
		{"Vaughan", "Vaughn", "Von"},
		{"Singh", "Sin"},
		{"Christian", "Kristian"},
		{"Xavier", "Javier"},
		{"Kowalski", "Kovalsky", "Kowalsky"},
		{"Horvath", "Horvat"},
		{"Nielsen", "Nilsson"},
		{"Yusuf", "Jusuf", "Youssef", "Joseph", "Josef"},
		{"Ives", "Yves"},
		{"Szymanski", "Shimanski"},
	} {
		for _, other := range group[1:] {
			if !matchWords(newWords(group[0]), []byte(other)) {
				t.Errorf("%s %v does not find %s %v", group[0], FuzzyCodes(group[0]), other, FuzzyCodes(other))
			}
		}
	}
}

func TestFuzzyCodesTellApart(t *testing.T) {
	for _, pair := range [][2]string{
		{"Smith", "Jones"}, {"Meyer", "Müller"}, {"Garcia", "Martinez"}, {"Wang", "Zhang"},
		{"Hansen", "Jensen"}, {"Peter", "Paul"}, {"Anna", "Maria"}, {"Kim", "Park"},
		{"Schneider", "Schmidt"}, {"Tanaka", "Suzuki"}, {"Ivanov", "Petrov"}, {"Williams", "Wilson"},
	} {
		if matchWords(newWords(pair[0]), []byte(pair[1])) {
			t.Errorf("%s %v finds %s %v", pair[0], FuzzyCodes(pair[0]), pair[1], FuzzyCodes(pair[1]))
		}
	}
}

func TestFuzzyWords(t *testing.T) {
	for _, c := range []struct {
		rule, key, name string
		want            bool
	}{
		{"order does not count", "John Smith", "Smith^John", true},
		{"every word counts", "John Meyer", "Smith^John", false},
		{"prefix", "Smi Jo", "Smith^John", true},
		{"prefix is of the letters", "Sch", "Smith^John", false},
		{"any group", "Yamada", "山田^太郎=ヤマダ^タロウ=Yamada^Tarou", true},
		{"words without Latin letters", "山田", "Yamada^Tarou=山田^太郎", true},
		{"their prefixes", "山", "Yamada^Tarou=山田^太郎", true},
		{"others do not", "川田", "Yamada^Tarou=山田^太郎", false},
	} {
		if got := matchWords(newWords(c.key), []byte(c.name)); got != c.want {
			t.Errorf("%s: %q finds %q: %v", c.rule, c.key, c.name, got)
		}
	}
}

// The contract of FuzzyCodes: a planner that looks words up by code or prefix
// finds all that matchWords finds.
func TestFuzzyCodesDecideAsMatching(t *testing.T) {
	word := rapid.StringMatching(`[A-Z]{1,9}`)
	rapid.Check(t, func(t *rapid.T) {
		key, name := word.Draw(t, "key"), word.Draw(t, "name")
		want := strings.HasPrefix(name, key)
		for _, a := range FuzzyCodes(key) {
			for _, b := range FuzzyCodes(name) {
				want = want || a == b
			}
		}
		if got := matchWords(newWords(key), []byte(name)); got != want {
			t.Fatalf("matchWords(%q, %q) = %v; codes %v and %v", key, name, got, FuzzyCodes(key), FuzzyCodes(name))
		}
	})
}

func TestGlobAgreesWithRegexp(t *testing.T) {
	alphabet := rapid.StringOfN(rapid.RuneFrom([]rune("ab*?é山")), 0, 10, -1)
	text := rapid.StringOfN(rapid.RuneFrom([]rune("abé山")), 0, 14, -1)
	rapid.Check(t, func(t *rapid.T) {
		pattern, value := alphabet.Draw(t, "pattern"), text.Draw(t, "value")
		quoted := regexp.QuoteMeta(pattern)
		quoted = strings.ReplaceAll(strings.ReplaceAll(quoted, `\*`, `.*`), `\?`, `.`)
		want := regexp.MustCompile(`(?s)\A` + quoted + `\z`).MatchString(value)
		g := newGlob(pattern)
		if got := g.match([]byte(value)); got != want {
			t.Fatalf("pattern %q, value %q: %v, want %v", pattern, value, got, want)
		}
	})
}

func TestCalendarAgreesWithTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		days := rapid.Int64Range(-700000, 2900000).Draw(t, "days")
		want := time.Unix(days*86400, 0).UTC()
		y, m, d := dateOf(days)
		if y != want.Year() || m != int(want.Month()) || d != want.Day() {
			t.Fatalf("dateOf(%d) = %d-%d-%d, want %v", days, y, m, d, want)
		}
		if back := daysFrom(y, m, d); back != days {
			t.Fatalf("daysFrom(%d, %d, %d) = %d, want %d", y, m, d, back, days)
		}
	})
}

func TestParseTime(t *testing.T) {
	const s = second
	for _, c := range []struct {
		value  string
		lo, hi int64
		ok     bool
	}{
		{"10", 36000 * s, 39600*s - 1, true},
		{"1030", 37800 * s, 37860*s - 1, true},
		{"103015", 37815 * s, 37816*s - 1, true},
		{"103015.5", 37815*s + 500000, 37815*s + 599999, true},
		{"103015.123456", 37815*s + 123456, 37815*s + 123456, true},
		{"10:30:15", 37815 * s, 37816*s - 1, true},
		{"10:30:15.25", 37815*s + 250000, 37815*s + 259999, true},
		{"235960", 86399 * s, 86400*s - 1, true},
		{"24", 0, 0, false},
		{"1060", 0, 0, false},
		{"103061", 0, 0, false},
		{"1", 0, 0, false},
		{"103015.", 0, 0, false},
		{"103015.1234567", 0, 0, false},
		{"10301", 0, 0, false},
		{"", 0, 0, false},
		{"ab", 0, 0, false},
	} {
		lo, hi, ok := parseTM([]byte(c.value))
		if ok != c.ok || ok && (lo != c.lo || hi != c.hi) {
			t.Errorf("parseTM(%q) = %d, %d, %v; want %d, %d, %v", c.value, lo, hi, ok, c.lo, c.hi, c.ok)
		}
	}
}

func TestParseDate(t *testing.T) {
	for value, want := range map[string]string{
		"20240229": "20240229", "2024.02.29": "20240229", "00010101": "00010101", "99991231": "99991231",
		"20230229": "", "20241301": "", "20240100": "", "2024": "", "2024-02-29": "", "": "", "2024022a": "",
	} {
		at, ok := parseDA([]byte(value))
		if ok != (want != "") || ok && formatDate(at) != want {
			t.Errorf("parseDA(%q) = %s, %v; want %q", value, formatDate(at), ok, want)
		}
	}
}

func TestParseSpanOfDateTimes(t *testing.T) {
	for _, c := range []struct{ value, low, high string }{
		{"2020", "20200101000000.000000", "20201231235959.999999"},
		{"202002", "20200201000000.000000", "20200229235959.999999"},
		{"20200203", "20200203000000.000000", "20200203235959.999999"},
		{"2020020310", "20200203100000.000000", "20200203105959.999999"},
		{"2020-2021", "20200101000000.000000", "20211231235959.999999"},
		{"20200101-", "20200101000000.000000", ""},
		{"-2021", "", "20211231235959.999999"},
		{"20200101120000-0500", "20200101120000.000000", "20200101120000.999999"},
		{"20200101120000-0500-20200101130000-0500", "20200101170000.000000", "20200101180000.999999"},
		{"20200101120000+0100-", "20200101110000.000000", ""},
		{"20200101 - 20200102", "20200101000000.000000", "20200102235959.999999"},
	} {
		s, _, err := parseSpan([]byte(c.value), dict.DT)
		if err != nil {
			t.Errorf("%q: %v", c.value, err)
			continue
		}
		if low, high := formatBound(s.lo, dict.DT), formatBound(s.hi, dict.DT); low != c.low || high != c.high {
			t.Errorf("%q = %s to %s, want %s to %s", c.value, low, high, c.low, c.high)
		}
	}
	for _, bad := range []string{"20", "20201", "2020a", "20201301", "2020-x", "2020+9900", "20200101-20200102+0100"} {
		if s, _, err := parseSpan([]byte(bad), dict.DT); err == nil {
			t.Errorf("%q = %+v, want an error", bad, s)
		}
	}
}

func TestDecimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64Range(-1e12, 1e12).Draw(t, "f")
		s := fmt.Sprintf("%.*f", rapid.IntRange(0, 8).Draw(t, "places"), f)
		var want float64
		fmt.Sscan(s, &want)
		if got, ok := decimal([]byte(s)); !ok || got != want {
			t.Fatalf("decimal(%q) = %v, %v; want %v", s, got, ok, want)
		}
	})
	for s, want := range map[string]float64{"1e3": 1000, "+5": 5, "011": 11, ".5": 0.5, "5.": 5, "-.5": -0.5, "1E-2": 0.01} {
		if got, ok := decimal([]byte(s)); !ok || got != want {
			t.Errorf("decimal(%q) = %v, %v; want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "+", ".", "1.2.3", "0x10", "inf", "NaN", "1_0", "1 2"} {
		if got, ok := decimal([]byte(s)); ok {
			t.Errorf("decimal(%q) = %v, want none", s, got)
		}
	}
}
