package engine

import (
	"errors"
	"slices"
	"strconv"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/replication/catalog"
)

// patients emits the patients of a study that no earlier study in order has
// brought into the answer. So the answer holds each patient once without
// anybody remembering whom it held.
func (t *scan) patients(row catalog.StudyRow) error {
	for i := range row.Patients() {
		var best *matched
		if err := t.first(row, i, &best); err != nil {
			return err
		}
		if best == nil {
			continue
		}
		seen, err := t.brought(row, i)
		if err != nil {
			return err
		}
		if seen {
			continue
		}
		if err := t.emit(func() (*dicom.Dataset, error) { return t.answer(*best) }); err != nil {
			return err
		}
	}
	return nil
}

// first finds the first match of a study for one of its patients.
func (t *scan) first(row catalog.StudyRow, i int, best **matched) error {
	err := t.variant(row, i, func(m matched) error {
		*best = &m
		return next{}
	})
	if errors.As(err, &next{}) {
		return nil
	}
	return err
}

// brought is as seen, and remembers the patient where others would have to be
// asked again.
func (t *scan) brought(row catalog.StudyRow, i int) (bool, error) {
	line, err := t.lineOf(row.Patient(i))
	if err != nil {
		return false, err
	}
	if t.sent == nil || line[0].ID == "" {
		return t.seen(row, i, line)
	}
	seen := false
	for _, key := range line {
		seen = seen || t.sent[key]
	}
	t.sent[line[0]] = true
	return seen, nil
}

// seen reports whether patient i of a study, who has all ids of a line, matches by
// the study as an earlier one of its patients, or by an earlier study.
func (t *scan) seen(row catalog.StudyRow, i int, line []catalog.PatientKey) (bool, error) {
	matches := func(r catalog.StudyRow, upTo int) (bool, error) {
		for j := range upTo {
			if !slices.Contains(line, r.Patient(j)) {
				continue
			}
			var m *matched
			if err := t.first(r, j, &m); err != nil || m != nil {
				return m != nil, err
			}
		}
		return false, nil
	}
	if ok, err := matches(row, i); err != nil || ok || line[0].ID == "" {
		return ok, err
	}
	found := false
	err := t.eachOf(line, row.UID(), func(earlier catalog.StudyRow) (more bool, err error) {
		if compare(earlier.Order(), row.Order()) >= 0 {
			return false, nil
		}
		found, err = matches(earlier, earlier.Patients())
		return !found, err
	})
	return found, err
}

// countPatient adds the numbers of the patient's studies, series and instances.
func (t *scan) countPatient(m *matched) error {
	var studies, series, instances uint64
	if err := t.eachStudy(m, func(row catalog.StudyRow) bool {
		studies, series, instances = studies+1, series+uint64(row.Series()), instances+row.Instances()
		return true
	}); err != nil {
		return err
	}
	m.data.Set(dict.NumberOfPatientRelatedStudies, dict.IS, strconv.FormatUint(studies, 10))
	m.data.Set(dict.NumberOfPatientRelatedSeries, dict.IS, strconv.FormatUint(series, 10))
	m.data.Set(dict.NumberOfPatientRelatedInstances, dict.IS, strconv.FormatUint(instances, 10))
	return nil
}

// eachStudy visits the studies of a match's patient, under all ids and in order,
// until visit says no more: a study without Patient ID is its own patient's.
func (t *scan) eachStudy(m *matched, visit func(catalog.StudyRow) bool) error {
	line, err := t.lineOf(m.study.Patient(m.patient))
	if err != nil {
		return err
	}
	if line[0].ID == "" {
		visit(m.study)
		return nil
	}
	return t.eachOf(line, m.study.UID(), func(row catalog.StudyRow) (bool, error) { return visit(row), nil })
}

// eachOf visits the studies of a patient with several ids, each once and in order,
// until visit says no more. study is one of them, for [catalog.View.NextOf].
func (t *scan) eachOf(line []catalog.PatientKey, study string, visit func(catalog.StudyRow) (more bool, err error)) error {
	heads := make([]head, len(line))
	for i, key := range line {
		heads[i].s = ofPatientKey{t.view, key, study}
	}
	studies := &either{heads}
	for at := (catalog.Order{}); ; at = at.Next() {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		found, ok, err := studies.SeekGE(at)
		if err != nil || !ok {
			return err
		}
		at = found
		row, ok, err := t.view.Study(found)
		if err != nil {
			return err
		}
		// What is not the patient's is another's key with the same hash.
		if !ok || !hasPatient(row, line) {
			continue
		}
		if more, err := visit(row); err != nil || !more {
			return err
		}
		if at == catalog.LastOrder() {
			return nil
		}
	}
}

// ofPatientKey is a stream of the studies of one id, without an iterator of its
// own.
type ofPatientKey struct {
	view  *catalog.View
	key   catalog.PatientKey
	study string
}

func (o ofPatientKey) SeekGE(at catalog.Order) (catalog.Order, bool, error) {
	return o.view.NextOf(o.key, o.study, at)
}

func hasPatient(row catalog.StudyRow, line []catalog.PatientKey) bool {
	for i := range row.Patients() {
		if slices.Contains(line, row.Patient(i)) {
			return true
		}
	}
	return false
}
