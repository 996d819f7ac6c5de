package dimsetest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/japanese"
)

func TestInstancesAreValidInEverySyntax(t *testing.T) {
	for _, syntax := range []string{"", ImplicitLittleEndian, ExplicitLittleEndian, DeflatedExplicitLittleEndian, ExplicitBigEndian} {
		t.Run(syntax, func(t *testing.T) {
			i := CT(1, 7)
			i.Rows, i.Columns, i.Frames, i.Syntax = 3, 5, 2, syntax
			path := filepath.Join(t.TempDir(), "a.dcm")
			if err := os.WriteFile(path, i.File(), 0o600); err != nil {
				t.Fatal(err)
			}
			out := Run(t, "dcmdump", "-q", "+P", "0020,0013", "+P", "0028,0010", "+P", "0028,0008", "+P", "7fe0,0010", "+L", path)
			for _, want := range []string{"[8]", "US 3 ", "[2]", "#  60, 1 PixelData", "InstanceNumber"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

func TestCTHasTheSizeOfARealSlice(t *testing.T) {
	if n := len(CT(1, 0).File()); n < 525_000 || n > 527_000 {
		t.Errorf("%d bytes", n)
	}
}

func TestNamesDecodeToTheirText(t *testing.T) {
	for _, name := range Names {
		t.Run(name.Charset+" "+name.Text, func(t *testing.T) {
			decode := decodeDcmtk
			if strings.Contains(name.Charset, "IR 87") { // which glibc's iconv lacks
				decode = decodeJapanese
			}
			if got, want := strings.TrimRight(decode(t, name), "="), strings.TrimRight(name.Text, "="); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// decodeDcmtk has dcm2json decode a name.
func decodeDcmtk(t *testing.T, name Name) string {
	i := CT(1, 0)
	i.Rows, i.Columns, i.PatientName = 1, 1, name
	path := filepath.Join(t.TempDir(), "a.dcm")
	if err := os.WriteFile(path, i.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	var set struct {
		Name struct{ Value []map[string]string } `json:"00100010"`
	}
	out := Run(t, "dcm2json", path)
	if err := json.Unmarshal([]byte(out), &set); err != nil || len(set.Name.Value) != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	got := set.Name.Value[0]
	return got["Alphabetic"] + "=" + got["Ideographic"] + "=" + got["Phonetic"]
}

// decodeJapanese decodes ISO 2022 IR 87, and IR 13 in the upper half.
func decodeJapanese(t *testing.T, name Name) string {
	var out strings.Builder
	for part := range strings.SplitAfterSeq(name.Bytes, "=") {
		if part[0] >= 0xA1 {
			for _, b := range []byte(part) {
				r := rune(b)
				if b >= 0xA1 { // JIS X 0201 katakana
					r = 0xFF61 + rune(b-0xA1)
				}
				out.WriteRune(r)
			}
			continue
		}
		text, err := japanese.ISO2022JP.NewDecoder().String(part)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(text)
	}
	return out.String()
}

func TestWorldIsTheSameForTheSameSeed(t *testing.T) {
	w := World{Seed: 3, Patients: 20, StudiesPerPatient: 2, SeriesPerStudy: 2, PerSeries: 3, Syntaxes: []string{ImplicitLittleEndian, ExplicitBigEndian}}
	uids := map[string]bool{}
	studies := map[string]bool{}
	charsets := map[string]bool{}
	var first []Instance
	for i := range w.All() {
		uids[i.SOPInstanceUID] = true
		studies[i.StudyInstanceUID] = true
		charsets[i.PatientName.Charset] = true
		first = append(first, i)
	}
	if len(uids) != 240 || len(studies) != 40 || len(charsets) < 8 {
		t.Errorf("%d instances, %d studies, %d character sets", len(uids), len(studies), len(charsets))
	}
	again := slices.Collect(w.All())
	if !slices.Equal(first, again) {
		t.Error("a second run differs")
	}
	for n, i := range slices.Collect(w.Study(7, 1)) {
		if want := first[(7*2+1)*6+n]; i != want || !bytes.Equal(i.File(), want.File()) {
			t.Errorf("study asked alone differs at %d", n)
		}
	}
	if w.Seed++; slices.Equal(first, slices.Collect(w.All())) {
		t.Error("another seed gives the same")
	}
}
