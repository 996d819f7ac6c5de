package archive

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// ErrDeleted is in the tree of the error about an instance that a tombstone
// covers.
var ErrDeleted = errors.New("deleted")

// Delete commits a tombstone for a study, or with series and instance for less.
// Everything under it disappears from queries and retrieves at once and can be
// restored until the delete grace has passed. It need not be here: what the
// catalogue knows can be deleted at every node.
func (a *Archive) Delete(ctx context.Context, study, series, instance, by string) error {
	known, err := a.isKnown(ctx, study, series, instance)
	if err != nil {
		return err
	}
	if !known {
		return fault.New(fault.NotFound, "no such study, series or instance")
	}
	return a.changeTombstone(ctx, &catalog.TombstoneFact{
		Study: study, Series: series, Instance: instance, Tick: time.Now().Unix(), By: by,
	}, study, series)
}

// isKnown reports whether there is anything to delete: here, or, as far as the
// catalogue can tell, at another node.
func (a *Archive) isKnown(ctx context.Context, study, series, instance string) (known bool, err error) {
	if study == "" {
		return false, nil
	}
	for _, err := range a.Select(ctx, study, series, instance) {
		if err == nil {
			return true, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return false, err
		}
	}
	if _, deleted := a.catalog.Deleted(study, series, instance); deleted {
		return false, nil
	}
	view := a.catalog.View()
	defer func() {
		if closing := view.Close(); err == nil {
			err = closing
		}
	}()
	holders, err := view.Holders(study, series)
	for _, h := range holders {
		known = known || h.Node != a.o.Node
	}
	return known, err
}

// Restore takes a tombstone back within the delete grace.
func (a *Archive) Restore(ctx context.Context, study, series, instance, by string) error {
	tombstone, ok := a.catalog.Deleted(study, series, instance)
	if !ok || tombstone.Study != study || tombstone.Series != series || tombstone.Instance != instance {
		return fault.New(fault.NotFound, "no tombstone for just that object")
	}
	now := time.Now()
	if late, err := a.late(tombstone, now); err != nil {
		return err
	} else if late {
		return fault.New(fault.NotFound, "deleted more than %s ago", a.o.Grace)
	}
	return a.changeTombstone(ctx, &catalog.RestoreFact{
		Study: study, Series: series, Instance: instance, Tick: now.Unix(), By: by,
	}, study, series)
}

// late reports whether a tombstone is past the grace, by the network's time once that has
// begun.
func (a *Archive) late(of *catalog.TombstoneFact, now time.Time) (bool, error) {
	clock, err := a.catalog.Clock()
	if err != nil {
		return false, err
	}
	if clock.Seconds == 0 {
		return now.Sub(time.Unix(of.Tick, 0)) > a.o.Grace, nil
	}
	stones, err := a.catalog.Covering(of.Study, of.Series, of.Instance)
	for _, stone := range stones {
		if stone.Series != of.Series || stone.Instance != of.Instance {
			continue
		}
		_, aged, err := a.catalog.Age(stone)
		return aged || stone.Purged != 0, err
	}
	return false, err
}

// changeTombstone commits a tombstone or takes one back, and has the facts of
// the series under it made anew: their counts are what a retrieve would send.
// That they must be is durable first.
func (a *Archive) changeTombstone(ctx context.Context, command catalog.Command, study, series string) error {
	changed, err := a.seriesOf(study, series)
	if err != nil {
		return err
	}
	a.deciding.begin(changed)
	if err := a.noteAgain(changed); err != nil {
		a.deciding.end(changed)
		return err
	}
	before := a.catalog.TombstonesChanged()
	results, err := a.o.Decide.Decide(ctx, nil, command)
	if err != nil && len(changed) > 0 {
		select { // it may be taken yet
		case a.undecided <- decision{before, changed}:
			return errors.Join(append(results, err)...)
		default: // one is waited for
		}
	}
	a.deciding.end(changed)
	if err := errors.Join(append(results, err)...); err != nil {
		return err
	}
	return a.again(ctx, changed)
}

