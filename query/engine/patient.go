package engine

import (
	"errors"
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
	key := row.Patient(i)
	if t.sent == nil || key.ID == "" {
		return t.seen(row, i)
	}
	seen := t.sent[key]
	t.sent[key] = true
	return seen, nil
}

// seen reports whether patient i of a study matches by the study as an earlier
// one of its patients, or by an earlier study.
func (t *scan) seen(row catalog.StudyRow, i int) (bool, error) {
	key := row.Patient(i)
	matches := func(r catalog.StudyRow, upTo int) (bool, error) {
		for j := range upTo {
			if r.Patient(j) != key {
				continue
			}
			var m *matched
			if err := t.first(r, j, &m); err != nil || m != nil {
				return m != nil, err
			}
		}
		return false, nil
	}
	if ok, err := matches(row, i); err != nil || ok || key.ID == "" {
		return ok, err
	}
	for at := (catalog.Order{}); ; at = at.Next() {
		if err := t.ctx.Err(); err != nil {
			return false, err
		}
		found, ok, err := t.view.NextOf(key, row.UID(), at)
		if err != nil || !ok || compare(found, row.Order()) >= 0 {
			return false, err
		}
		at = found
		earlier, ok, err := t.view.Study(found)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		if ok, err := matches(earlier, earlier.Patients()); err != nil || ok {
			return ok, err
		}
	}
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

// eachStudy visits the studies of a match's patient until visit says no more: a
// study without Patient ID is its own patient's.
func (t *scan) eachStudy(m *matched, visit func(catalog.StudyRow) bool) error {
	key := m.study.Patient(m.patient)
	if key.ID == "" {
		visit(m.study)
		return nil
	}
	for at := (catalog.Order{}); ; at = at.Next() {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		found, ok, err := t.view.NextOf(key, m.study.UID(), at)
		if err != nil || !ok {
			return err
		}
		at = found
		row, ok, err := t.view.Study(found)
		if err != nil {
			return err
		}
		// What is not the patient's is another's key with the same hash.
		if ok && hasPatient(row, key) && !visit(row) {
			return nil
		}
	}
}

func hasPatient(row catalog.StudyRow, key catalog.PatientKey) bool {
	for i := range row.Patients() {
		if row.Patient(i) == key {
			return true
		}
	}
	return false
}
