package ae

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/archive"
	"pelago/query"
)

// maxRetrieve bounds the instances of one C-MOVE or C-GET: their references are
// held while it runs.
const maxRetrieve = 4 << 20

// Move implements [scp.Mover].
func (s *session) Move(ctx context.Context, r *scp.RetrieveRequest) (*scp.Retrieval, error) {
	destination, err := s.face.o.Registry.Get(strings.TrimSpace(r.Destination))
	if fault.Is(err, fault.NotFound) {
		return nil, dimse.DestinationUnknown()
	}
	if err != nil {
		return nil, err
	}
	target, err := s.face.Target(destination)
	if err != nil {
		return nil, dimse.DestinationUnknown()
	}
	refs, err := s.choose(ctx, r)
	if err != nil {
		return nil, err
	}
	retrieval := s.retrieval(ctx, "C-MOVE", refs, destination.Title)
	retrieval.Connect = func(ctx context.Context) (scp.Destination, error) {
		sender := scu.NewSender(target, kinds(refs), 1)
		if err := sender.Connect(ctx); err != nil {
			return nil, err
		}
		return sender, nil
	}
	return retrieval, nil
}

// Get implements [scp.Getter].
func (s *session) Get(ctx context.Context, r *scp.RetrieveRequest) (*scp.Retrieval, error) {
	refs, err := s.choose(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.retrieval(ctx, "C-GET", refs, ""), nil
}

// retrieval offers references as sub-operations.
func (s *session) retrieval(ctx context.Context, operation string, refs []archive.Ref, destination string) *scp.Retrieval {
	began := time.Now()
	var sent atomic.Int64
	return &scp.Retrieval{
		Total:     len(refs),
		Instances: s.face.ahead(ctx, refs, func(ref archive.Ref) scu.Instance { return s.face.outgoing(ref, &sent) }),
		Parallel:  1,
		Finished: func(outcome scp.Outcome) {
			s.face.o.Observe(operation, uint16(outcome.Status), time.Since(began), sent.Load())
			for _, study := range studies(refs) {
				s.face.o.Audit(Event{
					Action: Sent, AE: s.caller.Title, Remote: s.remote, Destination: destination,
					Study: study.uid, Instances: study.instances, Classes: study.classes,
					Failed: outcome.Failed > 0 || outcome.Remaining > 0,
				})
			}
		},
	}
}

// outgoing is a stored instance as one to send.
func (f *Face) outgoing(ref archive.Ref, sent *atomic.Int64) scu.Instance {
	return scu.Instance{
		Class: ref.Class, UID: ref.SOP, Syntax: ref.Syntax,
		Open: func(ctx context.Context, syntax string) (io.ReadCloser, error) {
			instance, err := f.o.Archive.Open(ctx, ref)
			if err != nil {
				return nil, err
			}
			sent.Add(ref.Bytes)
			if syntax == ref.Syntax {
				return struct {
					io.Reader
					io.Closer
				}{io.NewSectionReader(instance.Stored(), 0, ref.Bytes), instance}, nil
			}
			return convert(instance, syntax)
		},
	}
}

// convert reads an instance in another uncompressed transfer syntax, on the fly.
func convert(instance archive.Instance, syntax string) (io.ReadCloser, error) {
	to, known := dict.Syntax(syntax)
	if !known {
		return nil, errors.Join(fault.New(fault.Unsupported, "transfer syntax %s is not known", syntax), instance.Close())
	}
	values, err := instance.Values()
	if err != nil {
		return nil, errors.Join(err, instance.Close())
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(instance.Header().Convert(w, values, to)) //nolint:errcheck // always nil
	}()
	return struct {
		io.Reader
		io.Closer
	}{r, closer(func() error {
		err := r.Close()
		<-done
		return errors.Join(err, instance.Close())
	})}, nil
}

type closer func() error

func (c closer) Close() error { return c() }

// Target is how a registered AE is called. fault.NotFound: it does not listen.
func (f *Face) Target(ae AE) (scu.Target, error) {
	addr := ae.address()
	if addr == "" {
		return scu.Target{}, fault.New(fault.NotFound, "AE %s has no address to be called at", ae.Title)
	}
	target := scu.Target{Addr: addr, Called: ae.Title, Calling: f.o.Title, Config: f.o.Config}
	if ae.TLS {
		if f.o.ClientTLS == nil {
			return target, fault.New(fault.Unsupported, "AE %s wants TLS, for which this node has no certificate", ae.Title)
		}
		target.TLS = f.o.ClientTLS
	}
	return target, nil
}

// kinds lists what a destination must take.
func kinds(refs []archive.Ref) []scu.Kind {
	seen := map[scu.Kind]bool{}
	var all []scu.Kind
	for _, ref := range refs {
		k := scu.Kind{Class: ref.Class, Syntax: ref.Syntax}
		if !seen[k] {
			seen[k] = true
			all = append(all, k)
		}
	}
	return all
}

type studyCount struct {
	uid       string
	instances int
	classes   []string
}

func studies(refs []archive.Ref) []studyCount {
	var all []studyCount
	at := map[string]int{}
	for _, ref := range refs {
		i, ok := at[ref.Study]
		if !ok {
			i = len(all)
			at[ref.Study] = i
			all = append(all, studyCount{uid: ref.Study})
		}
		all[i].instances++
		if !slices.Contains(all[i].classes, ref.Class) {
			all[i].classes = append(all[i].classes, ref.Class)
		}
	}
	return all
}

// choose resolves a retrieve identifier (PS3.4 C.4.2.2.1): unique keys down to
// its level, of which the last may be lists.
func (s *session) choose(ctx context.Context, r *scp.RetrieveRequest) ([]archive.Ref, error) {
	level, err := levelOf(r.Root, r.Identifier)
	if err != nil {
		return nil, err
	}
	unique := []dict.Tag{dict.PatientID, dict.StudyInstanceUID, dict.SeriesInstanceUID, dict.SOPInstanceUID}[level]
	if len(uids(r.Identifier, unique)) == 0 {
		return nil, fault.New(fault.Mismatch, "the unique key of level %s is missing", level)
	}
	studies := uids(r.Identifier, dict.StudyInstanceUID)
	if level == query.Patient {
		if studies, err = s.studiesOf(ctx, r.Identifier); err != nil {
			return nil, err
		}
	}
	var refs []archive.Ref
	for _, sel := range selectors(studies, uids(r.Identifier, dict.SeriesInstanceUID), uids(r.Identifier, dict.SOPInstanceUID), level) {
		for ref, err := range s.face.o.Archive.Select(ctx, sel.study, sel.series, sel.instance) {
			if fault.Is(err, fault.NotFound) {
				break
			}
			if err != nil {
				return nil, err
			}
			if len(refs) >= maxRetrieve {
				return nil, fault.New(fault.Full, "more than %d instances in one retrieve", maxRetrieve)
			}
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// uids are the values of a unique key: separated by backslash, or by commas as
// some clients send them.
func uids(identifier *dicom.Dataset, tag dict.Tag) []string {
	var all []string
	for _, value := range identifier.Strings(tag) {
		parts := []string{value}
		if tag != dict.PatientID {
			parts = strings.Split(value, ",")
		}
		for _, part := range parts {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

type selector struct{ study, series, instance string }

// selectors is the product of the keys down to a level; an absent upper key
// stands for any.
func selectors(studies, series, instances []string, level query.Level) []selector {
	orAny := func(list []string) []string {
		if len(list) == 0 {
			return []string{""}
		}
		return list
	}
	if level < query.Series {
		series = nil
	}
	if level < query.Image {
		instances = nil
	}
	if len(studies) == 0 && level <= query.Study {
		return nil
	}
	var all []selector
	for _, st := range orAny(studies) {
		for _, se := range orAny(series) {
			for _, in := range orAny(instances) {
				all = append(all, selector{st, se, in})
			}
		}
	}
	return all
}

// studiesOf finds a patient's studies through the query engine, issuer rules
// included.
func (s *session) studiesOf(ctx context.Context, identifier *dicom.Dataset) ([]string, error) {
	k := dicom.NewDataset()
	k.Set(dict.PatientID, dict.LO, identifier.String(dict.PatientID))
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
	return collect(answer.Matches, dict.StudyInstanceUID)
}

func collect(matches iter.Seq2[*dicom.Dataset, error], tag dict.Tag) ([]string, error) {
	var all []string
	for match, err := range matches {
		if err != nil {
			return nil, err
		}
		all = append(all, match.String(tag))
	}
	return all, nil
}

// Echo asks a registered AE for C-ECHO and returns how long it took.
func (f *Face) Echo(ctx context.Context, title string) (time.Duration, error) {
	ae, err := f.o.Registry.Get(title)
	if err != nil {
		return 0, err
	}
	target, err := f.Target(ae)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	client, err := scu.Dial(ctx, target, scu.ProposeEcho())
	if err != nil {
		return 0, err
	}
	if err := client.Echo(ctx); err != nil {
		return 0, errors.Join(err, client.Abort())
	}
	took := time.Since(began)
	return took, client.Release(ctx)
}
