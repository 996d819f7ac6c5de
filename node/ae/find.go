package ae

import (
	"context"
	"iter"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scp"
	"pelago/query"
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

// Find implements [scp.Finder].
func (s *session) Find(ctx context.Context, r *scp.FindRequest) (*scp.Matches, error) {
	began := time.Now()
	level, err := levelOf(r.Root, r.Identifier)
	if err != nil {
		return nil, err
	}
	s.auditQuery(r)
	answer, err := s.face.o.Engine.Find(ctx, query.Query{
		Level: level, Keys: keys(r.Identifier), Issuer: s.caller.Issuer,
		Relational: r.Options.Relational, Fuzzy: r.Options.Fuzzy,
		CombinedDateTime: r.Options.CombinedDateTime, Timezone: r.Options.Timezone,
	})
	if err != nil {
		return nil, err
	}
	terms := r.Identifier.Strings(dict.SpecificCharacterSet)
	return &scp.Matches{
		Datasets: s.identifiers(answer, level, terms, began),
		Partial:  len(answer.Ignored) > 0 || len(answer.Silent) > 0,
	}, nil
}

// keys are an identifier's attributes less those that are about the query.
func keys(identifier *dicom.Dataset) *dicom.Dataset {
	k := *identifier
	k.Elements = nil
	for _, e := range identifier.Elements {
		switch e.Tag {
		case dict.QueryRetrieveLevel, dict.RetrieveAETitle, dict.InstanceAvailability, dict.SpecificCharacterSet:
			continue
		}
		if !e.Tag.IsGroupLength() {
			k.Elements = append(k.Elements, e)
		}
	}
	return &k
}

// identifiers dresses the engine's matches as C-FIND identifiers
// (PS3.4 C.4.1.1.3.2), in the asker's character set where every value fits.
func (s *session) identifiers(answer *query.Answer, level query.Level, terms []string, began time.Time) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		var failure error
		defer func() {
			status, _ := dimse.StatusOf(dimse.Find, failure)
			s.face.o.Observe("C-FIND", uint16(status), time.Since(began), 0)
		}()
		for match, err := range answer.Matches {
			if err != nil {
				failure = err
				yield(nil, err)
				return
			}
			match.Set(dict.QueryRetrieveLevel, dict.CS, level.String())
			match.Set(dict.RetrieveAETitle, dict.AE, s.face.o.Title)
			if !match.Has(dict.InstanceAvailability) {
				match.Set(dict.InstanceAvailability, dict.CS, "ONLINE")
			}
			match, _ = match.Recode(terms)
			if !yield(match, nil) {
				return
			}
		}
		if len(answer.Silent) > 0 {
			failure = fault.New(fault.Unavailable, "%d sites did not answer", len(answer.Silent))
			yield(nil, failure)
		}
	}
}

// auditQuery records a query with its keys.
func (s *session) auditQuery(r *scp.FindRequest) {
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	encoded, err := r.Identifier.Encode(nil, explicit)
	if err != nil {
		s.face.o.Log.Warn("query does not encode for the audit trail", "calling_ae", s.caller.Title, "error", err)
	}
	s.face.o.Audit(Event{
		Action: Queried, AE: s.caller.Title, Remote: s.remote,
		Class: r.Root.Class(dimse.Find), Query: encoded, Failed: err != nil,
	})
}
