package dicomxml

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
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
)

func put(ds *dicom.Dataset, t dict.Tag, vr dict.VR, value string) {
	ds.Put(dicom.Element{Tag: t, VR: vr, Value: []byte(value)})
}

// body returns what stands inside the root element.
func body(t testing.TB, ds *dicom.Dataset, o dicomjson.Options) string {
	t.Helper()
	b, err := AppendDataset(nil, ds, o)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := strings.CutPrefix(string(b), head)
	s, end := strings.CutSuffix(s, foot)
	if !ok || !end {
		t.Fatalf("no document: %s", b)
	}
	return s
}

func TestWriteValues(t *testing.T) {
	for _, c := range []struct {
		rule  string
		tag   dict.Tag
		vr    dict.VR
		value string
		want  string
	}{
		{"value", dict.PatientID, dict.LO, "P1 ", `<DicomAttribute tag="00100020" vr="LO" keyword="PatientID"><Value number="1">P1</Value></DicomAttribute>`},
		{"empty", dict.PatientID, dict.LO, "", `<DicomAttribute tag="00100020" vr="LO" keyword="PatientID"></DicomAttribute>`},
		{"several values, empty ones too", dict.ImageType, dict.CS, `A\\B\`, `<DicomAttribute tag="00080008" vr="CS" keyword="ImageType"><Value number="1">A</Value><Value number="2"></Value><Value number="3">B</Value><Value number="4"></Value></DicomAttribute>`},
		{"markup", dict.PatientID, dict.LO, `<a b="c">&`, `<DicomAttribute tag="00100020" vr="LO" keyword="PatientID"><Value number="1">&lt;a b=&#34;c&#34;&gt;&amp;</Value></DicomAttribute>`},
		{"controls", dict.PatientComments, dict.LT, "a\r\n\t\x0c\x1fb ", "<DicomAttribute tag=\"00104000\" vr=\"LT\" keyword=\"PatientComments\"><Value number=\"1\">a&#13;&#10;&#9;\uFFFD\uFFFDb</Value></DicomAttribute>"},
		{"characters that XML has not", dict.PatientComments, dict.LT, "\uFFFE\uFFFF😀", "<DicomAttribute tag=\"00104000\" vr=\"LT\" keyword=\"PatientComments\"><Value number=\"1\">\uFFFD\uFFFD😀</Value></DicomAttribute>"},
		{"name", dict.PatientName, dict.PN, `A^B^^^D=山^田`, `<DicomAttribute tag="00100010" vr="PN" keyword="PatientName"><PersonName number="1"><Alphabetic><FamilyName>A</FamilyName><GivenName>B</GivenName><NameSuffix>D</NameSuffix></Alphabetic><Ideographic><FamilyName>山</FamilyName><GivenName>田</GivenName></Ideographic></PersonName></DicomAttribute>`},
		{"phonetic name", dict.PatientName, dict.PN, `==や `, `<DicomAttribute tag="00100010" vr="PN" keyword="PatientName"><PersonName number="1"><Phonetic><FamilyName>や</FamilyName></Phonetic></PersonName></DicomAttribute>`},
		{"numbers", dict.Rows, dict.US, "\x00\x02\x01\x00", `<DicomAttribute tag="00280010" vr="US" keyword="Rows"><Value number="1">512</Value><Value number="2">1</Value></DicomAttribute>`},
		{"IS as it is", dict.SeriesNumber, dict.IS, "011 ", `<DicomAttribute tag="00200011" vr="IS" keyword="SeriesNumber"><Value number="1">011</Value></DicomAttribute>`},
		{"AT", dict.FrameIncrementPointer, dict.AT, "\x18\x00\x63\x10", `<DicomAttribute tag="00280009" vr="AT" keyword="FrameIncrementPointer"><Value number="1">00181063</Value></DicomAttribute>`},
		{"binary", 0x00281201, dict.OW, "\x01\x02", `<DicomAttribute tag="00281201" vr="OW" keyword="RedPaletteColorLookupTableData"><InlineBinary>AQI=</InlineBinary></DicomAttribute>`},
		{"character set", dict.SpecificCharacterSet, dict.CS, "ISO_IR 100", `<DicomAttribute tag="00080005" vr="CS" keyword="SpecificCharacterSet"><Value number="1">ISO_IR 192</Value></DicomAttribute>`},
		{"private without creator", 0x00091001, dict.LO, "x ", `<DicomAttribute tag="00091001" vr="LO"><Value number="1">x</Value></DicomAttribute>`},
		{"group length", 0x00080000, dict.UL, "\x00\x00\x00\x00", ``},
	} {
		ds := dicom.NewDataset()
		put(ds, c.tag, c.vr, c.value)
		if got := body(t, ds, dicomjson.Options{}); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.rule, got, c.want)
		}
	}
}

