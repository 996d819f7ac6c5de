package dicom_test

import (
	"path/filepath"
	"strings"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
)

// The names that the samples are known to hold (PS3.5 Annexes H, I, J, K).
func TestPatientNamesOfTheCharsetSamples(t *testing.T) {
	names := map[string]string{
		"chrArab":                "قباني^لنزار",
		"chrFren":                "Buc^Jérôme",
		"chrGerm":                "Äneas^Rüdiger",
		"chrGreek":               "Διονυσιος",
		"chrH31":                 "Yamada^Tarou=山田^太郎=やまだ^たろう",
		"chrH32":                 "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
		"chrHbrw":                "שרון^דבורה",
		"chrI2":                  "Hong^Gildong=洪^吉洞=홍^길동",
		"chrJapMulti":            "やまだ^たろう",
		"chrJapMultiExplicitIR6": "やまだ^たろう",
		"chrKoreanMulti":         "김희중",
		"chrRuss":                "Люкceмбypг",
		"chrX1":                  "Wang^XiaoDong=王^小東=",
		"chrX2":                  "Wang^XiaoDong=王^小东=",
	}
	for name, want := range names {
		o, err := open(filepath.Join(samples.Dir(t), "charset", name+".dcm"))
		if err != nil {
			t.Error(err)
			continue
		}
		d := o.header.Dataset
		if got := d.String(dict.PatientName); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		// Writing it again must give the same name, and in the same set.
		again := dicom.NewDataset()
		again.Set(dict.SpecificCharacterSet, dict.CS, d.Strings(dict.SpecificCharacterSet)...)
		again.Set(dict.PatientName, dict.PN, want)
		if got := again.String(dict.PatientName); got != want {
			t.Errorf("%s written: %q, want %q", name, got, want)
		}
		if strings.HasPrefix(name, "chrH") {
			if got, orig := again.Get(dict.PatientName).Value, d.Get(dict.PatientName).Value; string(got) != string(orig) {
				t.Errorf("%s written: % X, the sample has % X", name, got, orig)
			}
		}
	}
}