// noteAgain makes durable that the facts of series must be made anew.
func (a *Archive) noteAgain(changed []seriesName) error {
	batch := a.store.NewBatch()
	defer batch.Close()
	for _, name := range changed {
		if err := batch.Set(keyAgain(name), nil, nil); err != nil {
			return err
		}
	}
	return fmtStore(batch.Commit(pebble.Sync))
}

// decision is one whose outcome nobody was told.
type decision struct {
	before  uint64 // Catalog.TombstonesChanged before it was proposed
	changed []seriesName
}

// deciding are the series whose rowAgain rows stand for what is not decided yet: their
// facts were not made anew for it, whoever makes them anew meanwhile.
type deciding struct {
	mu sync.Mutex // held while such rows are dropped
	of map[seriesName]int
}

// begin comes before the rows are written.
func (d *deciding) begin(all []seriesName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[seriesName]int{}
	}
	for _, name := range all {
		d.of[name]++
	}
}

func (d *deciding) end(all []seriesName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range all {
		if d.of[name]--; d.of[name] == 0 {
			delete(d.of, name)
		}
	}
}

func (d *deciding) has(name seriesName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of[name] > 0
}

// seriesOf lists the series of a study that canonical instances are in, or just
// the one.
func (a *Archive) seriesOf(study, series string) ([]seriesName, error) {
	if series != "" {
		return []seriesName{{study, series}}, nil
	}
	var all []seriesName
	prefix := keySeries(study, "", "")
	it, err := a.store.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmtStore(err)
	}
	defer it.Close()
	for ok := it.First(); ok; {
		uids, _, fine := splitUIDs(it.Key()[1:], 3)
		if !fine {
			return nil, errSeriesRow()
		}
		all = append(all, seriesName{study, uids[1]})
		ok = it.SeekGE(after(keySeries(study, uids[1], "")))
	}
	return all, fmtStore(it.Error())
}

func errSeriesRow() error {
	return fault.New(fault.Corrupt, "store: a series row that does not parse")
}

// again has the facts of series made anew, whose rowAgain rows are durable, and
// returns once the catalogue has them.
func (a *Archive) again(ctx context.Context, changed []seriesName) error {
	if len(changed) == 0 {
		return nil
	}
	for _, name := range changed {
		a.journal.Again(name.study, name.series)
	}
	if err := a.journal.Settle(ctx); err != nil {
		return err // done again later, or at the next start
	}
	a.deciding.mu.Lock()
	defer a.deciding.mu.Unlock()
	batch := a.store.NewBatch()
	defer batch.Close()
	for _, name := range changed {
		if a.deciding.of[name] > 0 {
			continue // it is to be made anew once more
		}
		if err := batch.Delete(keyAgain(name), nil); err != nil {
			return err
		}
	}
	// Unsynced: to make a fact twice is harmless.
	return fmtStore(batch.Commit(pebble.NoSync))
}

// decideTime is how long a decision that failed may yet be taken, for all that this
// node can tell: it was proposed twice, for up to 30 s. One that is taken still later
// is found by followTombstones.
const decideTime = time.Minute

// awaitDecision returns once tombstones have changed since a decision was proposed, or
// after decideTime; false when ctx ends.
func (a *Archive) awaitDecision(ctx context.Context, before uint64) bool {
	limit := time.NewTimer(decideTime)
	defer limit.Stop()
	for {
		changed := a.catalog.Changed()
		if a.catalog.TombstonesChanged() != before {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-limit.C:
			return true
		case <-changed:
		}
	}
}

// againLeft has those facts made anew that the end of the last process left, or a
// decision that failed.
func (a *Archive) againLeft(ctx context.Context) error {
	for {
		var left []seriesName
		err := a.each([]byte{rowAgain}, func(key, _ []byte) error {
			uids, _, ok := splitUIDs(key[1:], 2)
			if !ok {
				return fault.New(fault.Corrupt, "store: a row of a fact to be made anew that does not parse")
			}
			if name := (seriesName{uids[0], uids[1]}); !a.deciding.has(name) {
				left = append(left, name)
			}
			if len(left) == pageRows {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if err := a.again(ctx, left); err != nil {
			return err
		}
	}
}
