package dicomjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

func parseOne(t testing.TB, text string) (*dicom.Dataset, []BulkRef) {
	t.Helper()
	sets, refs, err := Parse(strings.NewReader(text), DefaultLimits)
	if err != nil || len(sets) != 1 {
		t.Fatalf("%s: %d data sets, %v", text, len(sets), err)
	}
	return sets[0], refs
}

func TestParseValues(t *testing.T) {
	for _, c := range []struct {
		rule, attribute string
		tag             dict.Tag
		vr              dict.VR
		value           string
	}{
		{"text", `"00100020":{"vr":"LO","Value":["P1"]}`, dict.PatientID, dict.LO, "P1"},
		{"padded", `"00100020":{"vr":"LO","Value":["P12"]}`, dict.PatientID, dict.LO, "P12 "},
		{"UIDs padded with null", `"0020000D":{"vr":"UI","Value":["1.2"]}`, dict.StudyInstanceUID, dict.UI, "1.2\x00"},
		{"lower case tag", `"0020000d":{"vr":"UI","Value":["1.23"]}`, dict.StudyInstanceUID, dict.UI, "1.23"},
		{"several values, null for empty", `"00080008":{"vr":"CS","Value":["A",null,"B"]}`, dict.ImageType, dict.CS, `A\\B`},
		{"members in another order", `"00100020":{"Value":["P1"],"vr":"LO"}`, dict.PatientID, dict.LO, "P1"},
		{"without VR", `"00100020":{"Value":["P1"]}`, dict.PatientID, dict.LO, "P1"},
		{"unknown members", `"00100020":{"vr":"LO","x":[1,{"y":null}],"Value":["P1"]}`, dict.PatientID, dict.LO, "P1"},
		{"empty", `"00100020":{"vr":"LO"}`, dict.PatientID, dict.LO, ""},
		{"null alone", `"00100020":{"vr":"LO","Value":[null]}`, dict.PatientID, dict.LO, ""},
		{"escapes", `"00104000":{"vr":"LT","Value":["\u00e9\\\n"]}`, dict.PatientComments, dict.LT, "é\\\n"},
		{"name", `"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B","Phonetic":"C"}]}`, dict.PatientName, dict.PN, "A^B==C"},
		{"name as it should not be", `"00100010":{"vr":"PN","Value":["A^B "]}`, dict.PatientName, dict.PN, "A^B "},
		{"names, one empty", `"00081070":{"vr":"PN","Value":[{"Alphabetic":"A"},null,{}]}`, dict.OperatorsName, dict.PN, `A\\ `},
		{"IS number", `"00200013":{"vr":"IS","Value":[7,"08",1.0]}`, dict.InstanceNumber, dict.IS, `7\08\1`},
		{"DS keeps digits", `"00180050":{"vr":"DS","Value":[1.50]}`, dict.SliceThickness, dict.DS, "1.50"},
		{"US", `"00280010":{"vr":"US","Value":[512,1e1]}`, dict.Rows, dict.US, "\x00\x02\x0a\x00"},
		{"SS", `"00280106":{"vr":"SS","Value":[-1]}`, dict.SmallestImagePixelValue, dict.SS, "\xff\xff"},
		{"SV as text", `"00091001":{"vr":"SV","Value":["-9223372036854775808"]}`, 0x00091001, dict.SV, "\x00\x00\x00\x00\x00\x00\x00\x80"},
		{"UV", `"00091001":{"vr":"UV","Value":[1]}`, 0x00091001, dict.UV, "\x01\x00\x00\x00\x00\x00\x00\x00"},
		{"AT", `"00280009":{"vr":"AT","Value":["00181063"]}`, dict.FrameIncrementPointer, dict.AT, "\x18\x00\x63\x10"},
		{"FL infinite", `"00189313":{"vr":"FL","Value":["inf","-Infinity"]}`, 0x00189313, dict.FL, "\x00\x00\x80\x7f\x00\x00\x80\xff"},
		{"base64", `"00281201":{"vr":"OW","InlineBinary":"AQI="}`, 0x00281201, dict.OW, "\x01\x02"},
		{"base64 without padding", `"00281201":{"vr":"OW","InlineBinary":"AQI"}`, 0x00281201, dict.OW, "\x01\x02"},
		{"odd base64", `"00091001":{"vr":"UN","InlineBinary":"AQ=="}`, 0x00091001, dict.UN, "\x01\x00"},
	} {
		ds, refs := parseOne(t, "["+"{"+c.attribute+"}"+"]")
		e := ds.Get(c.tag)
		if e == nil || e.VR != c.vr || string(e.Value) != c.value || len(refs) > 0 {
			t.Errorf("%s: %+v, want %v %q", c.rule, e, c.vr, c.value)
		}
		if ds.String(dict.SpecificCharacterSet) != "ISO_IR 192" || ds.Syntax.UID != dict.ExplicitLittleEndian {
			t.Errorf("%s: character set %q, syntax %s", c.rule, ds.String(dict.SpecificCharacterSet), ds.Syntax.UID)
		}
	}
}

