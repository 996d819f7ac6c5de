package dicomjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

func put(ds *dicom.Dataset, t dict.Tag, vr dict.VR, value string) {
	ds.Put(dicom.Element{Tag: t, VR: vr, Value: []byte(value)})
}

func write(t testing.TB, ds *dicom.Dataset, o Options) string {
	t.Helper()
	b, err := AppendDataset(nil, ds, o)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Fatalf("no JSON: %s", b)
	}
	return string(b)
}

func TestWriteValues(t *testing.T) {
	for _, c := range []struct {
		rule  string
		tag   dict.Tag
		vr    dict.VR
		value string
		want  string
	}{
		{"empty value", dict.PatientID, dict.LO, "", `"00100020":{"vr":"LO"}`},
		{"nothing but padding", dict.PatientID, dict.LO, "  ", `"00100020":{"vr":"LO"}`},
		{"padding", dict.PatientID, dict.LO, " P1 ", `"00100020":{"vr":"LO","Value":["P1"]}`},
		{"null padding", dict.StudyInstanceUID, dict.UI, "1.2.3\x00", `"0020000D":{"vr":"UI","Value":["1.2.3"]}`},
		{"leading spaces of text stay", dict.PatientComments, dict.LT, " a ", `"00104000":{"vr":"LT","Value":[" a"]}`},
		{"several values, one empty", dict.ImageType, dict.CS, `A\\B`, `"00080008":{"vr":"CS","Value":["A",null,"B"]}`},
		{"backslash in text", dict.PatientComments, dict.LT, `a\b`, `"00104000":{"vr":"LT","Value":["a\\b"]}`},
		{"controls and quotes", dict.PatientComments, dict.LT, "\"\r\n\t\x0c", `"00104000":{"vr":"LT","Value":["\"\r\n\t\u000C"]}`},
		{"name groups", dict.PatientName, dict.PN, "A^B=山^田=や^ま", `"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B","Ideographic":"山^田","Phonetic":"や^ま"}]}`},
		{"name without alphabetic group", dict.PatientName, dict.PN, "=山", `"00100010":{"vr":"PN","Value":[{"Ideographic":"山"}]}`},
		{"names, one empty", dict.OperatorsName, dict.PN, `A\=\B`, `"00081070":{"vr":"PN","Value":[{"Alphabetic":"A"},null,{"Alphabetic":"B"}]}`},
		{"IS", dict.SeriesNumber, dict.IS, "011 ", `"00200011":{"vr":"IS","Value":[11]}`},
		{"IS with sign", dict.SeriesNumber, dict.IS, `+5\-07\-0`, `"00200011":{"vr":"IS","Value":[5,-7,-0]}`},
		{"IS invalid", dict.SeriesNumber, dict.IS, `1.5\x\\123456789012345678`, `"00200011":{"vr":"IS","Value":["1.5","x",null,"123456789012345678"]}`},
		{"DS keeps its digits", dict.SliceThickness, dict.DS, `1.50\0.1000000000000\1e5\1E-05\1e+016`, `"00180050":{"vr":"DS","Value":[1.50,0.1000000000000,1e5,1e-5,1e16]}`},
		{"DS beyond JSON's grammar", dict.SliceThickness, dict.DS, `+5\05\.5\5.\-.5\-05.50e1`, `"00180050":{"vr":"DS","Value":[5,5,0.5,5,-0.5,-5.50e1]}`},
		{"DS invalid", dict.SliceThickness, dict.DS, `1,5\.\e1\1e\1e999\NaN\- 5`, `"00180050":{"vr":"DS","Value":["1,5",".","e1","1e","1e999","NaN","- 5"]}`},
		{"AT", dict.FrameIncrementPointer, dict.AT, "\x18\x00\x63\x10", `"00280009":{"vr":"AT","Value":["00181063"]}`},
		{"US", dict.Rows, dict.US, "\x00\x02\xff\xff", `"00280010":{"vr":"US","Value":[512,65535]}`},
		{"SS", dict.SmallestImagePixelValue, dict.SS, "\xff\xff", `"00280106":{"vr":"SS","Value":[-1]}`},
		{"bytes left over", dict.Rows, dict.US, "\x00\x02\xff", `"00280010":{"vr":"US","Value":[512]}`},
		{"FL shortest", 0x00189313, dict.FL, le32(0.1), `"00189313":{"vr":"FL","Value":[0.1]}`},
		{"FD", 0x00189313, dict.FD, le64(1e300) + le64(-0.25) + le64(3), `"00189313":{"vr":"FD","Value":[1e+300,-0.25,3]}`},
		{"no finite number", 0x00189313, dict.FD, le64(math.NaN()) + le64(math.Inf(1)) + le64(math.Inf(-1)), `"00189313":{"vr":"FD","Value":["NaN","inf","-inf"]}`},
		{"negative zero", 0x00189313, dict.FD, le64(math.Copysign(0, -1)), `"00189313":{"vr":"FD","Value":[-0.0]}`},
		{"UV beyond 2^53", 0x00091001, dict.UV, "\x01\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x20\x00", `"00091001":{"vr":"UV","Value":["9007199254740993",9007199254740992]}`},
		{"SV beyond -2^53", 0x00091001, dict.SV, "\x00\x00\x00\x00\x00\x00\x00\x80\xff\xff\xff\xff\xff\xff\xff\xff", `"00091001":{"vr":"SV","Value":["-9223372036854775808",-1]}`},
		{"binary", dict.RedPaletteColorLookupTableData, dict.OW, "\x01\x02", `"00281201":{"vr":"OW","InlineBinary":"AQI="}`},
		{"unknown", 0x00091001, dict.UN, "ab", `"00091001":{"vr":"UN","InlineBinary":"YWI="}`},
		{"unknown of a known attribute", dict.Rows, dict.UN, "\x00\x02", `"00280010":{"vr":"US","Value":[512]}`},
		{"no VR at all", 0x00091001, dict.VR('?')<<8 | '?', "ab", `"00091001":{"vr":"UN","InlineBinary":"YWI="}`},
		{"character set", dict.SpecificCharacterSet, dict.CS, "ISO_IR 192", `"00080005":{"vr":"CS","Value":["ISO_IR 192"]}`},
		{"group length", 0x00080000, dict.UL, "\x00\x00\x00\x00", ``},
		{"group 0002", dict.TransferSyntaxUID, dict.UI, "1.2", ``},
		{"trailing padding", 0xFFFCFFFC, dict.OB, "\x00\x00", ``},
		{"no UTF-8 in a plain VR", dict.Modality, dict.CS, "A\xff", `"00080060":{"vr":"CS","Value":["A` + "\uFFFD" + `"]}`},
	} {
		ds := dicom.NewDataset()
		put(ds, c.tag, c.vr, c.value)
		if got := write(t, ds, Options{}); got != "{"+c.want+"}" {
			t.Errorf("%s: %s, want {%s}", c.rule, got, c.want)
		}
	}
}

