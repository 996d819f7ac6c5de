package engine

import (
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/replication/catalog"
)

// availability returns how what stands for a match at the query's level can be
// had now: asked of the archive, and of what is known of the nodes, for each
// match, and stored nowhere.
func (t *scan) availability(m *matched) (query.Availability, error) {
	switch {
	case t.q.Level == query.Image && m.instance.Origin != "":
		return farther(m.reached, t.peer(m.instance.Origin)), nil
	case t.q.Level == query.Image:
		return t.engine.instances.Availability(t.ctx, m.study.UID(), m.series.UID(), m.instance.Number), nil
	case t.everything() == query.Online:
		return query.Online, nil // without a look at what is below
	case t.q.Level == query.Series:
		return t.ofSeries(m.study.UID(), m.series), nil
	case t.q.Level == query.Study:
		return t.ofStudy(m.study)
	}
	least := query.Online // a patient may have no study in this view
	var failure error
	err := t.eachStudy(m, func(row catalog.StudyRow) bool {
		var a query.Availability
		a, failure = t.ofStudy(row)
		least = farther(least, a)
		return failure == nil && least != query.Unavailable
	})
	if err == nil {
		err = failure
	}
	return least, err
}

// farther returns what is harder to have.
func farther(a, b query.Availability) query.Availability {
	if distance(a) < distance(b) {
		return b
	}
	return a
}

// everything returns the least of all that is here and elsewhere.
func (t *scan) everything() query.Availability {
	return farther(t.engine.instances.Availability(t.ctx, "", "", 0), t.peer(""))
}

// peer returns how what a node holds can be had, "" for the least of all nodes.
func (t *scan) peer(node string) query.Availability {
	if t.engine.peers == nil {
		return query.Online
	}
	return t.engine.peers.Availability(node)
}

func (t *scan) ofStudy(row catalog.StudyRow) (query.Availability, error) {
	if t.engine.peers == nil {
		return t.engine.instances.Availability(t.ctx, row.UID(), "", 0), nil
	}
	least := query.Online
	for x, err := range t.view.Series(row) {
		if err != nil {
			return least, err
		}
		if least = farther(least, t.ofSeries(row.UID(), &x)); least == query.Unavailable {
			break
		}
	}
	return least, nil
}

// ofSeries returns the best that anybody who holds a series offers.
func (t *scan) ofSeries(study string, x *catalog.SeriesRow) query.Availability {
	if t.engine.peers == nil {
		return t.engine.instances.Availability(t.ctx, study, x.UID(), 0)
	}
	best := query.Unavailable
	for _, h := range x.Holders() {
		var a query.Availability
		if h.Node == t.engine.node {
			a = t.engine.instances.Availability(t.ctx, study, x.UID(), 0)
		} else {
			a = t.engine.peers.Availability(h.Node)
		}
		if distance(a) < distance(best) {
			best = a
		}
	}
	return best
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
