package ae

import (
	"context"
	"iter"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scp"
	"pelago/query"
)

// Find implements [scp.Finder].
func (s *session) Find(ctx context.Context, r *scp.FindRequest) (*scp.Matches, error) {
	began := time.Now()
	answer, level, err := s.search(ctx, r)
	s.auditQuery(r, err)
	if err != nil {
		status, _ := dimse.StatusOf(dimse.Find, err)
		s.face.o.Observe("C-FIND", uint16(status), time.Since(began), 0)
		return nil, err
	}
	return &scp.Matches{
		Datasets: s.identifiers(ctx, answer, level, r.Identifier.Strings(dict.SpecificCharacterSet), began),
		Partial:  answer.Partial,
	}, nil
}

func (s *session) search(ctx context.Context, r *scp.FindRequest) (*query.Answer, query.Level, error) {
	level, err := levelOf(r.Root, r.Identifier)
	if err != nil {
		return nil, level, err
	}
	answer, err := s.face.o.Engine.Find(ctx, query.Query{
		Level: level, Keys: keys(r.Identifier), Issuer: s.caller.Issuer,
		Return:     []dict.Tag{dict.InstanceAvailability},
		Relational: r.Options.Relational, Fuzzy: r.Options.Fuzzy,
		CombinedDateTime: r.Options.CombinedDateTime, Timezone: r.Options.Timezone,
	})
	return answer, level, err
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
// (PS3.4 C.4.1.1.3.2), in the asker's character set where every value fits. An
// owner that did not answer makes the query fail only where nothing matched
// (DESIGN §9): otherwise the responses say that they are partial.
func (s *session) identifiers(ctx context.Context, answer *query.Answer, level query.Level, terms []string, began time.Time) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		var failure error
		defer func() {
			if failure == nil {
				failure = context.Cause(ctx)
			}
			status, _ := dimse.StatusOf(dimse.Find, failure)
			s.face.o.Observe("C-FIND", uint16(status), time.Since(began), 0)
		}()
		matched := false
		for match, err := range oneBehind(answer) {
			if err != nil {
				failure = err
				yield(nil, err)
				return
			}
			matched = true
			match.Set(dict.QueryRetrieveLevel, dict.CS, level.String())
			match.Set(dict.RetrieveAETitle, dict.AE, s.face.o.Title)
			match, _ = match.Recode(terms)
			if !yield(match, nil) {
				return
			}
		}
		if answer.Silent == nil || matched {
			return
		}
		if silent := answer.Silent(); len(silent) > 0 {
			failure = fault.New(fault.Unavailable, "these sites do not answer: %s", strings.Join(silent, ", "))
			yield(nil, failure)
		}
	}
}

// oneBehind yields the matches of an answer. Where other sites are asked each one
// waits for the next, so that who was silent is known before the last is sent.
func oneBehind(answer *query.Answer) iter.Seq2[*dicom.Dataset, error] {
	if answer.Silent == nil {
		return answer.Matches
	}
	return func(yield func(*dicom.Dataset, error) bool) {
		var held *dicom.Dataset
		for match, err := range answer.Matches {
			if held != nil && !yield(held, nil) {
				return
			}
			if held = match; err != nil {
				yield(nil, err)
				return
			}
		}
		if held != nil {
			yield(held, nil)
		}
	}
}

// auditQuery records a query with its keys.
func (s *session) auditQuery(r *scp.FindRequest, err error) {
	e := Event{
		Action: Queried, AE: s.caller.Title, Remote: s.remote,
		Class: r.Root.Class(dimse.Find), Query: s.encoded(r.Identifier),
	}
	if err != nil {
		e.Failed, e.Why = true, err.Error()
	}
	s.face.o.Audit(e)
}

// encoded is an identifier as the audit trail keeps it.
func (s *session) encoded(identifier *dicom.Dataset) []byte {
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	encoded, err := identifier.Encode(nil, explicit)
	if err != nil {
		s.face.o.Log.Warn("identifier does not encode for the audit trail", "calling_ae", s.caller.Title, "error", err)
	}
	return encoded
}
