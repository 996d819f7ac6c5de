package engine

import (
	"context"
	"errors"
	"iter"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/query"
	"pelago/replication/catalog"
)

const (
	// viewAge is how long one view of the catalogue is used: rows that were
	// replaced meanwhile stay on disk for it.
	viewAge = time.Second
	// checkEvery is how many studies are gone through between looks at the context
	// and the clock.
	checkEvery = 256
)

// stop ends a search early without being an error of its own.
type stop struct{}

func (stop) Error() string { return "query: enough" }

// matches returns the answer's stream.
func (s *search) matches(ctx context.Context) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		skip, left := s.q.Offset, s.q.Limit
		emit := func(build func() (*dicom.Dataset, error)) error {
			if skip > 0 {
				skip--
				return nil
			}
			ds, err := build()
			if err != nil {
				return err
			}
			if !yield(ds, nil) {
				return stop{}
			}
			if left--; left == 0 { // never for no limit, which starts at 0
				return stop{}
			}
			return nil
		}
		err := s.run(ctx, emit)
		if err != nil && !errors.As(err, &stop{}) {
			if ctx.Err() != nil {
				err = fault.New(fault.KindOf(ctx.Err()), "query: %w", ctx.Err())
			}
			yield(nil, err)
		}
	}
}

// emitter takes one match; it calls build only if the match is in the answer.
type emitter func(build func() (*dicom.Dataset, error)) error

// run goes through the studies of the plan, one view of the catalogue after
// the other.
func (s *search) run(ctx context.Context, emit emitter) error {
	t := &scan{search: s, ctx: ctx, emit: emit}
	if s.sops != nil {
		done, err := t.findInstances()
		if err != nil || done {
			return err
		}
	}
	for _, span := range s.plan.Spans {
		from := span.First
		for {
			next, done, err := t.part(from, span.Last)
			if err != nil {
				return err
			}
			if done {
				break
			}
			from = next
		}
	}
	return nil
}

// scan is one search under way.
type scan struct {
	*search
	ctx   context.Context //nolint:containedctx // lives as long as one call of run
	emit  emitter
	view  *catalog.View
	found map[string]map[string][]query.Instance // by study and series, when SOP Instance UIDs are asked for
}

// part goes on from an order in a view of its own until the view is old, and
// returns where the next one goes on.
func (t *scan) part(from, last catalog.Order) (next catalog.Order, done bool, err error) {
	t.view = t.engine.catalog.View()
	defer func() {
		if closing := t.view.Close(); err == nil {
			err = closing
		}
		t.view = nil
	}()
	studies, err := t.open()
	if err != nil {
		return from, false, err
	}
	opened := time.Now()
	for n := 1; ; n++ {
		at, ok, err := studies.SeekGE(from)
		if err != nil {
			return from, false, err
		}
		if !ok || compare(at, last) > 0 {
			return from, true, nil
		}
		row, ok, err := t.view.Study(at)
		if err != nil {
			return from, false, err
		}
		if ok {
			if err := t.study(row); err != nil {
				return from, false, err
			}
		}
		if at == catalog.LastOrder() {
			return from, true, nil
		}
		from = at.Next()
		if n%checkEvery == 0 || t.keys.has&ofHeader != 0 || ok {
			if err := t.ctx.Err(); err != nil {
				return from, false, err
			}
			if time.Since(opened) > viewAge {
				return from, false, nil
			}
		}
	}
}

// open returns the stream of studies to look at.
func (t *scan) open() (stream, error) {
	studies, err := open(t.view, t.plan.Sets)
	if err != nil {
		return nil, err
	}
	var of stream
	if t.found != nil {
		uids := make([]string, 0, len(t.found))
		for uid := range t.found {
			uids = append(uids, uid)
		}
		if of, err = ofUIDs(uids, t.view.StudyOrders); err != nil {
			return nil, err
		}
	}
	switch {
	case studies != nil && of != nil:
		return &both{[]stream{of, studies}}, nil
	case of != nil:
		return of, nil
	case studies != nil:
		return studies, nil
	}
	return t.view.All()
}

// findInstances looks up the SOP Instance UIDs that the query names, and
// reports whether there are none.
func (t *scan) findInstances() (none bool, err error) {
	t.found = map[string]map[string][]query.Instance{}
	for _, sop := range t.sops {
		if err := t.ctx.Err(); err != nil {
			return false, err
		}
		instances, err := t.engine.instances.Find(t.ctx, sop)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return false, err
		}
		for _, i := range instances {
			if t.found[i.Study] == nil {
				t.found[i.Study] = map[string][]query.Instance{}
			}
			t.found[i.Study][i.Series] = append(t.found[i.Study][i.Series], i)
		}
	}
	for _, series := range t.found {
		for _, list := range series {
			sortBySOP(list)
		}
	}
	return len(t.found) == 0, nil
}