func TestPrivateBlocks(t *testing.T) {
	ds := dicom.NewDataset()
	put(ds, 0x00090010, dict.LO, "ACME")
	put(ds, 0x00091001, dict.LO, "x ")
	want := `<DicomAttribute tag="00090010" vr="LO"><Value number="1">ACME</Value></DicomAttribute>` +
		`<DicomAttribute tag="00090001" vr="LO" privateCreator="ACME"><Value number="1">x</Value></DicomAttribute>`
	if got := body(t, ds, dicomjson.Options{}); got != want {
		t.Errorf("one block:\n%s, want\n%s", got, want)
	}
	put(ds, 0x00090011, dict.LO, "ACME")
	put(ds, 0x00091101, dict.LO, "y ")
	if got := body(t, ds, dicomjson.Options{}); strings.Contains(got, "privateCreator") || !strings.Contains(got, `tag="00091101"`) {
		t.Errorf("two blocks of one creator: %s", got)
	}
}

func TestPrivateBlocksAreFound(t *testing.T) {
	attribute := func(tag, creator, value string) string {
		return fmt.Sprintf(`<DicomAttribute tag="%s" vr="LO" privateCreator="%s"><Value number="1">%s</Value></DicomAttribute>`, tag, creator, value)
	}
	creator := `<DicomAttribute tag="00090012" vr="LO"><Value number="1">ACME</Value></DicomAttribute>`
	for _, c := range []struct {
		rule, text string
		want       map[dict.Tag]string
	}{
		{"creator before", creator + attribute("00090001", "ACME", "x"), map[dict.Tag]string{0x00090012: "ACME", 0x00091201: "x"}},
		{"creator after", attribute("00090001", "ACME", "x") + creator, map[dict.Tag]string{0x00090012: "ACME", 0x00091201: "x"}},
		{"no creator", attribute("00090001", "ACME", "x") + attribute("00090002", "ACME", "y"), map[dict.Tag]string{0x00090010: "ACME", 0x00091001: "x", 0x00091002: "y"}},
		{"two creators", attribute("00090001", "A", "x") + attribute("00090001", "B", "y"), map[dict.Tag]string{0x00090010: "A", 0x00091001: "x", 0x00090011: "B", 0x00091101: "y"}},
		{"a block in use", `<DicomAttribute tag="00091002" vr="LO"/>` + attribute("00090001", "A", "x"), map[dict.Tag]string{0x00090011: "A", 0x00091101: "x", 0x00091002: ""}},
		{"an element number like a creator's", creator + attribute("00090012", "ACME", "x"), map[dict.Tag]string{0x00090012: "ACME", 0x00091212: "x"}},
		{"whole tag", creator + attribute("00091001", "ACME", "x"), map[dict.Tag]string{0x00090012: "ACME", 0x00091201: "x"}},
	} {
		ds, _, err := Parse(strings.NewReader(head+c.text+foot), dicomjson.DefaultLimits)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		if len(ds.Elements) != len(c.want)+1 {
			t.Errorf("%s: %v", c.rule, ds.Elements)
		}
		for tag, value := range c.want {
			if !ds.Has(tag) || ds.String(tag) != value {
				t.Errorf("%s: %v is %q, want %q", c.rule, tag, ds.String(tag), value)
			}
		}
	}
	var many strings.Builder
	for i := range 300 {
		many.WriteString(attribute("00090001", fmt.Sprint("C", i), "x"))
	}
	if _, _, err := Parse(strings.NewReader(head+many.String()+foot), dicomjson.DefaultLimits); !fault.Is(err, fault.Invalid) {
		t.Errorf("more creators than blocks: %v", err)
	}
}

