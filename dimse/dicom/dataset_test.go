package dicom_test

import (
	"slices"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

func TestStringsByVR(t *testing.T) {
	tests := []struct {
		rule  string
		vr    dict.VR
		value string
		want  []string
	}{
		{"values are split", dict.LO, `a\b`, []string{"a", "b"}},
		{"empty values count", dict.LO, `a\\b\`, []string{"a", "", "b", ""}},
		{"LO loses spaces on both sides", dict.LO, " a ", []string{"a"}},
		{"PN keeps leading ones", dict.PN, " a ", []string{" a"}},
		{"LT too, and its backslash", dict.LT, ` a\b `, []string{` a\b`}},
		{"UT is one value", dict.UT, `a\b`, []string{`a\b`}},
		{"UR is one value", dict.UR, `a\b `, []string{`a\b`}},
		{"UC has several", dict.UC, `a\b `, []string{"a", "b"}},
		{"UI loses its null", dict.UI, "1.2\x00", []string{"1.2"}},
		{"nothing but padding is empty", dict.LO, "  ", nil},
		{"empty", dict.LO, "", nil},
		{"US", dict.US, "\x01\x00\xFF\xFF", []string{"1", "65535"}},
		{"SS", dict.SS, "\xFF\xFF", []string{"-1"}},
		{"UL", dict.UL, "\xFF\xFF\xFF\xFF", []string{"4294967295"}},
		{"SL", dict.SL, "\xFF\xFF\xFF\xFF", []string{"-1"}},
		{"UV", dict.UV, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", []string{"18446744073709551615"}},
		{"SV", dict.SV, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", []string{"-1"}},
		{"FL", dict.FL, "\x00\x00\xC0\x3F", []string{"1.5"}},
		{"FD", dict.FD, "\x00\x00\x00\x00\x00\x00\xF8\x3F", []string{"1.5"}},
		{"AT", dict.AT, "\x10\x00\x20\x00", []string{"00100020"}},
		{"half a number is dropped", dict.US, "\x01\x00\xFF", []string{"1"}},
		{"bulk has none", dict.OB, "abc", nil},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			d := dicom.NewDataset()
			d.Put(dicom.Element{Tag: 0x00091001, VR: tt.vr, Value: []byte(tt.value)})
			if got := d.Strings(0x00091001); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			want := ""
			if len(tt.want) > 0 {
				want = tt.want[0]
			}
			if got := d.String(0x00091001); got != want {
				t.Errorf("first is %q, want %q", got, want)
			}
		})
	}
}

func TestUNOfAKnownTagHasItsMeaning(t *testing.T) {
	d := dicom.NewDataset()
	d.Syntax = explicitBig
	d.Put(dicom.Element{Tag: dict.PatientID, VR: dict.UN, Value: []byte("12")})
	d.Put(dicom.Element{Tag: dict.Rows, VR: dict.UN, Value: []byte("\x02\x01")}) // always little endian
	if got := d.String(dict.PatientID); got != "12" {
		t.Errorf("text: %q", got)
	}
	if got, ok := d.Int(dict.Rows); !ok || got != 0x0102 {
		t.Errorf("number: %d", got)
	}
}

func TestInt(t *testing.T) {
	tests := []struct {
		rule  string
		vr    dict.VR
		value string
		want  int64
		ok    bool
	}{
		{"IS", dict.IS, " 12 ", 12, true},
		{"IS, first of several", dict.IS, `-3\4`, -3, true},
		{"IS with a sign", dict.IS, "+5", 5, true},
		{"IS written as a decimal", dict.IS, "5.0 ", 5, true},
		{"IS that is none", dict.IS, "1A", 0, false},
		{"IS with a fraction", dict.IS, "1.5", 0, false},
		{"empty", dict.IS, "", 0, false},
		{"US", dict.US, "\x01\x02", 0x0201, true},
		{"too short", dict.UL, "\x01\x02", 0, false},
		{"SS", dict.SS, "\xFF\xFF", -1, true},
		{"UV beyond int64", dict.UV, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 0, false},
		{"text", dict.LO, "12", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			d := dicom.NewDataset()
			d.Put(dicom.Element{Tag: 0x00091001, VR: tt.vr, Value: []byte(tt.value)})
			got, ok := d.Int(0x00091001)
			if ok != tt.ok || ok && got != tt.want {
				t.Errorf("%d, %v; want %d, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
	if _, ok := dicom.NewDataset().Int(dict.Rows); ok {
		t.Error("absent attribute has a number")
	}
}

func TestBuiltDataSetIsReadBack(t *testing.T) {
	inner := dicom.NewDataset()
	inner.Set(dict.CodeMeaning, dict.LO, "Schädel")
	d := dicom.NewDataset()
	d.Set(dict.PatientName, dict.PN, "Müller^Jörg")
	d.Set(dict.PatientID, dict.LO, "1", "2")
	d.Set(dict.StudyDate, dict.DA)
	d.Set(dict.SOPInstanceUID, dict.UI, "1.2.3")
	d.SetUint(dict.Rows, dict.US, 512)
	d.SetUint(dict.FrameIncrementPointer, dict.AT, 0x00181063)
	d.Set(dict.SelectorFDValue, dict.FD, "1.5", "-2")
	d.SetUint(dict.SelectorULValue, dict.UL, 1<<32-1)
	d.SetUint(dict.SelectorUVValue, dict.UV, 1<<63)
	d.Set(dict.SelectorSSValue, dict.SS, "-7")
	d.SetSequence(dict.ProcedureCodeSequence, inner)
	d.SetSequence(dict.ReferencedImageSequence)
	for _, s := range targets {
		t.Run(s.Name, func(t *testing.T) {
			b, err := d.Encode([]byte("before"), s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := dicom.ParseDataset(b[len("before"):], s, dicom.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			want := map[dict.Tag][]string{
				dict.SpecificCharacterSet: {"ISO_IR 192"}, dict.PatientName: {"Müller^Jörg"}, dict.PatientID: {"1", "2"},
				dict.StudyDate: nil, dict.SOPInstanceUID: {"1.2.3"}, dict.Rows: {"512"}, dict.FrameIncrementPointer: {"00181063"},
				dict.SelectorFDValue: {"1.5", "-2"}, dict.SelectorULValue: {"4294967295"}, dict.SelectorUVValue: {"9223372036854775808"},
				dict.SelectorSSValue: {"-7"},
			}
			for tag, values := range want {
				if !got.Has(tag) || !slices.Equal(got.Strings(tag), values) {
					t.Errorf("%v is %q, want %q", tag, got.Strings(tag), values)
				}
			}
			if items := got.Get(dict.ProcedureCodeSequence).Items; len(items) != 1 || items[0].String(dict.CodeMeaning) != "Schädel" {
				t.Errorf("items %v", items)
			}
			if !slices.IsSortedFunc(got.Elements, func(a, b dicom.Element) int { return int(a.Tag) - int(b.Tag) }) {
				t.Error("not in ascending order")
			}
			for i := range got.Elements {
				if len(got.Elements[i].Value)&1 == 1 {
					t.Errorf("%v has odd length", got.Elements[i].Tag)
				}
			}
		})
	}
}

func TestCharacterSetIsSetOnlyWhereItIsNeeded(t *testing.T) {
	d := dicom.NewDataset()
	d.Set(dict.PatientName, dict.PN, "Miller")
	if d.Has(dict.SpecificCharacterSet) {
		t.Error("ASCII needs none")
	}
	d.Set(dict.PatientName, dict.PN, "Müller")
	if d.String(dict.SpecificCharacterSet) != "ISO_IR 192" {
		t.Errorf("it is %q", d.String(dict.SpecificCharacterSet))
	}
}

func TestSetOfWhatIsNoNumberIsEmpty(t *testing.T) {
	d := dicom.NewDataset()
	for _, v := range []string{"x", "70000", "-1", ""} {
		d.Set(dict.Rows, dict.US, "1", v)
		if e := d.Get(dict.Rows); e == nil || len(e.Value) != 0 {
			t.Errorf("US of %q is % X", v, e.Value)
		}
	}
}

func TestGetPutRemove(t *testing.T) {
	d := dicom.NewDataset()
	for _, tag := range []dict.Tag{5, 1, 3, 2, 4} {
		d.Put(dicom.Element{Tag: tag, VR: dict.LO, Value: []byte{byte(tag)}})
	}
	d.Put(dicom.Element{Tag: 3, VR: dict.LO, Value: []byte("new")})
	d.Remove(2)
	d.Remove(9)
	var tags []dict.Tag
	for _, e := range d.Elements {
		tags = append(tags, e.Tag)
	}
	if !slices.Equal(tags, []dict.Tag{1, 3, 4, 5}) || string(d.Get(3).Value) != "new" || d.Get(2) != nil || d.Get(6) != nil {
		t.Errorf("%v", tags)
	}
	var none *dicom.Dataset
	if none.Has(1) {
		t.Error("no data set has an element")
	}
}

// A read data set out of order is searched all the same, the first element of
// a tag wins, and changing it keeps it searchable.
func TestGetOutOfOrder(t *testing.T) {
	in := ex(dict.PatientSex, "CS", "M ") + ex(dict.PatientID, "LO", "12") + ex(dict.PatientID, "LO", "34") + ex(dict.Rows, "US", "\x01\x00")
	d, err := dicom.ParseDataset([]byte(in), explicitLittle, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if d.String(dict.PatientID) != "12" || d.String(dict.PatientSex) != "M" || d.Has(dict.PatientName) {
		t.Error("not found, or found what is not there")
	}
	d.Set(dict.PatientName, dict.PN, "A")
	d.Set(dict.PatientID, dict.LO, "56")
	if d.String(dict.PatientName) != "A" || d.String(dict.PatientID) != "56" || d.String(dict.PatientSex) != "M" {
		t.Error("not found after a change")
	}
}

func TestEncodeRefuses(t *testing.T) {
	d := dicom.NewDataset()
	if _, err := d.Encode(nil, deflated); !fault.Is(err, fault.Unsupported) {
		t.Errorf("deflated: %v", err)
	}
	if _, err := d.Encode(nil, jpegBaseline); !fault.Is(err, fault.Unsupported) {
		t.Errorf("encapsulated: %v", err)
	}
	h := read(t, []byte(ex(dict.PixelData, "OW", "12")), explicitLittle)
	if _, err := h.Dataset.Encode(nil, explicitLittle); err == nil {
		t.Error("a cut value was encoded")
	}
	if _, err := dicom.ParseDataset(nil, deflated, dicom.DefaultLimits); !fault.Is(err, fault.Unsupported) {
		t.Errorf("parse deflated: %v", err)
	}
}

func TestRecode(t *testing.T) {
	inner := dicom.NewDataset()
	inner.Set(dict.CodeMeaning, dict.LO, "Schädel")
	d := dicom.NewDataset()
	d.Set(dict.PatientName, dict.PN, "Müller^Jörg")
	d.Set(dict.PatientID, dict.LO, "12")
	d.SetSequence(dict.ProcedureCodeSequence, inner)
	got, ok := d.Recode([]string{"ISO_IR 100"})
	if !ok || string(got.Get(dict.PatientName).Value) != "M\xFCller^J\xF6rg " || got.String(dict.SpecificCharacterSet) != "ISO_IR 100" ||
		got.String(dict.PatientName) != "Müller^Jörg" {
		t.Errorf("%v: % X", ok, got.Get(dict.PatientName).Value)
	}
	item := got.Get(dict.ProcedureCodeSequence).Items[0]
	if item.String(dict.CodeMeaning) != "Schädel" || item.Has(dict.SpecificCharacterSet) {
		t.Errorf("item: %q", item.String(dict.CodeMeaning))
	}
	if d.String(dict.PatientName) != "Müller^Jörg" || !inner.Has(dict.SpecificCharacterSet) {
		t.Error("the original changed")
	}
	got, ok = d.Recode([]string{"ISO_IR 144"})
	if ok || got.String(dict.SpecificCharacterSet) != "ISO_IR 192" || got.String(dict.PatientName) != "Müller^Jörg" {
		t.Errorf("what does not fit: %v %q in %q", ok, got.String(dict.PatientName), got.String(dict.SpecificCharacterSet))
	}
	if got, ok = d.Recode([]string{"nonsense"}); ok || got.String(dict.PatientName) != "Müller^Jörg" {
		t.Errorf("unknown term: %v", ok)
	}
	ascii := dicom.NewDataset()
	ascii.Set(dict.PatientName, dict.PN, "Miller")
	if got, ok = ascii.Recode(nil); !ok || got.Has(dict.SpecificCharacterSet) {
		t.Errorf("default repertoire: %v", ok)
	}
	// The result must be readable by those who only have its bytes.
	b, err := got.Encode(nil, explicitLittle)
	if err != nil || !strings.Contains(string(b), "Miller") {
		t.Error(err)
	}
}
