package match

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// set is a short way to write a data set: tag, VR, values.
type set []attribute

type attribute struct {
	tag    dict.Tag
	vr     dict.VR
	values []string
}

func text(t dict.Tag, vr dict.VR, values ...string) attribute { return attribute{t, vr, values} }

func compiled(t testing.TB, keys *dicom.Dataset, o Options) *Matcher {
	t.Helper()
	m, err := Compile(keys, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSingleAttribute(t *testing.T) {
	type row struct {
		rule  string
		tag   dict.Tag
		vr    dict.VR
		key   string
		value string
		want  bool
	}
	rows := []row{
		{"universal: zero length", dict.PatientID, dict.LO, "", "X", true},
		{"universal: zero length matches empty", dict.PatientID, dict.LO, "", "", true},
		{"universal: asterisk matches empty", dict.PatientID, dict.LO, "*", "", true},
		{"universal: asterisk date", dict.StudyDate, dict.DA, "*", "", true},
		{"single: equal", dict.PatientID, dict.LO, "P1", "P1", true},
		{"single: case counts", dict.PatientID, dict.LO, "p1", "P1", false},
		{"single: not a part", dict.PatientID, dict.LO, "P1", "P12", false},
		{"single: empty value does not match", dict.PatientID, dict.LO, "P1", "", false},
		{"padding: trailing spaces of the key", dict.PatientID, dict.LO, "P1  ", "P1", true},
		{"padding: leading spaces of the value", dict.PatientID, dict.LO, "P1", "  P1", true},
		{"padding: leading spaces count in text", dict.PatientComments, dict.LT, "a", " a", false},
		{"padding: trailing spaces of text do not", dict.PatientComments, dict.LT, "a", "a  ", true},
		{"values: any of a multi-valued attribute", dict.ImageType, dict.CS, "PRIMARY", `ORIGINAL\PRIMARY\AXIAL`, true},
		{"values: backslash is text in LT", dict.PatientComments, dict.LT, `b`, `a\b`, false},
		{"list: one of several codes", dict.ModalitiesInStudy, dict.CS, `MR\CT`, `CT\SR`, true},
		{"list: with commas", dict.ModalitiesInStudy, dict.CS, `MR,CT`, `CT\SR`, true},
		{"list: none of several codes", dict.ModalitiesInStudy, dict.CS, `MR\US`, `CT\SR`, false},
		{"list: UIDs", dict.StudyInstanceUID, dict.UI, `1.2.3\1.2.4`, `1.2.4`, true},
		{"list: UIDs with commas", dict.StudyInstanceUID, dict.UI, `1.2.3, 1.2.4`, `1.2.4`, true},
		{"list: UIDs, none", dict.StudyInstanceUID, dict.UI, `1.2.3\1.2.4`, `1.2.5`, false},
		{"list: comma is text in LO", dict.StudyDescription, dict.LO, `a,b`, `b`, false},
		{"list: an asterisk makes it universal", dict.ModalitiesInStudy, dict.CS, `MR\*`, `CT`, true},
		{"wildcard: asterisk", dict.PatientID, dict.LO, "P*", "P12", true},
		{"wildcard: asterisk for nothing", dict.PatientID, dict.LO, "P*", "P", true},
		{"wildcard: question mark", dict.PatientID, dict.LO, "P?2", "P12", true},
		{"wildcard: question mark needs one", dict.PatientID, dict.LO, "P12?", "P12", false},
		{"wildcard: case counts", dict.PatientID, dict.LO, "p*", "P12", false},
		{"wildcard: needs a value", dict.PatientID, dict.LO, "*1*", "", false},
		{"wildcard: question mark needs a value", dict.PatientID, dict.LO, "?*", "", false},
		{"wildcard: not in UI", dict.StudyInstanceUID, dict.UI, "1.2.*", "1.2.3", false},
		{"wildcard: not in IS", dict.SeriesNumber, dict.IS, "1*", "12", false},
		{"wildcard: not in AS", dict.PatientAge, dict.AS, "0??Y", "012Y", false},
		{"wildcard: one of several patterns", dict.ModalitiesInStudy, dict.CS, `M?\C*`, `CT`, true},
		{"AE: padding", dict.StationAETitle, dict.AE, "CT1", " CT1 ", true},
		{"number: IS", dict.SeriesNumber, dict.IS, "1", "001 ", true},
		{"number: sign", dict.SeriesNumber, dict.IS, "+1", "1", true},
		{"number: DS", dict.SliceThickness, dict.DS, "1.5", "1.500", true},
		{"number: exponent", dict.SliceThickness, dict.DS, "1.5e1", "15", true},
		{"number: others differ", dict.SliceThickness, dict.DS, "1.5", "1.51", false},
		{"number: text that is none", dict.SeriesNumber, dict.IS, "x", "x", true},
		{"date: equal", dict.StudyDate, dict.DA, "20260131", "20260131", true},
		{"date: old format of the value", dict.StudyDate, dict.DA, "20260131", "2026.01.31", true},
		{"date: old format of the key", dict.StudyDate, dict.DA, "2026.01.31", "20260131", true},
		{"date: range, first day", dict.StudyDate, dict.DA, "20260101-20260131", "20260101", true},
		{"date: range, last day", dict.StudyDate, dict.DA, "20260101-20260131", "20260131", true},
		{"date: range, after", dict.StudyDate, dict.DA, "20260101-20260131", "20260201", false},
		{"date: range with spaces", dict.StudyDate, dict.DA, "20260101 - 20260131 ", "20260131", true},
		{"date: open start", dict.StudyDate, dict.DA, "-20260131", "19990101", true},
		{"date: open end", dict.StudyDate, dict.DA, "20260131-", "20260130", false},
		{"date: bare hyphen is universal", dict.StudyDate, dict.DA, "-", "", true},
		{"date: range needs a value", dict.StudyDate, dict.DA, "20260101-", "", false},
		{"date: unreadable value", dict.StudyDate, dict.DA, "19000101-", "99", false},
		{"date: one of several", dict.StudyDate, dict.DA, `20260101\20260301-20260302`, "20260302", true},
		{"time: hours are a range", dict.StudyTime, dict.TM, "10", "105959.999999", true},
		{"time: minutes are a range", dict.StudyTime, dict.TM, "1030", "103100", false},
		{"time: seconds hold their fractions", dict.StudyTime, dict.TM, "103015", "103015.25", true},
		{"time: old format", dict.StudyTime, dict.TM, "10:30:15", "103015", true},
		{"time: range includes its last hour", dict.StudyTime, dict.TM, "09-10", "1059", true},
		{"time: across midnight", dict.StudyTime, dict.TM, "2200-0600", "0100", true},
		{"time: across midnight, noon", dict.StudyTime, dict.TM, "2200-0600", "1200", false},
		{"date time: precision", dict.AcquisitionDateTime, dict.DT, "202601", "20260115103000", true},
		{"date time: range", dict.AcquisitionDateTime, dict.DT, "20260101-20260115", "20260115235959", true},
		{"date time: offsets", dict.AcquisitionDateTime, dict.DT, "20260115100000+0100", "20260115090000+0000", true},
		{"name: equal", dict.PatientName, dict.PN, "Smith^John", "Smith^John", true},
		{"name: case", dict.PatientName, dict.PN, "SMITH^john", "Smith^John", true},
		{"name: accents", dict.PatientName, dict.PN, "Muller", "Müller", true},
		{"name: accents of the key", dict.PatientName, dict.PN, "MÜLLER^JÉRÔME", "Muller^Jerome", true},
		{"name: empty components", dict.PatientName, dict.PN, "SMITH^JOHN", "SMITH^JOHN^^^", true},
		{"name: family name alone is not all", dict.PatientName, dict.PN, "SMITH", "SMITH^JOHN", false},
		{"name: family name with asterisk", dict.PatientName, dict.PN, "SMITH*", "SMITH^JOHN", true},
		{"name: asterisk for components that are left out", dict.PatientName, dict.PN, "SMITH^*", "SMITH", true},
		{"name: asterisk for the given name", dict.PatientName, dict.PN, "SMITH^*", "SMITHERS^JOHN", false},
		{"name: part of any", dict.PatientName, dict.PN, "*mit*", "Smith^John", true},
		{"name: question mark", dict.PatientName, dict.PN, "Sm?th*", "Smith^John", true},
		{"name: question mark for punctuation", dict.PatientName, dict.PN, "O?Brien*", "O'Brien^Pat", true},
		{"name: punctuation", dict.PatientName, dict.PN, "obrien*", "O'Brien^Pat", true},
		{"name: one group of the key finds any", dict.PatientName, dict.PN, "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", true},
		{"name: phonetic group", dict.PatientName, dict.PN, "やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう", true},
		{"name: group by group", dict.PatientName, dict.PN, "Yamada*=山田*", "Yamada^Tarou=山田^太郎", true},
		{"name: group by group, one differs", dict.PatientName, dict.PN, "Yamada*=川田*", "Yamada^Tarou=山田^太郎", false},
		{"name: empty group of the key is universal", dict.PatientName, dict.PN, "=山田^太郎", "Yamada^Tarou=山田^太郎", true},
		{"name: group of the key is not elsewhere", dict.PatientName, dict.PN, "=Yamada^Tarou", "Yamada^Tarou=山田^太郎", false},
		{"name: delimiters and asterisks are universal", dict.PatientName, dict.PN, "*^*", "", true},
		{"name: one of several", dict.PatientName, dict.PN, `JONES*\SMITH*`, "Smith^John", true},
		{"name: any value", dict.OperatorsName, dict.PN, `B*`, `A^A\B^B`, true},
		{"name: typed as LO", dict.PatientName, dict.LO, "smith^john", "Smith^John", true},
	}
	for _, r := range rows {
		t.Run(r.rule, func(t *testing.T) {
			m := compiled(t, set{text(r.tag, r.vr, strings.Split(r.key, "\x01")...)}.raw(), Options{})
			vr := r.vr
			if e, ok := dict.Lookup(r.tag); ok {
				vr = e.VR
			}
			ds := set{text(r.tag, vr, r.value)}.raw()
			if got := m.Match(ds, nil); got != r.want {
				t.Errorf("key %q, value %q: %v, want %v", r.key, r.value, got, r.want)
			}
			if absent := m.Match(dicom.NewDataset(), nil); absent != (len(m.Keys()) == 0) {
				t.Errorf("key %q, absent value: %v, with %d keys", r.key, absent, len(m.Keys()))
			}
		})
	}
}

// raw puts the values as they are, padding and backslashes included.
func (s set) raw() *dicom.Dataset {
	ds := dicom.NewDataset()
	for _, a := range s {
		v := []byte(strings.Join(a.values, `\`))
		if len(v)%2 == 1 && a.vr == dict.UI {
			v = append(v, 0)
		} else if len(v)%2 == 1 {
			v = append(v, ' ')
		}
		ds.Put(dicom.Element{Tag: a.tag, VR: a.vr, Value: v})
	}
	return ds
}

func TestCompileRefuses(t *testing.T) {
	two := dicom.NewDataset()
	two.SetSequence(dict.RequestAttributesSequence, dicom.NewDataset(), dicom.NewDataset())
	deep := dicom.NewDataset()
	deep.Set(dict.CodeValue, dict.SH, "1")
	for range maxDepth + 1 {
		outer := dicom.NewDataset()
		outer.SetSequence(dict.ConceptNameCodeSequence, deep)
		deep = outer
	}
	odd := dicom.NewDataset()
	odd.Put(dicom.Element{Tag: dict.Rows, VR: dict.US, Value: []byte{1, 2, 3}})
	pixels := dicom.NewDataset()
	pixels.Put(dicom.Element{Tag: dict.PixelData, VR: dict.OW, Value: []byte{1, 2}})
	for rule, keys := range map[string]*dicom.Dataset{
		"a date that is none":         set{text(dict.StudyDate, dict.DA, "2026")}.raw(),
		"a day that is none":          set{text(dict.StudyDate, dict.DA, "20260230")}.raw(),
		"wildcards in dates":          set{text(dict.StudyDate, dict.DA, "2026*")}.raw(),
		"a range of three":            set{text(dict.StudyDate, dict.DA, "20260101-20260102-20260103")}.raw(),
		"a time that is none":         set{text(dict.StudyTime, dict.TM, "2500")}.raw(),
		"a date time that is none":    set{text(dict.AcquisitionDateTime, dict.DT, "x")}.raw(),
		"two items in a sequence":     two,
		"sequences too deep":          deep,
		"half a number":               odd,
		"a bulk value":                pixels,
		"a pattern beyond all reason": set{text(dict.PatientID, dict.LO, strings.Repeat("a", maxPattern)+"*")}.raw(),
	} {
		if _, err := Compile(keys, Options{}); !fault.Is(err, fault.Mismatch) {
			t.Errorf("%s: %v, want a mismatch", rule, err)
		} else if strings.ContainsAny(err.Error(), "*") || strings.Contains(err.Error(), "2026") {
			t.Errorf("%s: the error quotes the key: %v", rule, err)
		}
	}
}

func TestNoKeys(t *testing.T) {
	keys := dicom.NewDataset()
	keys.Set(dict.SpecificCharacterSet, dict.CS, "ISO_IR 192")
	keys.Set(dict.QueryRetrieveLevel, dict.CS, "STUDY")
	keys.Set(dict.TimezoneOffsetFromUTC, dict.SH, "+0100")
	keys.Set(dict.Tag(0x00090010), dict.LO, "CREATOR")
	keys.SetSequence(dict.RequestAttributesSequence)
	keys.SetSequence(dict.ReferencedStudySequence, dicom.NewDataset())
	m := compiled(t, keys, Options{Timezone: true})
	if got := m.Keys(); len(got) != 0 {
		t.Errorf("keys %+v, want none", got)
	}
	if !m.Match(dicom.NewDataset(), nil) {
		t.Error("an empty data set does not match no keys")
	}
}

func TestBinaryNumbers(t *testing.T) {
	keys := dicom.NewDataset()
	keys.SetUint(dict.Rows, dict.US, 512, 256)
	m := compiled(t, keys, Options{})
	for rows, want := range map[uint64]bool{256: true, 512: true, 257: false} {
		ds := dicom.NewDataset()
		ds.SetUint(dict.Rows, dict.US, rows)
		if got := m.Match(ds, nil); got != want {
			t.Errorf("%d rows: %v", rows, got)
		}
	}
	big := &dicom.Dataset{}
	big.Syntax, _ = dict.Syntax(dict.ExplicitBigEndian)
	big.Put(dicom.Element{Tag: dict.Rows, VR: dict.US, Value: []byte{1, 0}})
	if !m.Match(big, nil) {
		t.Error("256 in big endian does not match")
	}
	tags := dicom.NewDataset()
	tags.SetUint(dict.FrameIncrementPointer, dict.AT, uint64(dict.FrameTime))
	if m := compiled(t, tags, Options{}); !m.Match(tags, nil) || m.Keys()[0].Values[0] != "00181063" {
		t.Errorf("an attribute tag does not match itself: %+v", m.Keys())
	}
}

func TestSequence(t *testing.T) {
	item := set{text(dict.ScheduledProcedureStepID, dict.SH, "S1"), text(dict.RequestedProcedureID, dict.SH, "R1")}.raw()
	keys := dicom.NewDataset()
	keys.SetSequence(dict.RequestAttributesSequence, item)
	m := compiled(t, keys, Options{})
	for _, c := range []struct {
		rule  string
		items []*dicom.Dataset
		want  bool
	}{
		{"one item matches all", []*dicom.Dataset{set{text(dict.RequestedProcedureID, dict.SH, "R0")}.raw(), item}, true},
		{"two items share the match", []*dicom.Dataset{
			set{text(dict.ScheduledProcedureStepID, dict.SH, "S1"), text(dict.RequestedProcedureID, dict.SH, "R2")}.raw(),
			set{text(dict.ScheduledProcedureStepID, dict.SH, "S2"), text(dict.RequestedProcedureID, dict.SH, "R1")}.raw(),
		}, false},
		{"no items", nil, false},
	} {
		ds := dicom.NewDataset()
		ds.SetSequence(dict.RequestAttributesSequence, c.items...)
		if got := m.Match(ds, nil); got != c.want {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
	k := m.Keys()
	if len(k) != 1 || k[0].Kind != Sequence || len(k[0].Keys) != 2 || k[0].Keys[0].Values[0] != "S1" {
		t.Errorf("keys %+v", k)
	}
}

func TestPrivateBlocksMove(t *testing.T) {
	keys := set{text(0x00090010, dict.LO, "ACME"), text(0x00091001, dict.LO, "yes")}.raw()
	m := compiled(t, keys, Options{})
	for _, c := range []struct {
		rule string
		ds   set
		want bool
	}{
		{"same block", set{text(0x00090010, dict.LO, "ACME"), text(0x00091001, dict.LO, "yes")}, true},
		{"another block", set{text(0x00090010, dict.LO, "OTHER"), text(0x00090011, dict.LO, "ACME"), text(0x00091101, dict.LO, "yes")}, true},
		{"another creator", set{text(0x00090010, dict.LO, "OTHER"), text(0x00091001, dict.LO, "yes")}, false},
		{"no creator", set{text(0x00091001, dict.LO, "yes")}, false},
	} {
		if got := m.Match(c.ds.raw(), nil); got != c.want {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
}

func TestUnknownPublicAttributeIsText(t *testing.T) {
	keys := set{text(0x00091001, dict.UN, "ye*")}.raw()
	if m := compiled(t, keys, Options{}); !m.Match(set{text(0x00091001, dict.LO, "yes")}.raw(), nil) {
		t.Error("a UN key does not find text")
	}
	named := set{text(dict.PatientName, dict.UN, "smith*")}.raw()
	if m := compiled(t, named, Options{}); !m.Match(set{text(dict.PatientName, dict.PN, "Smith^J")}.raw(), nil) {
		t.Error("a UN key of a known attribute is not matched by its VR")
	}
}

func TestOnly(t *testing.T) {
	keys := set{text(dict.PatientID, dict.LO, "P1"), text(dict.Modality, dict.CS, "CT")}.raw()
	m := compiled(t, keys, Options{})
	ds := set{text(dict.PatientID, dict.LO, "P1"), text(dict.Modality, dict.CS, "MR")}.raw()
	if !m.Match(ds, func(t dict.Tag) bool { return t == dict.PatientID }) {
		t.Error("a key that only leaves out decided")
	}
	if m.Match(ds, nil) {
		t.Error("without only not every key decided")
	}
}

func TestFoldText(t *testing.T) {
	for _, c := range []struct {
		tag        dict.Tag
		vr         dict.VR
		key, value string
		folded     bool
	}{
		{dict.StudyDescription, dict.LO, "*knie*", "MRT KNIE links", true},
		{dict.StudyDescription, dict.LO, "schädel", "SCHÄDEL", true},
		{dict.SeriesDescription, dict.LO, "T1 SAG", "t1 sag", true},
		{dict.PatientComments, dict.LT, "*ALLERGY*", "known allergy", true},
		{dict.PatientID, dict.LO, "p1", "P1", false},
		{dict.AccessionNumber, dict.SH, "a1", "A1", false},
		{dict.Modality, dict.CS, "ct", "CT", false},
	} {
		keys, ds := set{text(c.tag, c.vr, c.key)}.raw(), set{text(c.tag, c.vr, c.value)}.raw()
		if got := compiled(t, keys, Options{FoldText: true}).Match(ds, nil); got != c.folded {
			t.Errorf("%v %q with FoldText finds %q: %v", c.tag, c.key, c.value, got)
		}
		if compiled(t, keys, Options{}).Match(ds, nil) {
			t.Errorf("%v %q without FoldText finds %q", c.tag, c.key, c.value)
		}
	}
}

func TestFuzzyIsWiderThanLiteral(t *testing.T) {
	o := Options{Fuzzy: true}
	for _, c := range []struct {
		key, value string
		want       bool
	}{
		{"Meier^Hans", "Mayer^Hans", true},
		{"Hans Meier", "MAYER^HANS", true},
		{"*meier*", "Mayer^Hans", true},
		{"SMI", "Smith^John", true},
		{"*ith*", "Smith^John", true},
		{"Jones", "Smith^John", false},
	} {
		m := compiled(t, set{text(dict.PatientName, dict.PN, c.key)}.raw(), o)
		if got := m.Match(set{text(dict.PatientName, dict.PN, c.value)}.raw(), nil); got != c.want {
			t.Errorf("%q finds %q: %v", c.key, c.value, got)
		}
		if k := m.Keys(); k[0].Kind != Phonetic {
			t.Errorf("%q: kind %v", c.key, k[0].Kind)
		}
	}
}

func TestCombinedDateTime(t *testing.T) {
	keys := set{text(dict.StudyDate, dict.DA, "20060705-20060707"), text(dict.StudyTime, dict.TM, "1000-1800")}.raw()
	joined, apart := compiled(t, keys, Options{CombinedDateTime: true}), compiled(t, keys, Options{})
	for _, c := range []struct {
		date, time    string
		joined, apart bool
	}{
		{"20060705", "095959", false, false},
		{"20060705", "100000", true, true},
		{"20060706", "030000", true, false},
		{"20060707", "180000", true, true},
		{"20060707", "180100", false, false},
		{"20060708", "110000", false, false},
		{"20060705", "", true, false}, // of unknown time: may be meant
		{"20060708", "", false, false},
	} {
		ds := set{text(dict.StudyDate, dict.DA, c.date), text(dict.StudyTime, dict.TM, c.time)}.raw()
		if got := joined.Match(ds, nil); got != c.joined {
			t.Errorf("combined, %s %s: %v", c.date, c.time, got)
		}
		if got := apart.Match(ds, nil); got != c.apart {
			t.Errorf("apart, %s %s: %v", c.date, c.time, got)
		}
	}
	k := joined.Keys()
	if len(k) != 1 || k[0].Tag != dict.StudyDate || k[0].Low != "20060705100000.000000" || k[0].High != "20060707180059.999999" {
		t.Errorf("keys %+v", k)
	}
	open := compiled(t, set{text(dict.StudyDate, dict.DA, "20060705-"), text(dict.StudyTime, dict.TM, "1000-")}.raw(), Options{CombinedDateTime: true}).Keys()
	if len(open) != 1 || open[0].Low != "20060705100000.000000" || open[0].High != "" {
		t.Errorf("open end: keys %+v", open)
	}
}

func TestTimezone(t *testing.T) {
	query := func(date, time, zone string) *dicom.Dataset {
		s := set{text(dict.TimezoneOffsetFromUTC, dict.SH, zone)}
		if date != "" {
			s = append(s, text(dict.StudyDate, dict.DA, date))
		}
		if time != "" {
			s = append(s, text(dict.StudyTime, dict.TM, time))
		}
		return s.raw()
	}
	stored := set{text(dict.TimezoneOffsetFromUTC, dict.SH, "-0500"),
		text(dict.StudyDate, dict.DA, "20260131"), text(dict.StudyTime, dict.TM, "203000")}.raw() // 1 February 02:30 at +0100
	for _, c := range []struct {
		rule string
		keys *dicom.Dataset
		o    Options
		want bool
	}{
		{"negotiated: the day moves", query("20260201", "", "+0100"), Options{Timezone: true}, true},
		{"negotiated: the old day is gone", query("20260131", "", "+0100"), Options{Timezone: true}, false},
		{"negotiated: the time moves", query("", "0230", "+0100"), Options{Timezone: true}, true},
		{"negotiated: combined", query("20260201", "0200-0300", "+0100"), Options{Timezone: true, CombinedDateTime: true}, true},
		{"not negotiated: nothing moves", query("20260131", "", "+0100"), Options{}, true},
		{"no zone in the keys: nothing moves", set{text(dict.StudyDate, dict.DA, "20260131")}.raw(), Options{Timezone: true}, true},
	} {
		if got := compiled(t, c.keys, c.o).Match(stored, nil); got != c.want {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
	birth := set{text(dict.TimezoneOffsetFromUTC, dict.SH, "+0100"), text(dict.PatientBirthDate, dict.DA, "19700101")}.raw()
	person := set{text(dict.TimezoneOffsetFromUTC, dict.SH, "-0500"), text(dict.PatientBirthDate, dict.DA, "19700101"), text(dict.PatientBirthTime, dict.TM, "2300")}.raw()
	if !compiled(t, birth, Options{Timezone: true}).Match(person, nil) {
		t.Error("a birth date moved")
	}
	k := compiled(t, query("20260201", "", "+0100"), Options{Timezone: true}).Keys()
	if len(k) != 1 || k[0].Kind != Range || k[0].Low != "20260130" || k[0].High != "20260203" {
		t.Errorf("keys for a planner are not widened: %+v", k)
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		tag  dict.Tag
		vr   dict.VR
		key  string
		want Key
	}{
		{dict.PatientID, dict.LO, "P1", Key{Kind: Single, Values: []string{"P1"}}},
		{dict.PatientID, dict.LO, "P*", Key{Kind: Wildcard, Values: []string{"P*"}}},
		{dict.PatientName, dict.PN, "Müller^J*", Key{Kind: Wildcard, Values: []string{"MULLER^J*"}}},
		{dict.PatientName, dict.PN, "=山田", Key{Kind: Single, Values: []string{"山田"}}},
		{dict.StudyDate, dict.DA, "2026.01.31", Key{Kind: Single, Values: []string{"20260131"}, Low: "20260131", High: "20260131"}},
		{dict.StudyDate, dict.DA, "-20260131", Key{Kind: Range, High: "20260131"}},
		{dict.StudyTime, dict.TM, "1030", Key{Kind: Range, Low: "103000.000000", High: "103059.999999"}},
		{dict.StudyTime, dict.TM, "2200-0600", Key{Kind: Mixed}},
		{dict.StudyInstanceUID, dict.UI, `1.3\1.2`, Key{Kind: List, Values: []string{"1.2", "1.3"}}},
		{dict.ModalitiesInStudy, dict.CS, `C*\MR`, Key{Kind: Mixed, Values: []string{"C*", "MR"}}},
		{dict.SeriesNumber, dict.IS, "007", Key{Kind: Single, Values: []string{"7"}}},
	} {
		k := compiled(t, set{text(c.tag, c.vr, c.key)}.raw(), Options{}).Keys()
		c.want.Tag, c.want.VR = c.tag, c.vr
		if len(k) != 1 || fmt.Sprint(k[0]) != fmt.Sprint(c.want) {
			t.Errorf("%v %q: %+v, want %+v", c.tag, c.key, k, c.want)
		}
	}
}

func TestPrefix(t *testing.T) {
	for pattern, want := range map[string]string{"SMITH*": "SMITH", "SMITH^*": "SMITH", "*A": "", "SM?TH": "SM", "VAN DER *": "VAN DER"} {
		if got := (Key{Kind: Wildcard, Values: []string{pattern}}).Prefix(); got != want {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
	}
}

// Whatever matches a name pattern starts, folded, with the prefix that a
// planner looks up.
func TestPrefixIsNecessary(t *testing.T) {
	part := rapid.StringOfN(rapid.RuneFrom([]rune("aB^- '?*é")), 1, 8, -1)
	value := rapid.StringOfN(rapid.RuneFrom([]rune("aB^- 'é")), 1, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		key, name := part.Draw(t, "key"), value.Draw(t, "name")
		m, err := Compile(set{text(dict.PatientName, dict.PN, key)}.raw(), Options{})
		if err != nil || len(m.Keys()) == 0 {
			return
		}
		if m.Match(set{text(dict.PatientName, dict.PN, name)}.raw(), nil) && !strings.HasPrefix(FoldName(name), m.Keys()[0].Prefix()) {
			t.Fatalf("%q matches %q, whose prefix is %q", name, key, m.Keys()[0].Prefix())
		}
	})
}

// Ranges of dates against the plain comparison of their digits.
func TestDateRangesAgreeWithDigits(t *testing.T) {
	date := rapid.Custom(func(t *rapid.T) string {
		return formatDate(rapid.Int64Range(-2000, 40000).Draw(t, "day") * day)
	})
	rapid.Check(t, func(t *rapid.T) {
		low, high, value := date.Draw(t, "low"), date.Draw(t, "high"), date.Draw(t, "value")
		switch rapid.IntRange(0, 2).Draw(t, "open") {
		case 0:
			low = ""
		case 1:
			high = ""
		}
		m, err := Compile(set{text(dict.StudyDate, dict.DA, low+"-"+high)}.raw(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := (low == "" || low <= value) && (high == "" || value <= high)
		if got := m.Match(set{text(dict.StudyDate, dict.DA, value)}.raw(), nil); got != want {
			t.Fatalf("%s in %s-%s: %v", value, low, high, got)
		}
		k := m.Keys()[0]
		if inside := (k.Low == "" || k.Low <= value) && (k.High == "" || value <= k.High); inside != want {
			t.Fatalf("%s in bounds %s, %s: %v", value, k.Low, k.High, inside)
		}
	})
}

// Ranges of times against all the minutes of a day.
func TestTimeRangesAgreeWithMinutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low, high := rapid.IntRange(0, 1439).Draw(t, "low"), rapid.IntRange(0, 1439).Draw(t, "high")
		at := func(minutes int) string { return fmt.Sprintf("%02d%02d", minutes/60, minutes%60) }
		m, err := Compile(set{text(dict.StudyTime, dict.TM, at(low)+"-"+at(high))}.raw(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		value := rapid.IntRange(0, 1439).Draw(t, "value")
		want := low <= value && value <= high
		if low > high {
			want = value >= low || value <= high
		}
		ds := set{text(dict.StudyTime, dict.TM, at(value)+"30.5")}.raw()
		if got := m.Match(ds, nil); got != want {
			t.Fatalf("%s in %s-%s: %v", at(value), at(low), at(high), got)
		}
	})
}

func TestMatchAllocatesNothing(t *testing.T) {
	m, ds := benchmarkPair(t, Options{CombinedDateTime: true, FoldText: true})
	if !m.Match(ds, nil) {
		t.Fatal("the candidate does not match")
	}
	if n := testing.AllocsPerRun(100, func() { m.Match(ds, nil) }); n > 0 {
		t.Errorf("%v allocations a candidate", n)
	}
}

func benchmarkPair(t testing.TB, o Options) (*Matcher, *dicom.Dataset) {
	keys := set{
		text(dict.StudyDate, dict.DA, "20260101-20261231"), text(dict.StudyTime, dict.TM, "0800-1800"),
		text(dict.ModalitiesInStudy, dict.CS, `CT\MR`), text(dict.StudyDescription, dict.LO, "*knee*"),
		text(dict.PatientName, dict.PN, "*smi*"), text(dict.PatientID, dict.LO, "P*"), text(dict.StudyInstanceUID, dict.UI, ""),
	}
	ds := set{
		text(dict.StudyDate, dict.DA, "20260630"), text(dict.StudyTime, dict.TM, "103015.25"), text(dict.AccessionNumber, dict.SH, "A1"),
		text(dict.ModalitiesInStudy, dict.CS, `MR\SR`), text(dict.StudyDescription, dict.LO, "MR Knee left"),
		text(dict.PatientName, dict.PN, "O'Smith-Jones^Mary Ann"), text(dict.PatientID, dict.LO, "P123456"),
		text(dict.StudyInstanceUID, dict.UI, "1.2.3.4"),
	}
	return compiled(t, keys.raw(), o), ds.raw()
}

func BenchmarkMatch(b *testing.B) {
	m, ds := benchmarkPair(b, Options{CombinedDateTime: true, FoldText: true})
	b.ReportAllocs()
	for b.Loop() {
		m.Match(ds, nil)
	}
}

func BenchmarkMatchFuzzy(b *testing.B) {
	keys := set{text(dict.PatientName, dict.PN, "Meier Hans")}.raw()
	m, ds := compiled(b, keys, Options{Fuzzy: true}), set{text(dict.PatientName, dict.PN, "Mayer^Johannes^Hans")}.raw()
	b.ReportAllocs()
	for b.Loop() {
		m.Match(ds, nil)
	}
}

func BenchmarkMatchAccents(b *testing.B) {
	keys := set{text(dict.PatientName, dict.PN, "MÜLLER*")}.raw()
	m, ds := compiled(b, keys, Options{}), set{text(dict.PatientName, dict.PN, "Müller^Jérôme")}.raw()
	b.ReportAllocs()
	for b.Loop() {
		m.Match(ds, nil)
	}
}

// FuzzMatch takes any key and value of any VR: nothing panics, and a key
// without wildcards, ranges or lists finds itself.
func FuzzMatch(f *testing.F) {
	f.Add(uint32(dict.PatientName), "Sm?th^J*", "Smith^John", byte(0))
	f.Add(uint32(dict.StudyDate), "20200101-", "2020.02.03", byte(3))
	f.Add(uint32(dict.StudyTime), "2200-0600", "10:30:15.25", byte(4))
	f.Add(uint32(dict.AcquisitionDateTime), "2020-0500-2021+0100", "20200101", byte(8))
	f.Add(uint32(dict.PatientName), "a=b=c=d^^=*", "=\xff\x1b$B;3ED\x1b(B", byte(1))
	f.Add(uint32(dict.Rows), "\x01\x02\x03", "\x00", byte(15))
	f.Add(uint32(0x00091001), "x*", "xyz", byte(0))
	f.Fuzz(func(t *testing.T, tag uint32, key, value string, options byte) {
		vr := dict.ImplicitVR(dict.Tag(tag), false)
		o := Options{Fuzzy: options&1 != 0, CombinedDateTime: options&2 != 0, Timezone: options&4 != 0, FoldText: options&8 != 0}
		keys := dicom.NewDataset()
		keys.Set(dict.TimezoneOffsetFromUTC, dict.SH, "+0100")
		keys.Put(dicom.Element{Tag: dict.Tag(tag), VR: vr, Value: []byte(key)})
		ds := dicom.NewDataset()
		ds.Put(dicom.Element{Tag: dict.Tag(tag), VR: vr, Value: []byte(value)})
		m, err := Compile(keys, o)
		if err != nil {
			if !fault.Is(err, fault.Mismatch) {
				t.Fatalf("%v is no mismatch", err)
			}
			return
		}
		m.Match(ds, nil)
		k := m.Keys()
		if len(k) == 1 && k[0].Kind == Single && vr.Text() && !strings.ContainsAny(key, "\\,") && utf8.ValidString(key) && !m.Match(keys, nil) {
			t.Errorf("%v %v key %q does not match itself: %+v", dict.Tag(tag), vr, key, k)
		}
	})
}