func TestReferences(t *testing.T) {
	icon := dicom.NewDataset()
	put(icon, dict.PixelData, dict.OB, "\x01\x02")
	put(icon, 0x00090010, dict.LO, "ACME")
	put(icon, 0x00091001, dict.OB, strings.Repeat("x", 2000))
	ds := dicom.NewDataset()
	ds.SetSequence(dict.IconImageSequence, dicom.NewDataset(), icon)
	ds.Put(dicom.Element{Tag: dict.PixelData, VR: dict.OW, Cut: &dicom.Cut{Length: 10}})
	if _, err := AppendDataset(nil, ds, dicomjson.Options{}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a cut without URI: %v", err)
	}
	b, err := AppendDataset(nil, ds, dicomjson.Options{AvailableSyntax: "1.2", BulkURI: func(path string, e *dicom.Element) string {
		if found, _, err := dicomjson.Resolve(ds, path); err != nil || found.Tag != e.Tag {
			t.Errorf("%s resolves to %v, %v", path, found, err)
		}
		return "http://h/?a&" + path
	}})
	if err != nil {
		t.Fatal(err)
	}
	read, refs, err := Parse(bytes.NewReader(b), dicomjson.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if read.String(dict.AvailableTransferSyntaxUID) != "1.2" {
		t.Error("no (0008,3002)")
	}
	want := []string{"00880200/2/00091001", "00880200/2/7FE00010", "7FE00010"}
	if len(refs) != len(want) {
		t.Fatalf("%+v, want %v", refs, want)
	}
	for i, r := range refs {
		if r.Path != want[i] || r.URI != "http://h/?a&"+want[i] {
			t.Errorf("%+v, want %s", r, want[i])
		}
		if e, _, err := dicomjson.Resolve(read, r.Path); err != nil || e.VR != r.VR {
			t.Errorf("%s resolves to %v, %v", r.Path, e, err)
		}
	}
}

func TestBigEndian(t *testing.T) {
	ds := &dicom.Dataset{}
	ds.Syntax, _ = dict.Syntax(dict.ExplicitBigEndian)
	put(ds, dict.Rows, dict.US, "\x02\x00")
	put(ds, 0x00281201, dict.OW, "\x01\x02")
	got := body(t, ds, dicomjson.Options{})
	if !strings.Contains(got, `<Value number="1">512</Value>`) || !strings.Contains(got, "<InlineBinary>AgE=</InlineBinary>") {
		t.Error(got)
	}
}

func TestParseTakes(t *testing.T) {
	for _, c := range []struct {
		rule, text string
		tag        dict.Tag
		value      string
	}{
		{"no namespace, no declaration", `<NativeDicomModel><DicomAttribute tag="00100020" vr="LO"><Value number="1">x</Value></DicomAttribute></NativeDicomModel>`, dict.PatientID, "x "},
		{"byte order mark, comments, layout", "\uFEFF<?xml version=\"1.0\"?><!-- c --><NativeDicomModel>\n <DicomAttribute tag=\"00100020\" vr=\"LO\">\n  <Value number=\"1\">x<!-- c -->y</Value>\n </DicomAttribute>\n</NativeDicomModel>\n", dict.PatientID, "xy"},
		{"prefix", `<n:NativeDicomModel xmlns:n="http://dicom.nema.org/PS3.19/models/NativeDICOM"><n:DicomAttribute tag="00100020" vr="LO"><n:Value number="1">xy</n:Value></n:DicomAttribute></n:NativeDicomModel>`, dict.PatientID, "xy"},
		{"keyword only", `<NativeDicomModel><DicomAttribute keyword="PatientID"><Value>xy</Value></DicomAttribute></NativeDicomModel>`, dict.PatientID, "xy"},
		{"numbers in another order", `<NativeDicomModel><DicomAttribute tag="00080008" vr="CS"><Value number="3">C</Value><Value number="1">AA</Value></DicomAttribute></NativeDicomModel>`, dict.ImageType, `AA\\C `},
		{"base64 in lines", "<NativeDicomModel><DicomAttribute tag=\"00281201\" vr=\"OW\"><InlineBinary>\n AQ\n I=\n</InlineBinary></DicomAttribute></NativeDicomModel>", 0x00281201, "\x01\x02"},
		{"character data section", `<NativeDicomModel><DicomAttribute tag="00100020" vr="LO"><Value number="1"><![CDATA[<>]]></Value></DicomAttribute></NativeDicomModel>`, dict.PatientID, "<>"},
		{"white space is the value's own", `<NativeDicomModel><DicomAttribute tag="00104000" vr="LT"><Value number="1"> a&#13;
</Value></DicomAttribute></NativeDicomModel>`, dict.PatientComments, " a\r\n"},
	} {
		ds, refs, err := Parse(strings.NewReader(c.text), dicomjson.DefaultLimits)
		if err != nil || len(refs) > 0 {
			t.Errorf("%s: %v, %v", c.rule, refs, err)
			continue
		}
		if e := ds.Get(c.tag); e == nil || string(e.Value) != c.value {
			t.Errorf("%s: %+v, want %q", c.rule, e, c.value)
		}
	}
	ds, refs, err := Parse(strings.NewReader(`<NativeDicomModel><DicomAttribute tag="7FE00010" vr="OW"><BulkData uuid="1-2"/></DicomAttribute></NativeDicomModel>`), dicomjson.DefaultLimits)
	if err != nil || len(refs) != 1 || refs[0].URI != "urn:uuid:1-2" || !ds.Has(dict.PixelData) {
		t.Errorf("bulk data by UUID: %v, %v", refs, err)
	}
}

func TestParseRefuses(t *testing.T) {
	attribute := func(tag, vr, inner string) string {
		return fmt.Sprintf(`%s<DicomAttribute tag="%s" vr="%s">%s</DicomAttribute>%s`, head, tag, vr, inner, foot)
	}
	open := `<DicomAttribute tag="0040A730" vr="SQ"><Item number="1">`
	for rule, text := range map[string]string{
		"nothing":                        ``,
		"no XML":                         `{}`,
		"cut short":                      head + `<DicomAttribute tag="00100020" vr="LO"><Value>`,
		"another root":                   `<html></html>`,
		"two roots":                      head + foot + `<NativeDicomModel/>`,
		"text around":                    head + foot + `x`,
		"another element":                head + `<x/>` + foot,
		"a document type":                `<!DOCTYPE x [<!ENTITY a "b">]>` + head + foot,
		"an unknown entity":              attribute("00100020", "LO", `<Value>&a;</Value>`),
		"another encoding":               `<?xml version="1.0" encoding="UTF-16"?><NativeDicomModel/>`,
		"no tag":                         head + `<DicomAttribute vr="LO"/>` + foot,
		"a tag that is none":             attribute("0010002", "LO", ``),
		"an unknown VR":                  attribute("00100020", "XX", ``),
		"a long VR":                      attribute("00100020", "LOO", ``),
		"a tag twice":                    head + strings.Repeat(`<DicomAttribute tag="00100020" vr="LO"/>`, 2) + foot,
		"an unknown child":               attribute("00100020", "LO", `<x/>`),
		"children of two kinds":          attribute("00100020", "LO", `<Value/><InlineBinary/>`),
		"two bulk values":                attribute("7FE00010", "OW", `<BulkData uri="a"/><BulkData uri="b"/>`),
		"bulk data without uri":          attribute("7FE00010", "OW", `<BulkData/>`),
		"a sequence by reference":        attribute("0040A730", "SQ", `<BulkData uri="a"/>`),
		"an element in a value":          attribute("00100020", "LO", `<Value><x/></Value>`),
		"number 0":                       attribute("00100020", "LO", `<Value number="0">x</Value>`),
		"a number that is none":          attribute("00100020", "LO", `<Value number="x">x</Value>`),
		"a number beyond all limits":     attribute("00100020", "LO", `<Value number="2000000000">x</Value>`),
		"a number of more digits":        attribute("00100020", "LO", `<Value number="99999999999999999999">x</Value>`),
		"a number twice":                 attribute("00100020", "LO", `<Value number="1">x</Value><Value number="1">x</Value>`),
		"items in text":                  attribute("00100020", "LO", `<Item number="1"/>`),
		"text in a sequence":             attribute("0040A730", "SQ", `<Value number="1">x</Value>`),
		"a value for a name":             attribute("00100010", "PN", `<Value number="1">x</Value>`),
		"a name for a value":             attribute("00100020", "LO", `<PersonName number="1"/>`),
		"an unknown group":               attribute("00100010", "PN", `<PersonName number="1"><x/></PersonName>`),
		"an unknown component":           attribute("00100010", "PN", `<PersonName number="1"><Alphabetic><x/></Alphabetic></PersonName>`),
		"a delimiter in a component":     attribute("00100010", "PN", `<PersonName number="1"><Alphabetic><FamilyName>a^b</FamilyName></Alphabetic></PersonName>`),
		"base64 for text":                attribute("00100020", "LO", `<InlineBinary>AQI=</InlineBinary>`),
		"no base64":                      attribute("7FE00010", "OW", `<InlineBinary>*</InlineBinary>`),
		"a number out of range":          attribute("00280010", "US", `<Value number="1">65536</Value>`),
		"a backslash":                    attribute("00100020", "LO", `<Value number="1">a\b</Value>`),
		"items nested too deep":          head + strings.Repeat(open, 70) + strings.Repeat(`</Item></DicomAttribute>`, 70) + foot,
		"elements that are of no matter": head + strings.Repeat(`<a>`, 1000),
	} {
		if ds, _, err := Parse(strings.NewReader(text), dicomjson.DefaultLimits); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", rule, ds, err)
		} else if strings.Contains(err.Error(), "65536") {
			t.Errorf("%s: the error quotes the value: %v", rule, err)
		}
	}
}

