package engine

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
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
	if s.asks != nil {
		stopped, stop := context.WithCancel(ctx)
		t.ctx = stopped
		defer func() { stop(); s.asks.running.Wait() }()
		if s.q.Level == query.Patient && s.asks.told {
			t.sent = map[catalog.PatientKey]bool{}
		}
	}
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
	ctx  context.Context //nolint:containedctx // lives as long as one call of run
	emit emitter
	view *catalog.View
	// opened is when view was. Windows hold none for longer than it takes to go
	// through a study, for others and the asker may be slow: see renew.
	opened time.Time
	// found are this node's own instances by study and series, when SOP Instance
	// UIDs are asked for. within tells that there are no others: those of other
	// nodes are in it, or their series are named by other keys.
	found  map[string]map[string][]query.Instance
	within bool

	ahead *window // not nil while it is gathered, and nothing is emitted
	at    *window // whose studies are gone through
	// sent are the patients in the answer, where it would take asking others again
	// to see that an earlier study has brought them in.
	sent map[catalog.PatientKey]bool
}

// part goes on from an order in a view of its own until the view is old, and
// returns where the next one goes on.
func (t *scan) part(from, last catalog.Order) (next catalog.Order, done bool, err error) {
	t.view, t.opened = t.engine.catalog.View(), time.Now()
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
	if t.asks != nil && t.asks.told {
		return t.windows(studies, from, last)
	}
	opened := t.opened
	var row catalog.StudyRow
	for n := 1; ; n++ {
		at, visible, ok, err := t.next(studies, from, last, &row)
		if err != nil || !ok {
			return from, true, err
		}
		if visible {
			if err := t.study(row); err != nil {
				return from, false, err
			}
		}
		if at == catalog.LastOrder() {
			return from, true, nil
		}
		from = at.Next()
		if n%checkEvery == 0 || t.keys.has&ofHeader != 0 || visible {
			if err := t.ctx.Err(); err != nil {
				return from, false, err
			}
			if time.Since(opened) > viewAge {
				return from, false, nil
			}
		}
	}
}

// next returns where the next study stands, with its row if queries may see it;
// not ok when there is none.
func (t *scan) next(studies stream, from, last catalog.Order, row *catalog.StudyRow) (at catalog.Order, visible, ok bool, err error) {
	at, ok, err = studies.SeekGE(from)
	if err != nil || !ok || compare(at, last) > 0 {
		return from, false, false, err
	}
	*row, visible, err = t.view.Study(at)
	return at, visible, err == nil, err
}

// windows goes on as part does, where others may have to be asked: about many
// studies at once, and while those of one window are matched already about those
// of the next. studies is of the first view: it is not read any more once that is
// old, and matching may have closed it.
func (t *scan) windows(studies stream, from, last catalog.Order) (next catalog.Order, done bool, err error) {
	opened := t.opened
	var waiting *window
	defer func() {
		t.at = nil
		if waiting != nil {
			waiting.cancel()
		}
	}()
	for size := firstWindow; !done; size = min(size*growWindow, maxWindow) {
		var rows []catalog.StudyRow
		if rows, from, done, err = t.rows(studies, from, last, size); err != nil {
			return from, false, err
		}
		w, err := t.gather(rows)
		if err != nil {
			return from, false, err
		}
		if err := t.match(waiting); err != nil {
			w.cancel()
			return from, false, err
		}
		waiting = w
		if size == firstWindow || t.opened != opened || time.Since(opened) > viewAge {
			if err := t.match(waiting); err != nil {
				return from, false, err
			}
			waiting = nil
			if t.opened != opened || time.Since(opened) > viewAge {
				return from, done, nil
			}
		}
	}
	return from, true, t.match(waiting)
}

// rows reads up to so many studies.
func (t *scan) rows(studies stream, from, last catalog.Order, size int) (rows []catalog.StudyRow, next catalog.Order, done bool, err error) {
	for n := 1; len(rows) < size; n++ {
		if n%checkEvery == 0 {
			if err := t.ctx.Err(); err != nil {
				return nil, from, false, err
			}
		}
		var row catalog.StudyRow
		at, visible, ok, err := t.next(studies, from, last, &row)
		if err != nil || !ok {
			return rows, from, true, err
		}
		if visible {
			rows = append(rows, row)
		}
		if at == catalog.LastOrder() {
			return rows, from, true, nil
		}
		from = at.Next()
	}
	return rows, from, false, nil
}

// match goes through the studies of a window; nil has none.
func (t *scan) match(w *window) error {
	if w == nil {
		return nil
	}
	defer w.cancel()
	t.at = w
	for _, row := range w.rows {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if time.Since(t.opened) > viewAge {
			if err := t.renew(); err != nil {
				return err
			}
		}
		if err := t.study(row); err != nil {
			return err
		}
	}
	return nil
}

// renew goes on in another view, so that a window whose nodes are slow does not
// hold an old one: a catalogue that is replaced waits until there are none.
func (t *scan) renew() error {
	err := t.view.Close()
	t.view, t.opened = t.engine.catalog.View(), time.Now()
	return err
}

// open returns the stream of studies to look at.
func (t *scan) open() (stream, error) {
	studies, err := open(t.view, t.plan.Sets)
	if err != nil {
		return nil, err
	}
	var of stream
	if t.within {
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
// reports whether there are none. Others are asked only if nothing else says in
// which series they are, and if they are not all here.
func (t *scan) findInstances() (none bool, err error) {
	t.found = map[string]map[string][]query.Instance{}
	var missing []string
	for _, sop := range t.sops {
		if err := t.ctx.Err(); err != nil {
			return false, err
		}
		instances, err := t.engine.instances.Find(t.ctx, sop)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return false, err
		}
		if len(instances) == 0 {
			missing = append(missing, sop)
		}
		t.note(instances)
	}
	if t.within = t.asks == nil || !namesSeries(t.matcher.Keys()); !t.within {
		return false, nil
	}
	if t.asks != nil && len(missing) > 0 {
		instances, err := t.locate(missing)
		if err != nil {
			return false, err
		}
		t.note(instances)
	}
	return len(t.found) == 0, nil
}

// note adds to the instances that were found, ascending.
func (t *scan) note(instances []query.Instance) {
	for _, i := range instances {
		if t.found[i.Study] == nil {
			t.found[i.Study] = map[string][]query.Instance{}
		}
		list := append(t.found[i.Study][i.Series], i)
		slices.SortFunc(list, func(a, b query.Instance) int { return cmp.Compare(a.SOP, b.SOP) })
		t.found[i.Study][i.Series] = list
	}
}
