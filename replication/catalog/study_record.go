package catalog

import (
	"encoding/binary"
	"slices"
	"strings"

	"pelago/cluster/fault"
)

const studyVersion = 2

// PatientKey is a Patient ID under its issuer.
type PatientKey struct{ Issuer, ID string }

// patient is one of the patients that a study's series name.
type patient struct {
	issuer string
	attrs  attrs
}

func (p *patient) key() PatientKey {
	id := p.attrs.text(codePatientID)
	if id == "" {
		return PatientKey{}
	}
	return PatientKey{p.issuer, id}
}

// study is a study record: the fold of its visible series, in the order in
// which they were announced.
type study struct {
	uid        string
	number     uint32
	ahead      uint32 // how many of its series are not committed yet
	nextAhead  uint32 // ordinal of the place of the next such
	attrs      attrs  // of level study
	patients   []patient
	series     uint32
	instances  uint64
	bytes      uint64
	arrived    int64
	approx     bool // a count is the maximum of origins that differ
	modalities []string
	classes    []string
	sites      []string
}

// visible reports whether queries may see the study.
func (s *study) visible() bool { return s.series > 0 }

// order is the study's place; studies that nobody sees stand at the end.
func (s *study) order() Order {
	return orderOf(s.attrs.text(codeStudyDate), s.attrs.text(codeStudyTime), s.number)
}

// reset makes the record the fold of nothing.
func (s *study) reset() {
	*s = study{uid: s.uid, number: s.number, ahead: s.ahead, nextAhead: s.nextAhead}
}

// add folds one more visible series in.
func (s *study) add(x *series) {
	o := x.effective()
	s.attrs.fill(o.attrs.of(ofStudy))
	s.addPatient(o.issuer, o.attrs.of(ofPatient))
	s.series++
	s.addCounts(x)
	for _, m := range strings.Split(o.attrs.text(codeModality), `\`) {
		s.modalities = insert(s.modalities, strings.Trim(m, " "))
	}
}

// addCounts folds in what changes as a series grows.
func (s *study) addCounts(x *series) {
	c := x.counts()
	s.instances += c.instances
	s.bytes += c.bytes
	s.approx = s.approx || c.approx
	s.arrived = max(s.arrived, c.arrived)
	for _, class := range c.classes {
		s.classes = insert(s.classes, class)
	}
	for _, site := range c.sites {
		s.sites = insert(s.sites, site)
	}
}

// addPatient folds a series' patient in. A series without Patient ID belongs to
// the patient of the study unless the names differ.
func (s *study) addPatient(issuer string, as attrs) {
	id := as.text(codePatientID)
	if id == "" {
		issuer = ""
	}
	for i := range s.patients {
		p := &s.patients[i]
		known := p.attrs.text(codePatientID)
		if id == known && issuer == p.issuer {
			p.attrs.fill(as)
			return
		}
		if (id == "" || known == "") && sameName(p.attrs, as) {
			p.attrs.fill(as)
			if known == "" {
				p.issuer = issuer
			}
			return
		}
	}
	s.patients = append(s.patients, patient{issuer, as})
}

// sameName reports whether two names may be of one person: equal but for case
// and trailing delimiters, or one of them absent.
func sameName(a, b attrs) bool {
	x, y := strings.TrimRight(a.text(codePatientName), "^="), strings.TrimRight(b.text(codePatientName), "^=")
	return x == "" || y == "" || strings.EqualFold(x, y)
}

// insert adds a value to an ascending list.
func insert(list []string, v string) []string {
	if v == "" {
		return list
	}
	i, ok := slices.BinarySearch(list, v)
	if ok || len(list) >= maxList {
		return list
	}
	return slices.Insert(list, i, v)
}

// sharesUpper reports whether what a series record leaves out (because it
// equals the study's) reads the same from both records.
func (s *study) sharesUpper(other *study) bool {
	return s.attrs.equal(other.attrs) && slices.EqualFunc(s.patients, other.patients, func(x, y patient) bool {
		return x.issuer == y.issuer && x.attrs.equal(y.attrs)
	})
}

func (s *study) encode() []byte {
	b := []byte{studyVersion}
	b = appendString(b, s.uid)
	b = binary.AppendUvarint(b, uint64(s.number))
	b = binary.AppendUvarint(b, uint64(s.ahead))
	b = binary.AppendUvarint(b, uint64(s.nextAhead))
	b = appendAttrs(b, s.attrs)
	b = binary.AppendUvarint(b, uint64(len(s.patients)))
	for _, p := range s.patients {
		b = appendString(b, p.issuer)
		b = appendAttrs(b, p.attrs)
	}
	b = binary.AppendUvarint(b, uint64(s.series))
	b = binary.AppendUvarint(b, s.instances)
	b = binary.AppendUvarint(b, s.bytes)
	b = binary.AppendVarint(b, s.arrived)
	b = append(b, flag(s.approx))
	b = appendStrings(b, s.modalities)
	b = appendStrings(b, s.classes)
	return appendStrings(b, s.sites)
}

// decodeStudy reads a study record, whose values alias b.
func decodeStudy(b []byte) (*study, error) {
	d := &decoder{b: b}
	if v := d.byte(); !d.bad && v != studyVersion {
		return nil, fault.New(fault.Unsupported, "catalog: study record of version %d", v)
	}
	s := &study{uid: d.string(), number: uint32(d.uvarint()), ahead: uint32(d.uvarint()), nextAhead: uint32(d.uvarint()), attrs: d.attrs()}
	for n := d.count(); n > 0 && !d.bad; n-- {
		s.patients = append(s.patients, patient{d.string(), d.attrs()})
	}
	s.series, s.instances, s.bytes = uint32(d.uvarint()), d.uvarint(), d.uvarint()
	s.arrived = d.varint()
	s.approx = d.byte() != 0
	s.modalities, s.classes, s.sites = d.strings(), d.strings(), d.strings()
	return s, d.done("study")
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