func TestParseDropsEncoding(t *testing.T) {
	ds, refs := parseOne(t, `{"00020010":{"vr":"UI","Value":["1.2"]},"00080000":{"vr":"UL","Value":[1]},
		"00080005":{"vr":"CS","Value":["ISO_IR 100"]},"00020102":{"vr":"OB","BulkDataURI":"x"}}`)
	if len(ds.Elements) != 1 || ds.String(dict.SpecificCharacterSet) != "ISO_IR 192" || len(refs) != 0 {
		t.Errorf("%+v, %v", ds.Elements, refs)
	}
}

func TestParseReferences(t *testing.T) {
	sets, refs, err := Parse(strings.NewReader(`[{"7FE00010":{"vr":"OW","BulkDataURI":"part1"}},
		{"00880200":{"Value":[{},{"7FE00010":{"BulkDataURI":"part2","vr":"OB"}}],"vr":"SQ"},"00420011":{"vr":"OB","BulkDataURI":"part3"}}]`), DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	want := []BulkRef{{0, "7FE00010", dict.OW, "part1"}, {1, "00880200/2/7FE00010", dict.OB, "part2"}, {1, "00420011", dict.OB, "part3"}}
	if fmt.Sprint(refs) != fmt.Sprint(want) {
		t.Fatalf("%v, want %v", refs, want)
	}
	for _, r := range refs {
		e, _, err := Resolve(sets[r.Dataset], r.Path)
		if err != nil || e.VR != r.VR || len(e.Value) != 0 {
			t.Errorf("%+v resolves to %+v, %v", r, e, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"0040A730":{"vr":"SQ","Value":[`, 66) + "{}" + strings.Repeat("]}}", 66)
	for rule, text := range map[string]string{
		"nothing":                    ``,
		"no JSON":                    `[{`,
		"cut short":                  `[{"00100020":{"vr":"LO","Value":["a`,
		"a string":                   `"x"`,
		"more than one value":        `[] []`,
		"trailing rubbish":           `[{}] x`,
		"a data set that is none":    `[1]`,
		"a name that is no tag":      `{"PatientID":{"vr":"LO"}}`,
		"an attribute that is none":  `{"00100020":"x"}`,
		"an unknown VR":              `{"00100020":{"vr":"XX"}}`,
		"a long VR":                  `{"00100020":{"vr":"LOO"}}`,
		"a VR that is a number":      `{"00100020":{"vr":1}}`,
		"a tag twice":                `{"00100020":{"vr":"LO"},"00100020":{"vr":"LO"}}`,
		"a value that is no array":   `{"00100020":{"vr":"LO","Value":"x"}}`,
		"a boolean":                  `{"00100020":{"vr":"LO","Value":[true]}}`,
		"an array in an array":       `{"00100020":{"vr":"LO","Value":[["x"]]}}`,
		"two forms":                  `{"00100020":{"vr":"LO","Value":["x"],"BulkDataURI":"y"}}`,
		"a backslash":                `{"00100020":{"vr":"LO","Value":["a\\b"]}}`,
		"two texts":                  `{"00104000":{"vr":"LT","Value":["a","b"]}}`,
		"a number out of range":      `{"00280010":{"vr":"US","Value":[65536]}}`,
		"a negative unsigned":        `{"00280010":{"vr":"US","Value":[-1]}}`,
		"a fraction":                 `{"00280010":{"vr":"US","Value":[1.5]}}`,
		"an empty number":            `{"00280010":{"vr":"US","Value":[null]}}`,
		"text for a number":          `{"00280010":{"vr":"US","Value":["x"]}}`,
		"hexadecimal float":          `{"00189313":{"vr":"FL","Value":["0x1p4"]}}`,
		"a float out of range":       `{"00189313":{"vr":"FL","Value":[1e300]}}`,
		"no attribute tag":           `{"00280009":{"vr":"AT","Value":["x"]}}`,
		"values of a bulk VR":        `{"7FE00010":{"vr":"OW","Value":[1]}}`,
		"base64 for text":            `{"00100020":{"vr":"LO","InlineBinary":"AQI="}}`,
		"no base64":                  `{"7FE00010":{"vr":"OW","InlineBinary":"*"}}`,
		"items in text":              `{"00100020":{"vr":"LO","Value":[{"00100020":{"vr":"LO"}}]}}`,
		"text in a sequence":         `{"0040A730":{"vr":"SQ","Value":["x"]}}`,
		"a name in a sequence":       `{"0040A730":{"vr":"SQ","Value":[{"Alphabetic":"x"}]}}`,
		"a sequence by reference":    `{"0040A730":{"vr":"SQ","BulkDataURI":"x"}}`,
		"a name of unknown groups":   `{"00100010":{"vr":"PN","Value":[{"Alphabetisch":"x"}]}}`,
		"a delimiter in a group":     `{"00100010":{"vr":"PN","Value":[{"Alphabetic":"a=b"}]}}`,
		"a group that is no text":    `{"00100010":{"vr":"PN","Value":[{"Alphabetic":1}]}}`,
		"items nested too deep":      deep,
		"extensions nested too deep": `{"00100020":{"vr":"LO","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`,
	} {
		if sets, _, err := Parse(strings.NewReader(text), DefaultLimits); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", rule, sets, err)
		}
	}
}

func TestParseLimits(t *testing.T) {
	text := `[{"00080008":{"vr":"CS","Value":["A","B"]}},{"00080008":{"vr":"CS","Value":["A","B"]}}]`
	fits := Limits{Bytes: int64(len(text)), Depth: 1, Elements: 6, Datasets: 2}
	if _, _, err := Parse(strings.NewReader(text), fits); err != nil {
		t.Fatalf("what fits: %v", err)
	}
	for name, change := range map[string]func(*Limits){
		"Bytes": func(l *Limits) { l.Bytes-- }, "Elements": func(l *Limits) { l.Elements-- }, "Datasets": func(l *Limits) { l.Datasets-- },
	} {
		l := fits
		change(&l)
		if _, _, err := Parse(strings.NewReader(text), l); !fault.Is(err, fault.Invalid) {
			t.Errorf("one less of %s: %v", name, err)
		}
	}
}

func TestParseKeepsTheSourcesError(t *testing.T) {
	gone := fault.New(fault.Unavailable, "connection lost")
	if _, _, err := Parse(io.MultiReader(strings.NewReader(`[{"0010`), iotest.ErrReader(gone)), DefaultLimits); !errors.Is(err, gone) {
		t.Errorf("%v, want %v", err, gone)
	}
}

// Errors go to logs, and logs hold no patient data.
func TestParseErrorsQuoteNothing(t *testing.T) {
	for _, text := range []string{
		`{"00100010":{"vr":"PN","Value":["Secret" "x"]}}`, `{"00100010":{"vr":"PN","Value":[Secret]}}`,
		`{"00280010":{"vr":"US","Value":["Secret"]}}`, `{"Secret":{}}`, `{"00100010":{"vr":"Secret"}}`,
	} {
		if _, _, err := Parse(strings.NewReader(text), DefaultLimits); err == nil || strings.Contains(err.Error(), "Secret") || strings.Contains(err.Error(), "'S'") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// drawDataset draws a data set that the model holds without loss.
func drawDataset(t *rapid.T, depth int) *dicom.Dataset {
	ds := dicom.NewDataset()
	letters := rapid.StringOfN(rapid.RuneFrom([]rune(`abzÄ山"<&> /`)), 1, 8, -1)
	value := rapid.Custom(func(t *rapid.T) string { return "x" + letters.Draw(t, "text") + "x" })
	for range rapid.IntRange(0, 6).Draw(t, "attributes") {
		switch rapid.IntRange(0, 8).Draw(t, "kind") {
		case 0:
			ds.Set(dict.PatientID, dict.LO, value.Draw(t, "id"))
		case 1:
			ds.Set(dict.OtherPatientNames, dict.PN, value.Draw(t, "family")+"^"+value.Draw(t, "given")+"="+value.Draw(t, "ideographic"), value.Draw(t, "name"))
		case 2:
			ds.Set(dict.ImageType, dict.CS, "A", "", value.Draw(t, "code"))
		case 3:
			ds.SetUint(dict.Rows, dict.US, uint64(rapid.Uint16().Draw(t, "rows")), 7)
		case 4:
			put(ds, 0x00189313, dict.FD, le64(rapid.Float64().Draw(t, "float")))
		case 5:
			put(ds, 0x00091001, dict.UN, string(rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "bytes")))
		case 6:
			ds.SetUint(dict.FrameIncrementPointer, dict.AT, uint64(rapid.Uint32().Draw(t, "tag")))
		case 7:
			ds.Set(dict.PatientComments, dict.LT, value.Draw(t, "comment")+"\\\r\n"+value.Draw(t, "comment"))
		default:
			if depth < 3 {
				var items []*dicom.Dataset
				for range rapid.IntRange(0, 2).Draw(t, "items") {
					items = append(items, drawDataset(t, depth+1))
				}
				ds.SetSequence(dict.ContentSequence, items...)
			}
		}
	}
	if depth > 0 {
		ds.Remove(dict.SpecificCharacterSet)
	} else {
		put(ds, dict.SpecificCharacterSet, dict.CS, "ISO_IR 192")
	}
	return ds
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := drawDataset(t, 0)
		b, err := AppendDataset(nil, ds, Options{})
		if err != nil {
			t.Fatal(err)
		}
		sets, _, err := Parse(bytes.NewReader(b), DefaultLimits)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		want, err := ds.Encode(nil, ds.Syntax)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sets[0].Encode(nil, ds.Syntax)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %v\n%q, want\n%q", b, err, got, want)
		}
	})
}

// FuzzParse takes any text: nothing panics, failures are of kind Invalid, and
// what is read can be written and read to the same again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`[{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B"},null,{}]},"7FE00010":{"vr":"OW","BulkDataURI":"x"}}]`,
		`{"0040A730":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["1"]}},{}]}}`,
		`{"00280010":{"vr":"US","Value":[1]},"00189313":{"vr":"FD","Value":[1e5,"NaN"]},"00280009":{"vr":"AT","Value":["00181063"]}}`,
		`[{"00091001":{"vr":"UN","InlineBinary":"AQI="},"00091002":{"Value":[]},"00091003":{"x":{"y":[1]}}}]`,
		`[{"00180050":{"vr":"DS","Value":[1e-016,"+.5"]},"00104000":{"vr":"LT","Value":["\ud800\\\u0000"]}}]`,
	} {
		f.Add([]byte(seed))
	}
	limits := Limits{Bytes: 1 << 16, Depth: 8, Elements: 1000, Datasets: 10}
	f.Fuzz(func(t *testing.T, text []byte) {
		sets, refs, err := Parse(bytes.NewReader(text), limits)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		for _, r := range refs {
			if _, _, err := Resolve(sets[r.Dataset], r.Path); err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
		}
		for _, ds := range sets {
			once, err := AppendDataset(nil, ds, Options{})
			if err != nil {
				t.Fatal(err)
			}
			again, _, err := Parse(bytes.NewReader(once), DefaultLimits)
			if err != nil {
				t.Fatalf("%s: %v", once, err)
			}
			twice, err := AppendDataset(nil, again[0], Options{})
			if err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%v\n%s\n%s", err, once, twice)
			}
		}
	})
}
