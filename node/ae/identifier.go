package ae

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
	"pelago/node/archive"
	"pelago/query"
)

// Limits of one retrieve: its references are held while it runs.
const (
	maxRetrieve  = 1 << 18 // instances
	maxSelectors = 1 << 17 // combinations of listed keys
)

// levelOf reads (0008,0052) and holds it against the information model; a
// missing or unknown level is A900.
func levelOf(root dimse.Root, identifier *dicom.Dataset) (query.Level, error) {
	levels := map[string]query.Level{
		"PATIENT": query.Patient, "STUDY": query.Study, "SERIES": query.Series, "IMAGE": query.Image,
	}
	level, ok := levels[identifier.String(dict.QueryRetrieveLevel)]
	switch {
	case !ok:
		return 0, fault.New(fault.Mismatch, "missing or unknown query/retrieve level")
	case root == dimse.StudyRoot && level == query.Patient,
		root == dimse.PatientStudyOnly && level > query.Study:
		return 0, fault.New(fault.Mismatch, "level %s is not of this information model", level)
	}
	return level, nil
}

// choose resolves a retrieve identifier (PS3.4 C.4.2.2.1): the unique key of its
// level, and unique keys above it, all of which may be lists of UIDs; missing
// ones above it are no error, for UIDs are unique. An instance is sent once,
// however often it is named.
func (s *session) choose(ctx context.Context, root dimse.Root, identifier *dicom.Dataset) (chosen, error) {
	level, err := levelOf(root, identifier)
	if err != nil {
		return chosen{}, err
	}
	studies := uids(identifier, dict.StudyInstanceUID)
	series := uids(identifier, dict.SeriesInstanceUID)
	instances := uids(identifier, dict.SOPInstanceUID)
	switch level {
	case query.Patient:
		if studies, err = s.studiesOf(ctx, identifier); err != nil || len(studies) == 0 {
			return chosen{}, err
		}
		series, instances = nil, nil
	case query.Study:
		series, instances = nil, nil
	case query.Series:
		instances = nil
	}
	unique := map[query.Level][]string{query.Study: studies, query.Series: series, query.Image: instances}
	if level > query.Patient && len(unique[level]) == 0 {
		return chosen{}, fault.New(fault.Mismatch, "the unique key of level %s is missing", level)
	}
	if len(instances) > 1 && (len(studies) == 0 || len(series) == 0) {
		hint := archive.HintOf(ctx)
		hint.Named = instances
		ctx = archive.WithHint(ctx, hint)
	}
	c := chosen{seen: map[instanceName]bool{}, away: map[string]error{}}
	for sel, err := range selectors(studies, series, instances) {
		before := len(c.refs)
		if err == nil {
			err = c.add(s.face.o.Archive.Select(ctx, sel.study, sel.series, sel.instance))
		}
		archive.Arrange(c.refs[before:]) // what was named one by one stays in the order of its names
		if err != nil {
			return chosen{}, err
		}
	}
	for _, ref := range c.refs { // named twice, and had by one of the names
		delete(c.away, ref.SOP)
	}
	return c, nil
}

// instanceName tells stored instances apart.
type instanceName struct {
	origin string
	number uint64
}

// chosen collects what a retrieve is to send.
type chosen struct {
	refs    []archive.Ref
	away    map[string]error // by SOP Instance UID: asked for, and held where nobody answers
	missing int              // more of them, of which only the number is known
	seen    map[instanceName]bool
}

// lost yields what is known not to be had.
func (c chosen) lost(yield func(scu.Instance, error) bool) {
	for _, sop := range slices.Sorted(maps.Keys(c.away)) {
		if !yield(scu.Instance{UID: sop}, c.away[sop]) {
			return
		}
	}
}

// add takes in a selection.
func (c *chosen) add(refs iter.Seq2[archive.Ref, error]) error {
	for ref, err := range refs {
		var missing *archive.Missing
		switch {
		case errors.As(err, &missing) && missing.SOP != "":
			c.away[missing.SOP] = err
			continue
		case errors.As(err, &missing):
			if c.missing += min(missing.Instances, maxRetrieve); c.missing > maxRetrieve { // as others claim
				return fault.New(fault.Full, "more than %d instances in one retrieve", maxRetrieve)
			}
			continue
		case fault.Is(err, fault.NotFound):
			return nil
		case err != nil:
			return err
		}
		name := instanceName{ref.Origin, ref.Number}
		if c.seen[name] {
			continue
		}
		if len(c.refs) >= maxRetrieve {
			return fault.New(fault.Full, "more than %d instances in one retrieve", maxRetrieve)
		}
		c.seen[name] = true
		c.refs = append(c.refs, ref)
	}
	return nil
}

// uids are the values of a unique key: separated by backslash, or by commas as
// some clients send them.
func uids(identifier *dicom.Dataset, tag dict.Tag) []string {
	var all []string
	for _, value := range identifier.Strings(tag) {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.Trim(part, " \x00"); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

type selector struct{ study, series, instance string }

// selectors is the product of the keys; an absent one stands for any. More than
// maxSelectors are an error.
func selectors(studies, series, instances []string) iter.Seq2[selector, error] {
	orAny := func(list []string) []string {
		if len(list) == 0 {
			return []string{""}
		}
		return list
	}
	studies, series, instances = orAny(studies), orAny(series), orAny(instances)
	return func(yield func(selector, error) bool) {
		if len(studies) > maxSelectors || len(series) > maxSelectors || len(instances) > maxSelectors ||
			len(studies)*len(series) > maxSelectors || len(studies)*len(series)*len(instances) > maxSelectors {
			yield(selector{}, fault.New(fault.Full, "more than %d combinations of keys in one retrieve", maxSelectors))
			return
		}
		for _, st := range studies {
			for _, se := range series {
				for _, in := range instances {
					if !yield(selector{st, se, in}, nil) {
						return
					}
				}
			}
		}
	}
}

// studiesOf finds a patient's studies through the query engine, issuer rules
// included. A Patient ID is one value (PS3.4 C.4.2.2.1), and what would be a
// pattern in a query stands for itself here: nobody retrieves all patients by
// an asterisk.
func (s *session) studiesOf(ctx context.Context, identifier *dicom.Dataset) ([]string, error) {
	id := identifier.String(dict.PatientID)
	if id == "" {
		return nil, fault.New(fault.Mismatch, "the unique key of level PATIENT is missing")
	}
	if strings.ContainsAny(id, "*?") {
		return nil, fault.New(fault.Mismatch, "a Patient ID with wild cards names no patient to be retrieved")
	}
	k := dicom.NewDataset()
	k.Set(dict.PatientID, dict.LO, id)
	if issuer := identifier.String(dict.IssuerOfPatientID); issuer != "" {
		k.Set(dict.IssuerOfPatientID, dict.LO, issuer)
	}
	k.Set(dict.StudyInstanceUID, dict.UI)
	answer, err := s.face.o.Engine.Find(ctx, query.Query{
		Level: query.Study, Keys: k, Relational: true, Issuer: s.caller.Issuer,
	})
	if err != nil {
		return nil, err
	}
	var all []string
	for match, err := range answer.Matches {
		if err != nil {
			return nil, err
		}
		all = append(all, match.String(dict.StudyInstanceUID))
	}
	return all, nil
}