func le32(f float32) string {
	b, _ := appendBinary(nil, string(appendFloat(nil, float64(f), 32)), dict.FL)
	return string(b)
}

func le64(f float64) string {
	b, _ := appendBinary(nil, strings.Trim(string(appendFloat(nil, f, 64)), `"`), dict.FD)
	return string(b)
}

func TestCharacterSets(t *testing.T) {
	ds := dicom.NewDataset()
	put(ds, dict.SpecificCharacterSet, dict.CS, "ISO_IR 100")
	put(ds, dict.PatientName, dict.PN, "M\xfcller")
	if got, want := write(t, ds, Options{}), `{"00080005":{"vr":"CS","Value":["ISO_IR 192"]},"00100010":{"vr":"PN","Value":[{"Alphabetic":"Müller"}]}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSequences(t *testing.T) {
	inner := dicom.NewDataset()
	inner.Set(dict.CodeValue, dict.SH, "1")
	ds := dicom.NewDataset()
	ds.SetSequence(dict.ConceptNameCodeSequence, inner, dicom.NewDataset())
	ds.SetSequence(dict.ReferencedStudySequence)
	want := `{"00081110":{"vr":"SQ"},"0040A043":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["1"]}},{}]}}`
	if got := write(t, ds, Options{}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestOrderAndDuplicates(t *testing.T) {
	ds := dicom.NewDataset()
	ds.Elements = []dicom.Element{
		{Tag: dict.PatientID, VR: dict.LO, Value: []byte("2 ")},
		{Tag: dict.Modality, VR: dict.CS, Value: []byte("CT")},
		{Tag: dict.PatientID, VR: dict.LO, Value: []byte("3 ")},
	}
	want := `{"00080060":{"vr":"CS","Value":["CT"]},"00083002":{"vr":"UI","Value":["1.2"]},"00100020":{"vr":"LO","Value":["2"]}}`
	if got := write(t, ds, Options{AvailableSyntax: "1.2"}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAvailableSyntax(t *testing.T) {
	for rule, tags := range map[string][]dict.Tag{
		"before": {dict.PatientID}, "after": {dict.Modality}, "alone": nil, "replaced": {dict.AvailableTransferSyntaxUID},
	} {
		ds := dicom.NewDataset()
		for _, tag := range tags {
			put(ds, tag, dict.LO, "x ")
		}
		got := write(t, ds, Options{AvailableSyntax: "1.2.3"})
		if strings.Count(got, "00083002") != 1 || !strings.Contains(got, `"00083002":{"vr":"UI","Value":["1.2.3"]}`) {
			t.Errorf("%s: %s", rule, got)
		}
	}
}

func TestByReference(t *testing.T) {
	long := strings.Repeat("ab", InlineBytes/2)
	icon := dicom.NewDataset()
	put(icon, dict.PixelData, dict.OB, "\x01\x02")
	ds := dicom.NewDataset()
	ds.SetSequence(dict.IconImageSequence, dicom.NewDataset(), icon)
	put(ds, dict.Tag(0x00091001), dict.UN, long+"cd")
	put(ds, dict.Tag(0x00091002), dict.UN, long)
	put(ds, dict.PatientComments, dict.LT, strings.Repeat("x", 70000))
	ds.Put(dicom.Element{Tag: dict.TextValue, VR: dict.UT, Cut: &dicom.Cut{Tag: dict.TextValue, VR: dict.UT, Length: 70000}})
	put(ds, dict.PixelData, dict.OW, "\x01\x02")
	var paths []string
	got := write(t, ds, Options{BulkURI: func(path string, e *dicom.Element) string {
		paths = append(paths, path)
		found, _, err := Resolve(ds, path)
		if err != nil || found.Tag != e.Tag || len(found.Value) != len(e.Value) {
			t.Errorf("%s resolves to %+v, %v", path, found, err)
		}
		return "http://host/" + path
	}})
	want := "00091001 0040A160 7FE00010 00880200/2/7FE00010"
	for _, path := range strings.Fields(want) {
		if !strings.Contains(got, `"BulkDataURI":"http://host/`+path+`"`) {
			t.Errorf("no reference %s", path)
		}
	}
	if len(paths) != 4 {
		t.Errorf("references %v, want %s", paths, want)
	}
	if !strings.Contains(got, `"00091002":{"vr":"UN","InlineBinary":"`+base64.StdEncoding.EncodeToString([]byte(long))+`"}`) {
		t.Error("a value of InlineBytes is not inline")
	}
	if _, err := AppendDataset(nil, ds, Options{}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a cut without URI: %v", err)
	}
	ds.Remove(dict.TextValue)
	if got := write(t, ds, Options{}); strings.Contains(got, "BulkDataURI") || !strings.Contains(got, `"7FE00010":{"vr":"OW","InlineBinary":"AQI="}`) {
		t.Error("without URIs values are not inline")
	}
}

func TestBigEndian(t *testing.T) {
	ds := &dicom.Dataset{}
	ds.Syntax, _ = dict.Syntax(dict.ExplicitBigEndian)
	put(ds, dict.Rows, dict.US, "\x02\x00")
	put(ds, dict.FrameIncrementPointer, dict.AT, "\x00\x18\x10\x63")
	put(ds, dict.RedPaletteColorLookupTableData, dict.OW, "\x01\x02\x03\x04")
	put(ds, dict.Tag(0x00091001), dict.UN, "\x01\x02")
	want := `{"00091001":{"vr":"UN","InlineBinary":"AQI="},"00280009":{"vr":"AT","Value":["00181063"]},"00280010":{"vr":"US","Value":[512]},"00281201":{"vr":"OW","InlineBinary":"AgEEAw=="}}`
	if got := write(t, ds, Options{}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for vr, want := range map[dict.VR]string{dict.OB: "12345678", dict.UN: "12345678", dict.OW: "21436587", dict.OF: "43218765", dict.OV: "87654321", dict.AT: "21436587"} {
		if got := AppendLittleEndian([]byte("x"), []byte("12345678"), vr, ds.Syntax); string(got) != "x"+want {
			t.Errorf("%v: %s, want x%s", vr, got, want)
		}
	}
	if got := AppendLittleEndian(nil, []byte("123"), dict.OW, ds.Syntax); string(got) != "213" {
		t.Errorf("odd length: %s", got)
	}
}

func TestResolveRefuses(t *testing.T) {
	ds := dicom.NewDataset()
	ds.SetSequence(dict.IconImageSequence, dicom.NewDataset())
	put(ds, dict.PatientID, dict.LO, "x ")
	for path, kind := range map[string]fault.Kind{
		"": fault.Invalid, "x": fault.Invalid, "7FE0001": fault.Invalid, "7FE000100": fault.Invalid, "7FE0001G": fault.Invalid,
		"00880200/": fault.Invalid, "00880200/1": fault.Invalid, "00880200/1/": fault.Invalid, "00880200/0/7FE00010": fault.Invalid,
		"00880200/01/7FE00010": fault.Invalid, "00880200/-1/7FE00010": fault.Invalid, "00880200/99999999999/7FE00010": fault.Invalid,
		"7FE00010": fault.NotFound, "00880200/1/7FE00010": fault.NotFound, "00880200/2/7FE00010": fault.NotFound, "00100020/1/7FE00010": fault.NotFound,
	} {
		if _, _, err := Resolve(ds, path); !fault.Is(err, kind) {
			t.Errorf("%q: %v, want %v", path, err, kind)
		}
	}
	deep := strings.Repeat("00880200/1/", 100) + "7FE00010"
	loop := dicom.NewDataset()
	loop.SetSequence(dict.IconImageSequence, loop)
	if _, _, err := Resolve(loop, deep); !fault.Is(err, fault.Invalid) {
		t.Errorf("a path without end: %v", err)
	}
}

func TestArray(t *testing.T) {
	good := dicom.NewDataset()
	good.Set(dict.PatientID, dict.LO, "1")
	bad := dicom.NewDataset()
	bad.Put(dicom.Element{Tag: dict.PixelData, VR: dict.OW, Cut: &dicom.Cut{Length: 2}})
	const object = `{"00100020":{"vr":"LO","Value":["1"]}}`
	for _, c := range []struct {
		rule string
		sets []*dicom.Dataset
		want string
	}{
		{"empty", nil, "[]"},
		{"one", []*dicom.Dataset{good}, "[" + object + "]"},
		{"two", []*dicom.Dataset{good, good}, "[" + object + "," + object + "]"},
		{"one that fails leaves nothing", []*dicom.Dataset{bad, good, bad, good, bad}, "[" + object + "," + object + "]"},
	} {
		var out bytes.Buffer
		a := NewArray(&out)
		for _, ds := range c.sets {
			if err := a.Add(ds, Options{}); (err != nil) != (ds == bad) {
				t.Fatal(err)
			}
		}
		if err := a.Close(); err != nil || out.String() != c.want {
			t.Errorf("%s: %s, %v; want %s", c.rule, out.String(), err, c.want)
		}
	}
}

func TestArrayIsStreamed(t *testing.T) {
	ds := dicom.NewDataset()
	ds.Set(dict.PatientComments, dict.LT, strings.Repeat("x", 10000))
	var out bytes.Buffer
	a := NewArray(&out)
	for range 20 {
		if err := a.Add(ds, Options{}); err != nil {
			t.Fatal(err)
		}
		if len(a.b) > flushBytes+20000 {
			t.Fatalf("%d bytes held back", len(a.b))
		}
	}
	if out.Len() < 100000 {
		t.Errorf("%d bytes written before the end", out.Len())
	}
}