func TestParseLimits(t *testing.T) {
	text := head + `<DicomAttribute tag="00080008" vr="CS"><Value number="1">A</Value><Value number="2">B</Value></DicomAttribute>` + foot
	fits := dicomjson.Limits{Bytes: int64(len(text)), Depth: 1, Elements: 3}
	if _, _, err := Parse(strings.NewReader(text), fits); err != nil {
		t.Fatalf("what fits: %v", err)
	}
	for name, change := range map[string]func(*dicomjson.Limits){
		"Bytes": func(l *dicomjson.Limits) { l.Bytes-- }, "Elements": func(l *dicomjson.Limits) { l.Elements-- },
	} {
		l := fits
		change(&l)
		if _, _, err := Parse(strings.NewReader(text), l); !fault.Is(err, fault.Invalid) {
			t.Errorf("one less of %s: %v", name, err)
		}
	}
	gone := fault.New(fault.Unavailable, "connection lost")
	if _, _, err := Parse(io.MultiReader(strings.NewReader(text[:80]), iotest.ErrReader(gone)), fits); !errors.Is(err, gone) {
		t.Errorf("%v, want the source's error", err)
	}
}

// What JSON and XML say of a data set is the same data set.
func TestRoundTripWithJSON(t *testing.T) {
	letters := rapid.StringOfN(rapid.RuneFrom([]rune(`abzÄ山"<&>' /]`)), 1, 8, -1)
	value := rapid.Custom(func(t *rapid.T) string { return "x" + letters.Draw(t, "text") + "x" })
	var draw func(t *rapid.T, depth int) *dicom.Dataset
	draw = func(t *rapid.T, depth int) *dicom.Dataset {
		ds := dicom.NewDataset()
		ds.Set(dict.PatientID, dict.LO, value.Draw(t, "id"))
		ds.Set(dict.OtherPatientNames, dict.PN, value.Draw(t, "family")+"^"+value.Draw(t, "given")+"=="+value.Draw(t, "phonetic"), value.Draw(t, "name"))
		ds.Set(dict.ImageType, dict.CS, "A", "", value.Draw(t, "code"))
		ds.SetUint(dict.Rows, dict.US, uint64(rapid.Uint16().Draw(t, "rows")), 7)
		ds.Set(0x00189313, dict.FD, fmt.Sprint(rapid.Float64().Draw(t, "float")))
		ds.Set(dict.SliceThickness, dict.DS, "1.5", "", "-2e-5")
		put(ds, 0x00090010, dict.LO, "ACME")
		put(ds, 0x00091001, dict.UN, string(rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "bytes")))
		ds.Set(dict.PatientComments, dict.LT, value.Draw(t, "comment")+"\\\r\n\t"+value.Draw(t, "comment"))
		if depth < 2 {
			var items []*dicom.Dataset
			for range rapid.IntRange(0, 2).Draw(t, "items") {
				items = append(items, draw(t, depth+1))
			}
			ds.SetSequence(dict.ContentSequence, items...)
		}
		if ds.Remove(dict.SpecificCharacterSet); depth == 0 {
			put(ds, dict.SpecificCharacterSet, dict.CS, "ISO_IR 192")
		}
		return ds
	}
	rapid.Check(t, func(t *rapid.T) {
		ds := draw(t, 0)
		text, err := AppendDataset(nil, ds, dicomjson.Options{})
		if err != nil {
			t.Fatal(err)
		}
		read, _, err := Parse(bytes.NewReader(text), dicomjson.DefaultLimits)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want, err := dicomjson.AppendDataset(nil, ds, dicomjson.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := dicomjson.AppendDataset(nil, read, dicomjson.Options{})
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v\n%s, want\n%s", err, got, want)
		}
	})
}

