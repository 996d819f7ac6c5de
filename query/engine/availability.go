package engine

import (
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/replication/catalog"
)

// availability returns how what stands for a match at the query's level can be
// had now: asked of the archive for each match, and stored nowhere.
func (t *scan) availability(m *matched) (query.Availability, error) {
	of := t.engine.instances
	switch t.q.Level {
	case query.Image:
		if m.instance.Origin != "" {
			return m.reached, nil // by who has just told of it
		}
		return of.Availability(t.ctx, m.study.UID(), m.series.UID(), m.instance.Number), nil
	case query.Series:
		return of.Availability(t.ctx, m.study.UID(), m.series.UID(), 0), nil
	case query.Study:
		return of.Availability(t.ctx, m.study.UID(), "", 0), nil
	}
	least := of.Availability(t.ctx, "", "", 0)
	if least == query.Online {
		return least, nil // without a look at the patient's studies
	}
	least = query.Online // a patient may have none in this view
	err := t.eachStudy(m, func(row catalog.StudyRow) bool {
		least = of.Availability(t.ctx, row.UID(), "", 0)
		return least == query.Online
	})
	return least, err
}

// addAvailability puts Instance Availability (0008,0056) into an answer.
func (t *scan) addAvailability(out *dicom.Dataset, m *matched) error {
	a, err := t.availability(m)
	if err == nil {
		out.Set(dict.InstanceAvailability, dict.CS, string(a))
	}
	return err
}

// ifAvailable passes on to found what matches a key of Instance Availability.
func (t *scan) ifAvailable(found func(matched) error) func(matched) error {
	return func(m matched) error {
		ds := dicom.NewDataset()
		if err := t.addAvailability(ds, &m); err != nil {
			return err
		}
		if !t.matcher.Match(ds, t.keys.in(ofArchive, nil)) {
			return nil
		}
		return found(m)
	}
}
