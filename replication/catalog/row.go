package catalog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// StudyRow is a study record as indexers and query engines read it. It may be
// kept, and shared by goroutines.
type StudyRow struct {
	s    *study
	utf8 func() *dicom.Charset
}

// UID returns the Study Instance UID.
func (r StudyRow) UID() string { return r.s.uid }

// Order returns the study's place in answers.
func (r StudyRow) Order() Order { return r.s.order() }

// Patients is the number of patients that the study's series name, at least 1.
// All of them find the study; more than one is a conflict shown to the operator.
func (r StudyRow) Patients() int { return len(r.s.patients) }

// Patient returns the key of patient i; the zero key without Patient ID.
func (r StudyRow) Patient(i int) PatientKey { return r.s.patients[i].key() }

// PatientText returns a patient attribute of patient i in UTF-8, values
// separated by backslash; "" when absent.
func (r StudyRow) PatientText(i int, t dict.Tag) string {
	if t == dict.IssuerOfPatientID {
		return r.s.patients[i].issuer
	}
	return r.s.patients[i].attrs.textOf(t)
}

// Text returns a study attribute in UTF-8, as PatientText.
func (r StudyRow) Text(t dict.Tag) string {
	if t == dict.StudyInstanceUID {
		return r.s.uid
	}
	return r.s.attrs.textOf(t)
}

// Modalities returns the modalities of the study's series, ascending.
func (r StudyRow) Modalities() []string { return r.s.modalities }

// Series is the number of series that queries see.
func (r StudyRow) Series() uint32 { return r.s.series }

// Instances is the number of instances; approximate when origins differ.
func (r StudyRow) Instances() uint64 { return r.s.instances }

// Shared reports whether several sites hold any of the study, or several nodes do
// and not the same instances.
func (r StudyRow) Shared() bool { return r.s.approx || len(r.s.sites) > 1 }

// Sites returns the sites that hold any of the study, ascending.
func (r StudyRow) Sites() []string { return r.s.sites }

// Approximate reports that nodes hold different instances of some series: counts
// are those of who holds most.
func (r StudyRow) Approximate() bool { return r.s.approx }

// Omits reports whether the value of a patient or study attribute was too long
// for the record: it must be read from an instance's header.
func (r StudyRow) Omits(i int, t dict.Tag) bool {
	return r.s.attrs.omits(t) || r.s.patients[i].attrs.omits(t)
}

// Dataset returns the attributes of patient i and of the study, with the
// computed ones of the study, in explicit little endian and ISO_IR 192.
func (r StudyRow) Dataset(i int) *dicom.Dataset {
	s, p := r.s, r.s.patients[i]
	e := make([]dicom.Element, 0, len(s.attrs)+len(p.attrs)+8)
	e = append(e, charsetElement)
	var values [len(attributes)][]byte
	p.attrs.spread(&values)
	s.attrs.spread(&values)
	for _, slot := range studySlots {
		if slot.computed == nil {
			if v := values[slot.code]; v != nil {
				e = append(e, dicom.Element{Tag: slot.tag, VR: slot.vr, Value: v})
			}
		} else if v := slot.computed(s, &p); v != "" {
			e = append(e, textElement(slot.tag, slot.vr, v))
		}
	}
	return &dicom.Dataset{Syntax: explicitLittleEndian, Elements: e, Charset: r.utf8()}
}

// spread puts values at the places of their codes.
func (as attrs) spread(values *[len(attributes)][]byte) {
	for _, a := range as {
		if a.code != codeOmitted {
			values[a.code] = a.value
		}
	}
}

// slot is an attribute of a study's data set: held under a code, or computed.
type slot struct {
	tag      dict.Tag
	vr       dict.VR
	code     uint8
	computed func(*study, *patient) string
}

// studySlots are ascending by tag.
var studySlots = makeStudySlots()

func makeStudySlots() []slot {
	slots := []slot{
		{tag: dict.ModalitiesInStudy, vr: dict.CS, computed: func(s *study, _ *patient) string { return strings.Join(s.modalities, `\`) }},
		{tag: dict.SOPClassesInStudy, vr: dict.UI, computed: func(s *study, _ *patient) string { return strings.Join(s.classes, `\`) }},
		{tag: dict.IssuerOfPatientID, vr: dict.LO, computed: func(_ *study, p *patient) string { return p.issuer }},
		{tag: dict.StudyInstanceUID, vr: dict.UI, computed: func(s *study, _ *patient) string { return s.uid }},
		{tag: dict.NumberOfStudyRelatedSeries, vr: dict.IS, computed: func(s *study, _ *patient) string {
			return strconv.FormatUint(uint64(s.series), 10)
		}},
		{tag: dict.NumberOfStudyRelatedInstances, vr: dict.IS, computed: func(s *study, _ *patient) string {
			return strconv.FormatUint(s.instances, 10)
		}},
	}
	for code, a := range attributes {
		if a.level != ofSeries {
			slots = append(slots, slot{tag: a.tag, vr: a.vr, code: uint8(code)})
		}
	}
	slices.SortFunc(slots, func(x, y slot) int { return cmp.Compare(x.tag, y.tag) })
	return slots
}

// SeriesRow is a series record, as StudyRow.
type SeriesRow struct {
	x    *series
	utf8 func() *dicom.Charset
}

// UID returns the Series Instance UID.
func (r SeriesRow) UID() string { return r.x.uid }

// Classes returns the series' SOP classes, ascending.
func (r SeriesRow) Classes() []string { return r.x.counts().classes }

// Sites returns the sites that hold any of the series, ascending.
func (r SeriesRow) Sites() []string { return r.x.counts().sites }

// Approximate is as [StudyRow.Approximate].
func (r SeriesRow) Approximate() bool { return r.x.counts().approx }

// Omits is as [StudyRow.Omits], for series attributes.
func (r SeriesRow) Omits(t dict.Tag) bool { return r.x.effective().attrs.omits(t) }

// Dataset returns the attributes of the series, with the computed ones.
func (r SeriesRow) Dataset() *dicom.Dataset {
	attrs := r.x.effective().attrs.of(ofSeries)
	e := make([]dicom.Element, 0, len(attrs)+3)
	e = attrs.elements(append(e, charsetElement))
	e = append(e,
		textElement(dict.SeriesInstanceUID, dict.UI, r.x.uid),
		textElement(dict.NumberOfSeriesRelatedInstances, dict.IS, strconv.FormatUint(r.x.counts().instances, 10)))
	return newDataset(e, r.utf8())
}

var charsetElement = dicom.Element{Tag: dict.SpecificCharacterSet, VR: dict.CS, Value: []byte("ISO_IR 192")}

func newDataset(e []dicom.Element, utf8 *dicom.Charset) *dicom.Dataset {
	slices.SortFunc(e, func(x, y dicom.Element) int { return cmp.Compare(x.Tag, y.Tag) })
	return &dicom.Dataset{Syntax: explicitLittleEndian, Elements: e, Charset: utf8}
}

var explicitLittleEndian, _ = dict.Syntax(dict.ExplicitLittleEndian)

func textElement(t dict.Tag, vr dict.VR, value string) dicom.Element {
	b := make([]byte, len(value), len(value)+1)
	copy(b, value)
	if len(b)%2 != 0 {
		pad := byte(' ')
		if vr == dict.UI {
			pad = 0
		}
		b = append(b, pad)
	}
	return dicom.Element{Tag: t, VR: vr, Value: b}
}

func (as attrs) textOf(t dict.Tag) string {
	if code, ok := codeOf(t); ok {
		return as.text(code)
	}
	return ""
}