// FuzzParse takes any text: nothing panics, failures are of kind Invalid, and
// what is read can be written and read to the same again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`<DicomAttribute tag="00100010" vr="PN"><PersonName number="1"><Alphabetic><FamilyName>A</FamilyName></Alphabetic></PersonName></DicomAttribute>`,
		`<DicomAttribute tag="0040A730" vr="SQ"><Item number="1"><DicomAttribute tag="00080100" vr="SH"><Value number="2">1</Value></DicomAttribute></Item></DicomAttribute>`,
		`<DicomAttribute tag="00090001" vr="UN" privateCreator="A"><InlineBinary>AQI=</InlineBinary></DicomAttribute><DicomAttribute tag="7FE00010" vr="OW"><BulkData uri="x"/></DicomAttribute>`,
		`<DicomAttribute tag="00104000" vr="LT"><Value number="1">&#13;&lt;<![CDATA[x]]></Value></DicomAttribute>`,
	} {
		f.Add([]byte(head + seed + foot))
	}
	limits := dicomjson.Limits{Bytes: 1 << 16, Depth: 8, Elements: 1000}
	f.Fuzz(func(t *testing.T, text []byte) {
		ds, refs, err := Parse(bytes.NewReader(text), limits)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		for _, r := range refs {
			if _, _, err := dicomjson.Resolve(ds, r.Path); err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
		}
		once, err := AppendDataset(nil, ds, dicomjson.Options{})
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := Parse(bytes.NewReader(once), dicomjson.DefaultLimits)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		twice, err := AppendDataset(nil, again, dicomjson.Options{})
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}
