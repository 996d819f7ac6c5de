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
	"pelago/dimse/dict"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/archive"
)

// Move implements [scp.Mover].
func (s *session) Move(ctx context.Context, r *scp.RetrieveRequest) (*scp.Retrieval, error) {
	began := time.Now()
	title := strings.TrimSpace(r.Destination)
	to, err := s.destination(title)
	var c chosen
	if err == nil {
		// What goes to another site is read by a node there.
		c, err = s.choose(archive.WithHint(ctx, archive.Hint{Whole: to.Site == ""}), r.Root, r.Identifier)
	}
	if err != nil {
		return nil, s.refused(dimse.Move, r, title, began, err)
	}
	retrieval := s.retrieval(ctx, dimse.Move, r, c, title)
	retrieval.Connect = func(ctx context.Context) (scp.Destination, error) {
		if to.Site != "" {
			return s.face.forward(ctx, to.Site, newOrder(to.Title, r, c.refs, s.face.o.Node))
		}
		sender := scu.NewSender(to.target, kinds(c.refs), 1)
		if err := sender.Connect(ctx); err != nil {
			return nil, err
		}
		return sender, nil
	}
	if to.Site != "" {
		// Nothing is read here: another node does.
		retrieval.Instances = named(c)
	}
	return retrieval, nil
}

// destination is a Move Destination: one that this node calls, or one of another
// site.
type destination struct {
	target scu.Target
	Placed // Site is "" for one of ours
}

// destination resolves a Move Destination to exactly one AE that can be called.
func (s *session) destination(title string) (destination, error) {
	placed, err := s.face.o.Registry.Resolve(title)
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
		return destination{}, dimse.DestinationUnknown()
	}
	if err != nil {
		return destination{}, err
	}
	if placed.Site != s.face.o.Registry.site {
		if s.face.o.Peers == nil {
			return destination{}, dimse.DestinationUnknown()
		}
		return destination{Placed: placed}, nil
	}
	target, err := s.face.Target(placed.AE)
	if err != nil {
		s.face.o.Log.Warn("move destination cannot be called", "destination_ae", title, "error", err)
		return destination{}, dimse.DestinationUnknown()
	}
	return destination{target: target}, nil
}

// named yields instances by their names only, for those whom another node opens.
func named(c chosen) iter.Seq2[scu.Instance, error] {
	return func(yield func(scu.Instance, error) bool) {
		for _, ref := range c.refs {
			if !yield(scu.Instance{Class: ref.Class, UID: ref.SOP, Syntax: ref.Syntax}, nil) {
				return
			}
		}
		c.lost(yield)
	}
}

// Get implements [scp.Getter].
func (s *session) Get(ctx context.Context, r *scp.RetrieveRequest) (*scp.Retrieval, error) {
	began := time.Now()
	c, err := s.choose(archive.WithHint(ctx, archive.Hint{Whole: true}), r.Root, r.Identifier)
	if err != nil {
		return nil, s.refused(dimse.Get, r, "", began, err)
	}
	return s.retrieval(ctx, dimse.Get, r, c, ""), nil
}

// names of the operations in metrics.
var operationNames = map[dimse.Operation]string{dimse.Move: "C-MOVE", dimse.Get: "C-GET"}

// refused accounts for a retrieve that fails before anything is sent.
func (s *session) refused(o dimse.Operation, r *scp.RetrieveRequest, destination string, began time.Time, err error) error {
	status, _ := dimse.StatusOf(o, err)
	s.face.o.Observe(operationNames[o], uint16(status), time.Since(began), 0)
	s.auditRetrieve(o, r, destination, err)
	return err
}

// auditRetrieve records a retrieve that sent nothing, with its keys.
func (s *session) auditRetrieve(o dimse.Operation, r *scp.RetrieveRequest, destination string, err error) {
	e := Event{
		Action: Retrieved, AE: s.caller.Title, Remote: s.remote, Destination: destination,
		Class: r.Root.Class(o), Query: s.encoded(r.Identifier),
	}
	if err != nil {
		e.Failed, e.Why = true, err.Error()
	}
	s.face.o.Audit(e)
}

// retrieval offers references as sub-operations.
func (s *session) retrieval(ctx context.Context, o dimse.Operation, r *scp.RetrieveRequest, c chosen, destination string) *scp.Retrieval {
	began := time.Now()
	var sent atomic.Int64
	refs := c.refs
	here := s.face.ahead(ctx, refs, func(ref archive.Ref) scu.Instance { return s.face.outgoing(ref, &sent) })
	return &scp.Retrieval{
		Total: len(refs) + len(c.away) + c.missing, Missing: c.missing,
		Instances: func(yield func(scu.Instance, error) bool) {
			for in, err := range here {
				if !yield(in, err) {
					return
				}
			}
			c.lost(yield)
		},
		Parallel: 1,
		Finished: func(outcome scp.Outcome) {
			s.face.o.Observe(operationNames[o], uint16(outcome.Status), time.Since(began), sent.Load())
			if len(refs) == 0 {
				s.auditRetrieve(o, r, destination, nil)
			}
			for _, study := range studies(refs) {
				s.face.o.Audit(Event{
					Action: Sent, AE: s.caller.Title, Remote: s.remote, Destination: destination,
					Study: study.uid, Patient: s.face.patient(study.first), Instances: study.instances, Classes: study.classes,
					Failed: outcome.Failed > 0 || outcome.Remaining > 0,
				})
			}
		},
	}
}

// patient is the Patient ID of an instance, for the audit trail; "" if it
// cannot be read any more.
func (f *Face) patient(ref archive.Ref) string {
	header, err := f.o.Archive.Headers(context.Background(), ref)
	if err != nil {
		return ""
	}
	return header.Dataset.String(dict.PatientID)
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
	// On the way it could only end the association, with all that is still to come.
	if err := instance.Header().Convertible(to); err != nil {
		return nil, errors.Join(err, instance.Close())
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
	first     archive.Ref
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
			all = append(all, studyCount{uid: ref.Study, first: ref})
		}
		all[i].instances++
		if !slices.Contains(all[i].classes, ref.Class) {
			all[i].classes = append(all[i].classes, ref.Class)
		}
	}
	return all
}
