package engine

import (
	"errors"
	"iter"
	"slices"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/replication/catalog"
)

// match is what stands for an object in the answer: a study for one of its
// patients, and as far as they were looked at a series and an instance.
type matched struct {
	study    catalog.StudyRow
	patient  int
	data     *dicom.Dataset // patient and study
	series   *catalog.SeriesRow
	instance *query.Instance
	header   *dicom.Header // of another node's instance: what the query needs of it
	reached  query.Availability
}

// take makes an instance the one that is looked at.
func (m *matched) take(f query.Found) {
	m.instance, m.header, m.reached = &f.Instance, f.Header, f.Availability
}

// study matches one study and emits what the query's level makes of it.
func (t *scan) study(row catalog.StudyRow) error {
	if t.q.Level == query.Patient {
		return t.patients(row)
	}
	seen := map[string]bool{} // below a study that several patients share, nothing twice
	for i := range row.Patients() {
		err := t.variant(row, i, func(m matched) error {
			if row.Patients() > 1 {
				key := m.key(t.q.Level)
				if seen[key] {
					return nil
				}
				seen[key] = true
			}
			err := t.emit(func() (*dicom.Dataset, error) { return t.answer(m) })
			if err == nil && t.q.Level == query.Study {
				return next{}
			}
			return err
		})
		if errors.As(err, &next{}) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// key names a match of a level within its study.
func (m *matched) key(l query.Level) string {
	switch l {
	case query.Series:
		return m.series.UID()
	case query.Image:
		return m.series.UID() + "\x00" + m.instance.SOP
	}
	return ""
}

// next says that the object at hand is decided, and the search goes on.
type next struct{}

func (next) Error() string { return "query: next" }

// variant matches a study as one of its patients sees it and passes on what
// matches: the study once, or its series, or its instances. The error of found
// ends it.
func (t *scan) variant(row catalog.StudyRow, i int, found func(matched) error) error {
	if t.checkIssuer && row.Patient(i).ID != "" && row.Patient(i).Issuer != t.issuer {
		return nil
	}
	m := matched{study: row, patient: i, data: row.Dataset(i)}
	if t.keys.has&ofArchive != 0 && t.ahead == nil {
		found = t.ifAvailable(found)
	}
	if t.keys.has&ofPatient != 0 {
		if err := t.countPatient(&m); err != nil {
			return err
		}
	}
	omits := func(tag dict.Tag) bool { return row.Omits(i, tag) }
	if t.keys.has&(ofStudy|ofPatient) != 0 && !t.matcher.Match(m.data, t.keys.in(ofStudy|ofPatient, omits)) {
		return nil
	}
	omitted := t.keys.omitted(ofStudy, omits)
	if t.q.Level <= query.Study && len(omitted) == 0 && t.keys.has&(ofSeries|ofListing|ofHeader) == 0 {
		return found(m)
	}
	for x, err := range t.view.Series(row) {
		if err != nil {
			return err
		}
		m.series = &x
		if err := t.series(m, omitted, found); err != nil {
			return err
		}
	}
	return nil
}

// series matches one series of a study.
func (t *scan) series(m matched, omitted []dict.Tag, found func(matched) error) error {
	if t.within && t.found[m.study.UID()][m.series.UID()] == nil {
		return nil
	}
	if t.keys.has&ofSeries != 0 {
		data := m.series.Dataset()
		if zone := m.data.Get(dict.TimezoneOffsetFromUTC); zone != nil && t.q.Timezone {
			data.Put(*zone)
		}
		if !t.matcher.Match(data, t.keys.in(ofSeries, m.series.Omits)) {
			return nil
		}
		omitted = slices.Concat(omitted, t.keys.omitted(ofSeries, m.series.Omits))
	}
	if t.q.Level <= query.Series && len(omitted) == 0 && t.keys.has&(ofListing|ofHeader) == 0 {
		return found(m)
	}
	if t.ahead != nil {
		return t.ahead.add(t, m)
	}
	for f, err := range t.list(&m) {
		if err != nil {
			return err
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
		m.take(f)
		ok, err := t.instance(&m, omitted)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := found(m); err != nil || t.q.Level < query.Image {
			return err
		}
	}
	return nil
}

// list yields the instances of a series that may match: this node's own, and
// what only others have.
func (t *scan) list(m *matched) iter.Seq2[query.Found, error] {
	if groups, here := t.others(m.series); len(groups) > 0 {
		return t.remoteList(m, groups, here)
	}
	return t.ownList(m.study.UID(), m.series.UID())
}

func (t *scan) ownList(study, series string) iter.Seq2[query.Found, error] {
	return func(yield func(query.Found, error) bool) {
		if t.found != nil {
			for _, i := range t.found[study][series] {
				if i.Origin == "" && !yield(query.Found{Instance: i}, nil) {
					return
				}
			}
			return
		}
		for i, err := range t.engine.instances.List(t.ctx, study, series) {
			if !yield(query.Found{Instance: i}, err) {
				return
			}
		}
	}
}

// instance matches one instance: first what needs no header.
func (t *scan) instance(m *matched, omitted []dict.Tag) (bool, error) {
	if t.keys.has&ofListing != 0 && !t.matcher.Match(listing(m.instance), t.keys.in(ofListing, nil)) {
		return false, nil
	}
	if t.keys.has&ofHeader == 0 && len(omitted) == 0 {
		return true, nil
	}
	if err := t.readHeader(m); err != nil {
		if errors.Is(err, errGone) {
			return false, nil
		}
		return false, err
	}
	return t.matcher.Match(m.header.Dataset, func(tag dict.Tag) bool {
		return t.keys.of[tag] == ofHeader || slices.Contains(omitted, tag)
	}), nil
}

// listing returns what is known of an instance without its header.
func listing(i *query.Instance) *dicom.Dataset {
	ds := dicom.NewDataset()
	ds.Set(dict.SOPClassUID, dict.UI, i.Class)
	ds.Set(dict.SOPInstanceUID, dict.UI, i.SOP)
	ds.Set(dict.AvailableTransferSyntaxUID, dict.UI, i.Syntax)
	return ds
}
