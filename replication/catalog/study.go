package catalog

import (
	"context"
	"iter"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
)

// Study is a study record.
type Study struct {
	UID         string
	Attributes  *dicom.Dataset // patient and study attributes, computed ones included
	Patients    []PatientKey   // more than one is a conflict shown to the operator
	Series      uint32
	Instances   uint64
	Approximate bool // origins differ in what they hold: counts are the largest
	Bytes       uint64
	Modalities  []string
	Classes     []string
	Sites       []string
	Arrived     int64 // Unix microseconds
}

// Series is a series record.
type Series struct {
	Study, UID  string
	Attributes  *dicom.Dataset
	Instances   uint64
	Approximate bool
	Bytes       uint64
	Classes     []string
	Sites       []string
	Reserved    bool
	Arrived     int64
}

// Study returns a study record; fault.NotFound when absent, deleted, or of
// Non-Patient Objects only.
func (c *Catalog) Study(uid string) (*Study, error) {
	s, err := c.visibleStudy(uid)
	if err != nil {
		return nil, err
	}
	return &Study{
		UID: uid, Attributes: StudyRow{s, c.utf8}.Dataset(0), Patients: s.patientKeys(), Series: s.series, Instances: s.instances,
		Approximate: s.approx, Bytes: s.bytes, Modalities: s.modalities, Classes: s.classes, Sites: s.sites, Arrived: s.arrived,
	}, nil
}

// PatientsOf returns a study's patients alone: what the audit of each request asks
// for, without the attributes, which cost several times as much. fault.NotFound
// as Study returns it.
func (c *Catalog) PatientsOf(uid string) ([]PatientKey, error) {
	s, err := c.visibleStudy(uid)
	if err != nil {
		return nil, err
	}
	return s.patientKeys(), nil
}

// visibleStudy reads a study that queries may see.
func (c *Catalog) visibleStudy(uid string) (*study, error) {
	c.readers.enter()
	defer c.readers.leave()
	snapshot := c.db.NewSnapshot()
	defer snapshot.Close()
	s, _, err := findStudy(snapshot, uid)
	if err != nil {
		return nil, err
	}
	if s == nil || !s.visible() {
		return nil, fault.New(fault.NotFound, "catalog: no such study")
	}
	return s, nil
}

func (s *study) patientKeys() []PatientKey {
	keys := make([]PatientKey, len(s.patients))
	for i := range s.patients {
		keys[i] = s.patients[i].key()
	}
	return keys
}

// Series yields a study's series in ascending UID order, reserved ones
// included; nothing that is deleted or that no origin holds.
func (c *Catalog) Series(ctx context.Context, study string) iter.Seq2[*Series, error] {
	return func(yield func(*Series, error) bool) {
		c.readers.enter()
		defer c.readers.leave()
		snapshot := c.db.NewSnapshot()
		defer snapshot.Close()
		s, _, err := findStudy(snapshot, study)
		if err != nil {
			yield(nil, err)
			return
		}
		if s == nil {
			return
		}
		for x, err := range allSeries(snapshot, s, c) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if x.deleted || !x.held() {
				continue
			}
			n := x.counts()
			if !yield(&Series{
				Study: study, UID: x.uid, Attributes: SeriesRow{x, c.utf8}.Dataset(), Instances: n.instances, Approximate: n.approx,
				Bytes: n.bytes, Classes: n.classes, Sites: n.sites, Reserved: x.effective().reserved, Arrived: n.arrived,
			}, nil) {
				return
			}
		}
	}
}
