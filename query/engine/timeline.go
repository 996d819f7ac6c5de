package engine

import (
	"slices"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/match"
	"pelago/replication/catalog"
)

// universal returns a query with the issuers that it names, or that are meant, as
// everybody has them.
func (e *Engine) universal(q query.Query) (query.Query, error) {
	if q.Issuer == "" {
		q.Issuer = e.issuer
	}
	if e.ids == nil {
		return q, nil
	}
	var err error
	if q.Issuer, err = e.ids.Issuer(q.Issuer); err != nil {
		return q, err
	}
	local := q.Keys.String(dict.IssuerOfPatientID)
	issuer, err := e.ids.Issuer(local)
	if err != nil || issuer == local {
		return q, err
	}
	keys := *q.Keys
	keys.Elements = slices.Clone(keys.Elements)
	keys.Set(dict.IssuerOfPatientID, dict.LO, issuer)
	q.Keys = &keys
	return q, nil
}

// link finds the ids that belong to the patient whose id is a key.
func (s *search) link(keys []match.Key, anyIssuer bool) error {
	if s.engine.ids == nil || anyIssuer {
		return nil
	}
	for _, k := range keys {
		if k.Tag != dict.PatientID || k.Kind != match.Single {
			continue
		}
		line, err := s.engine.ids.Timeline(catalog.PatientKey{Issuer: s.issuer, ID: k.Values[0]})
		if err != nil {
			return err
		}
		if len(line) > 1 {
			s.timeline = line
		}
	}
	return nil
}

// isMeant reports whether a patient of a study may be one that is asked for, as
// far as the issuer decides.
func (s *search) isMeant(key catalog.PatientKey) bool {
	if s.timeline != nil {
		return slices.Contains(s.timeline, key)
	}
	return !s.checkIssuer || key.ID == "" || key.Issuer == s.issuer
}

// isDecided reports whether a key has been matched by the patient being one of
// a timeline.
func (s *search) isDecided(t dict.Tag) bool {
	return s.timeline != nil && (t == dict.PatientID || t == dict.IssuerOfPatientID)
}

// lineOf returns all ids of a match's patient, its own first.
func (t *scan) lineOf(key catalog.PatientKey) ([]catalog.PatientKey, error) {
	others, err := t.linked(key)
	return append([]catalog.PatientKey{key}, others...), err
}

// linked returns the other ids of a match's patient: most have none.
func (t *scan) linked(key catalog.PatientKey) (others []catalog.PatientKey, err error) {
	if t.engine.ids == nil || key.ID == "" {
		return nil, nil
	}
	line := t.timeline
	if !slices.Contains(line, key) {
		if line, err = t.engine.ids.Timeline(key); err != nil {
			return nil, err
		}
	}
	for _, k := range line {
		if k != key {
			others = append(others, k)
		}
	}
	return others, nil
}

// addOtherIDs puts the linked ids of a match's patient into Other Patient IDs
// Sequence (0010,1002) of an answer that names the patient, beside those that the
// object itself has where the sequence is asked for.
func (t *scan) addOtherIDs(out *dicom.Dataset, m *matched) error {
	if t.engine.ids == nil || !out.Has(dict.PatientID) {
		return nil
	}
	others, err := t.linked(m.study.Patient(m.patient))
	if err != nil || len(others) == 0 {
		return err
	}
	var items []*dicom.Dataset
	if e := out.Get(dict.OtherPatientIDsSequence); e != nil {
		items = slices.Clone(e.Items)
	}
	for _, key := range others {
		if slices.ContainsFunc(items, func(i *dicom.Dataset) bool {
			return i.String(dict.PatientID) == key.ID && i.String(dict.IssuerOfPatientID) == key.Issuer
		}) {
			continue
		}
		item := &dicom.Dataset{Syntax: out.Syntax, Charset: out.Charset}
		item.Set(dict.PatientID, dict.LO, key.ID)
		item.Set(dict.IssuerOfPatientID, dict.LO, key.Issuer)
		items = append(items, item)
	}
	out.SetSequence(dict.OtherPatientIDsSequence, items...)
	return nil
}
