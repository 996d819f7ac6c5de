package web

import (
	"net/http"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// The attributes of a store response (PS3.18 table 10.5.3-2).
const (
	tagReferencedClass    = dict.Tag(0x00081150)
	tagReferencedInstance = dict.Tag(0x00081155)
	tagWarningReason      = dict.Tag(0x00081196)
	tagFailureReason      = dict.Tag(0x00081197)
	tagFailedSequence     = dict.Tag(0x00081198)
	tagReferencedSequence = dict.Tag(0x00081199)
)

// Warning Reasons (0008,1196).
const (
	warningQuarantined = 0xB000 // kept beside what is known under its UID, or beside its deletion
	warningMismatch    = 0xB007 // kept, although the data set is not what its class says
)

// warningOf returns the Warning Reason of a stored instance, 0 for none.
func warningOf(s *archive.Stored) uint64 {
	switch {
	case s.Outcome == archive.Quarantined:
		return warningQuarantined
	case len(s.Warnings) > 0:
		return warningMismatch
	}
	return 0
}

// respond sends what became of each instance.
func (s *storing) respond() error {
	root := s.root()
	ds := dicom.NewDataset()
	if study := s.study(); study != "" {
		ds.Set(tagRetrieveURL, dict.UR, instanceURL(root, study, "", ""))
	}
	if len(s.failed) > 0 {
		items := make([]*dicom.Dataset, len(s.failed))
		for i, f := range s.failed {
			item := dicom.NewDataset()
			if f.class != "" {
				item.Set(tagReferencedClass, dict.UI, f.class)
			}
			if f.instance != "" {
				item.Set(tagReferencedInstance, dict.UI, f.instance)
			}
			item.SetUint(tagFailureReason, dict.US, uint64(failureTable[f.kind]))
			items[i] = bareItem(item)
		}
		ds.SetSequence(tagFailedSequence, items...)
	}
	if len(s.stored) > 0 {
		items := make([]*dicom.Dataset, len(s.stored))
		for i := range s.stored {
			st := &s.stored[i]
			item := dicom.NewDataset()
			item.Set(tagReferencedClass, dict.UI, st.Class)
			item.Set(tagReferencedInstance, dict.UI, st.SOP)
			item.Set(tagRetrieveURL, dict.UR, instanceURL(root, st.Study, st.Series, st.SOP))
			if w := warningOf(st); w != 0 {
				item.SetUint(tagWarningReason, dict.US, w)
			}
			items[i] = bareItem(item)
		}
		ds.SetSequence(tagReferencedSequence, items...)
	}
	s.explain()
	status := s.status()
	if status == http.StatusServiceUnavailable {
		s.w.Header().Set("Retry-After", retryAfter)
	}
	if len(s.stored) > 0 && s.options.Node != "" {
		s.w.Header().Set(writtenHeader, s.options.Node)
	}
	return s.sendDocument(s.form, status, ds)
}

// maxReasons bounds the words about instances that were not stored.
const maxReasons = 8

// explain says in words why instances were not stored: a Failure Reason is the
// same for everything that a data set can lack.
func (s *storing) explain() {
	var reasons []string
	count := map[string]int{}
	for _, f := range s.failed {
		if count[f.why]++; count[f.why] == 1 && len(reasons) < maxReasons {
			reasons = append(reasons, f.why)
		}
	}
	for _, why := range reasons {
		if len(s.failed) == 1 {
			s.warn("not stored: %s", why)
		} else {
			s.warn("%d not stored: %s", count[why], why)
		}
	}
}

// bareItem drops (0008,0005), which an item inherits.
func bareItem(ds *dicom.Dataset) *dicom.Dataset {
	ds.Remove(0x00080005)
	return ds
}

// study returns the study that all instances went to, "" if there are several.
func (s *storing) study() string {
	study := s.event.Study
	for i := range s.stored {
		switch {
		case study == "":
			study = s.stored[i].Study
		case study != s.stored[i].Study:
			return ""
		}
	}
	return study
}