func TestItemsHaveTheirOwnCharset(t *testing.T) {
	want := "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"
	for _, name := range []string{"chrSQEncoding", "chrSQEncoding1"} {
		o, err := open(filepath.Join(samples.Dir(t), "charset", name+".dcm"))
		if err != nil {
			t.Fatal(err)
		}
		item := o.header.Dataset.Get(dict.RequestedProcedureCodeSequence).Items[0]
		if got := item.String(dict.PatientName); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestDecode(t *testing.T) {
	tests := []struct {
		rule  string
		terms string
		vr    dict.VR
		in    string
		want  string
		fails bool
	}{
		{"default repertoire", "", dict.LO, "abc~", "abc~", false},
		{"default repertoire has no upper half", "", dict.LO, "a\xE4b", "a\uFFFDb", true},
		{"Latin 1", "ISO_IR 100", dict.LO, "\xE4\xF6\xFC", "äöü", false},
		{"Latin 2", "ISO_IR 101", dict.LO, "\xB1", "ą", false},
		{"Latin 3", "ISO_IR 109", dict.LO, "\xB1", "ħ", false},
		{"Latin 4", "ISO_IR 110", dict.LO, "\xB1", "ą", false},
		{"Cyrillic", "ISO_IR 144", dict.LO, "\xD0", "а", false},
		{"Arabic", "ISO_IR 127", dict.LO, "\xC7", "ا", false},
		{"Greek", "ISO_IR 126", dict.LO, "\xE1", "α", false},
		{"Hebrew", "ISO_IR 138", dict.LO, "\xE0", "א", false},
		{"Latin 5", "ISO_IR 148", dict.LO, "\xFD", "ı", false},
		{"Latin 9", "ISO_IR 203", dict.LO, "\xA4", "€", false},
		{"Thai", "ISO_IR 166", dict.LO, "\xA1", "ก", false},
		{"katakana", "ISO_IR 13", dict.LO, "\xD4\xCF", "ﾔﾏ", false},
		{"romaji tilde is an overline", "ISO_IR 13", dict.LO, "a~", "a‾", false},
		{"romaji backslash separates values", "ISO_IR 13", dict.LO, `a\b`, `a\b`, false},
		{"romaji backslash is a yen sign in text", "ISO_IR 13", dict.LT, `\100`, "¥100", false},
		{"shift JIS sent as ISO_IR 13", "ISO_IR 13", dict.LO, "\x8E\x52", "山", false},
		{"UTF-8", "ISO_IR 192", dict.LO, "Grüße", "Grüße", false},
		{"broken UTF-8", "ISO_IR 192", dict.LO, "a\xFFb", "a\uFFFDb", true},
		{"GB18030", "GB18030", dict.LO, "\xCD\xF5", "王", false},
		{"GB18030, four bytes", "GB18030", dict.LO, "\x81\x30\x84\x36", "¥", false},
		{"GBK, second byte is a backslash", "GBK", dict.LO, "\x8F\x5C", "廫", false},
		{"kanji by code extension", `\ISO 2022 IR 87`, dict.LO, "\x1B$B;3ED\x1B(B", "山田", false},
		{"kanji of 1978", `\ISO 2022 IR 87`, dict.LO, "\x1B$@;3ED\x1B(B", "山田", false},
		{"kanji alone in (0008,0005)", "ISO 2022 IR 87", dict.LO, "a\x1B$B;3\x1B(B", "a山", false},
		{"supplementary kanji", `\ISO 2022 IR 159`, dict.LO, "\x1B$(D\x30\x21\x1B(B", "丂", false},
		{"kanji byte 5C is no delimiter", `\ISO 2022 IR 87`, dict.LO, "\x1B$B\x25\x5C\x1B(B", "ボ", false},
		{"hangul", `\ISO 2022 IR 149`, dict.LO, "\x1B$)C\xB1\xE8", "김", false},
		{"hangul goes on after a delimiter without escape", `\ISO 2022 IR 149`, dict.PN, "\x1B$)C\xB1\xE8^\xB1\xE8", "김^김", false},
		{"hanzi by code extension", `\ISO 2022 IR 58`, dict.LO, "\x1B$)A\xCD\xF5", "王", false},
		{"G1 switched", `ISO 2022 IR 100\ISO 2022 IR 144`, dict.LO, "\xE4\x1B-L\xD0\x1B-A\xE4", "äаä", false},
		{"initial G1 returns after the delimiter", `ISO 2022 IR 100\ISO 2022 IR 144`, dict.LO, "\x1B-L\xD0\\\xE4", `а\ä`, false},
		{"initial G1 returns after ^ in PN", `ISO 2022 IR 100\ISO 2022 IR 144`, dict.PN, "\x1B-L\xD0^\xE4", `а^ä`, false},
		{"^ is no delimiter in LO", `ISO 2022 IR 100\ISO 2022 IR 144`, dict.LO, "\x1B-L\xD0^\xD0", `а^а`, false},
		{"initial G1 returns after a line", `ISO 2022 IR 100\ISO 2022 IR 144`, dict.LT, "\x1B-L\xD0\r\n\xE4", "а\r\nä", false},
		{"unknown escape sequence", "ISO 2022 IR 100", dict.LO, "a\x1B!zb", "a!zb", true},
		{"escape at the end", "ISO 2022 IR 100", dict.LO, "a\x1B", "a", true},
		{"half a character", `\ISO 2022 IR 149`, dict.LO, "\x1B$)C\xB1", "\uFFFD", true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			c, err := dicom.NewCharset(strings.Split(tt.terms, `\`))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Decode([]byte(tt.in), tt.vr)
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("% X is %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	tests := []struct {
		rule  string
		terms string
		vr    dict.VR
		in    string
		want  string
		fails bool
	}{
		{"default repertoire", "", dict.LO, "abc", "abc", false},
		{"what does not fit is a question mark", "", dict.LO, "aäb", "a?b", true},
		{"Latin 1", "ISO_IR 100", dict.LO, "äb", "\xE4b", false},
		{"no code extensions without ISO 2022", "ISO_IR 100", dict.LO, "а", "?", true},
		{"PN returns to ASCII before each delimiter", `\ISO 2022 IR 87`, dict.PN, "Y^T=山田^太郎", "Y^T=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B", false},
		{"and to romaji where that is initial", `ISO 2022 IR 13\ISO 2022 IR 87`, dict.PN, "ﾔ=山", "\xD4=\x1B$B;3\x1B(J", false},
		{"hangul is invoked again after a delimiter", `\ISO 2022 IR 149`, dict.PN, "김^김", "\x1B$)C\xB1\xE8^\x1B$)C\xB1\xE8", false},
		{"initial G1 is restored", `ISO 2022 IR 100\ISO 2022 IR 144`, dict.LO, `а\ä`, "\x1B-L\xD0\x1B-A\\\xE4", false},
		{"space leaves kanji", `\ISO 2022 IR 87`, dict.LO, "山 田", "\x1B$B;3\x1B(B \x1B$BED\x1B(B", false},
		{"yen in romaji text", "ISO_IR 13", dict.LT, "¥1", `\1`, false},
		{"GBK", "GBK", dict.LO, "王", "\xCD\xF5", false},
		{"GBK has no hangul", "GBK", dict.LO, "王김", "\xCD\xF5?", true},
		{"GB18030 has all", "GB18030", dict.LO, "김", "\x82\x38\x8B\x31", false},
		{"UTF-8", "ISO_IR 192", dict.LO, "王김ä", "王김ä", false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			c, err := dicom.NewCharset(strings.Split(tt.terms, `\`))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Encode(tt.in, tt.vr)
			if string(got) != tt.want || (err != nil) != tt.fails {
				t.Errorf("%q is % X, %v; want % X", tt.in, got, err, tt.want)
			}
			if back, err := c.Decode(got, tt.vr); !tt.fails && (back != tt.in || err != nil) {
				t.Errorf("back: %q, %v", back, err)
			}
		})
	}
}

func TestTermsAreTakenForWhatTheyMean(t *testing.T) {
	for _, term := range []string{"ISO_IR 100", "ISO-IR 100", "ISO IR 100", "ISO_IR_100", "iso_ir 100", "ISO 2022 IR 100", "ISO_2022_IR_100", "ISO 2022-IR 100", "latin1", "ISO-8859-1", "ISO_IR100"} {
		c, err := dicom.NewCharset([]string{term})
		if err != nil {
			t.Errorf("%s: %v", term, err)
			continue
		}
		if got, err := c.Decode([]byte("\xE4"), dict.LO); got != "ä" || err != nil {
			t.Errorf("%s: %q, %v", term, got, err)
		}
		if terms := c.Terms(); len(terms) != 1 || terms[0] != term {
			t.Errorf("%s: terms %q", term, terms)
		}
	}
	for _, term := range []string{"ISO_IR 6", "ISO 2022 IR 6", "", "ASCII"} {
		if c, err := dicom.NewCharset([]string{term}); err != nil {
			t.Errorf("%q: %v", term, err)
		} else if _, err := c.Decode([]byte("\xE4"), dict.LO); err == nil {
			t.Errorf("%q decodes beyond the default repertoire", term)
		}
	}
	for _, term := range []string{"UTF8", "UTF-8", "ISO_IR 192", "ISO IR 192", "utf_8"} {
		if c, err := dicom.NewCharset([]string{term}); err != nil {
			t.Errorf("%q: %v", term, err)
		} else if got, _ := c.Decode([]byte("ä"), dict.LO); got != "ä" {
			t.Errorf("%q: %q", term, got)
		}
	}
	c, err := dicom.NewCharset([]string{"ISO_IR 999"})
	if err == nil {
		t.Error("an unknown term is no error")
	}
	if got, _ := c.Decode([]byte("abc"), dict.LO); got != "abc" {
		t.Errorf("unknown term: %q, want the default repertoire", got)
	}
}

// Every character that a set can write it reads back, whatever the delimiters.
func FuzzCharset(f *testing.F) {
	terms := []string{
		"", "ISO_IR 100", "ISO_IR 13", "ISO_IR 166", "ISO_IR 192", "GB18030", "GBK", `\ISO 2022 IR 87\ISO 2022 IR 159`,
		`ISO 2022 IR 13\ISO 2022 IR 87`, `\ISO 2022 IR 149`, `\ISO 2022 IR 58`, `ISO 2022 IR 100\ISO 2022 IR 144\ISO 2022 IR 126\ISO 2022 IR 87`,
	}
	for i := range terms {
		f.Add(uint8(i), true, []byte("Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B\\\xE4\r\n"))
		f.Add(uint8(i), false, []byte("\x1B$)C\xB1\xE8\xB1\\\x1B-L\xD0\x1B)I\xB1\x1B(J~\x8E\x52"))
		f.Add(uint8(i), false, []byte("山田ä김ﾔ王"))
	}
	f.Fuzz(func(t *testing.T, which uint8, name bool, b []byte) {
		c, err := dicom.NewCharset(strings.Split(terms[int(which)%len(terms)], `\`))
		if err != nil {
			t.Fatal(err)
		}
		vr := dict.LO
		if name {
			vr = dict.PN
		}
		text, err := c.Decode(b, vr)
		if len(text) > 4*len(b)+8 {
			t.Fatalf("%d bytes became %d", len(b), len(text))
		}
		if err != nil {
			return
		}
		back, err := c.Encode(text, vr)
		if err != nil {
			return // such as a tilde beside romaji
		}
		if again, err := c.Decode(back, vr); err != nil || again != text {
			t.Errorf("%q became % X became %q, %v", text, back, again, err)
		}
	})
}
