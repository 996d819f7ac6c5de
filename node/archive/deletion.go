package archive

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
)

// Delete commits a tombstone for a study, or with series and instance for less.
// Everything under it disappears from queries and retrieves at once and can be
// restored until the delete grace has passed.
func (a *Archive) Delete(ctx context.Context, study, series, instance, by string) error {
	found := false
	for _, err := range a.Select(ctx, study, series, instance) {
		if err != nil {
			return err
		}
		found = true
		break
	}
	if !found || study == "" {
		return fault.New(fault.NotFound, "no such study, series or instance")
	}
	if err := a.append(ctx, &catalog.TombstoneFact{
		Study: study, Series: series, Instance: instance, Tick: time.Now().Unix(), By: by,
	}); err != nil {
		return err
	}
	return a.recount(ctx, study, series)
}

// Restore takes a tombstone back within the delete grace.
func (a *Archive) Restore(ctx context.Context, study, series, instance, by string) error {
	tombstone, ok := a.catalog.Deleted(study, series, instance)
	if !ok || tombstone.Study != study || tombstone.Series != series || tombstone.Instance != instance {
		return fault.New(fault.NotFound, "no tombstone for just that object")
	}
	now := time.Now()
	if now.Sub(time.Unix(tombstone.Tick, 0)) > a.o.Grace {
		return fault.New(fault.NotFound, "deleted more than %s ago", a.o.Grace)
	}
	if err := a.append(ctx, &catalog.RestoreFact{
		Study: study, Series: series, Instance: instance, Tick: now.Unix(), By: by,
	}); err != nil {
		return err
	}
	return a.recount(ctx, study, series)
}

// recount has the facts of the series under a changed tombstone made anew:
// their counts are what a retrieve would send.
func (a *Archive) recount(ctx context.Context, study, series string) error {
	last := ""
	for ref, err := range a.list(ctx, keySeries(study, series, "")) {
		if err != nil {
			return err
		}
		if ref.Series != last {
			last = ref.Series
			a.journal.Dirty(a.number.Load(), study, last)
		}
	}
	return a.journal.Settle(ctx)
}

func (a *Archive) append(ctx context.Context, command catalog.Command) error {
	results, err := a.journal.Append(ctx, command)
	if err != nil {
		return err
	}
	return errors.Join(results...)
}

// purgeEvery is how often objects past their grace are looked for.
const purgeEvery = time.Hour

func (a *Archive) runPurge(ctx context.Context) error {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		if err := a.purge(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.log.Error("purging failed; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// purge frees the bytes of what was deleted, or discarded by an operator, more
// than the grace before now. Tombstones stay for ever.
func (a *Archive) purge(ctx context.Context, now time.Time) error {
	a.still.Lock()
	defer a.still.Unlock()
	for tombstone, err := range a.catalog.Tombstones(ctx) {
		if err != nil {
			return err
		}
		if now.Sub(time.Unix(tombstone.Tick, 0)) <= a.o.Grace {
			continue
		}
		prefix := keySeries(tombstone.Study, tombstone.Series, tombstone.Instance)
		var due []Ref
		for ref, err := range a.list(ctx, prefix) {
			if err != nil {
				return err
			}
			due = append(due, ref)
		}
		for _, ref := range due {
			if err := a.purgeInstance(ref.Number); err != nil {
				return err
			}
		}
		if tombstone.Series == "" && len(due) > 0 {
			if err := a.forget(ctx, tombstone.Study); err != nil {
				return err
			}
		}
	}
	if err := a.purgeDiscarded(ctx, now); err != nil {
		return err
	}
	return a.dropEmpty()
}

// purgeDiscarded frees what operators discarded.
func (a *Archive) purgeDiscarded(ctx context.Context, now time.Time) error {
	var due []uint64
	err := a.each([]byte{rowUID}, func(key, value []byte) error {
		if len(value) != 1 || archivepb.State(value[0]) != archivepb.State_DISCARDED {
			return context.Cause(ctx)
		}
		r, ok, err := a.instance(numberOf(key))
		if err != nil || !ok {
			return err
		}
		if now.Sub(time.UnixMicro(r.Decided)) > a.o.Grace {
			due = append(due, r.Number)
		}
		return nil
	})
	for _, number := range due {
		err = errors.Join(err, a.purgeInstance(number))
	}
	return err
}

// purgeInstance takes an instance's rows and gives its bytes up. What stays is
// its record, marked dropped, for as long as staging may replay it.
func (a *Archive) purgeInstance(number uint64) error {
	r, ok, err := a.instance(number)
	if err != nil || !ok {
		return err
	}
	location, err := a.location(number)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := changeState(batch, r, archivepb.State_DROPPED); err != nil {
		return err
	}
	if err := errors.Join(
		leavePack(batch, location, number),
		batch.Delete(keyUID(r.Sop, number), nil),
		batch.Delete(keyNumber(rowHeader, number), nil),
		batch.Delete(keyNumber(rowLocation, number), nil),
		batch.Delete(keyQueue(r.Study, r.Series, number), nil),
		batch.Commit(pebble.Sync),
	); err != nil {
		return err
	}
	if len(location.Pack) > 0 {
		return nil
	}
	return a.staging.Release(placed(location))
}

// forget drops a study's keys once nothing of it is left (crypto-shredding).
func (a *Archive) forget(ctx context.Context, study string) error {
	left := false
	err := a.each(appendUID([]byte{rowQueue}, study), func(_, _ []byte) error { left = true; return nil })
	if err != nil {
		return err
	}
	for _, err := range a.list(ctx, keySeries(study, "", "")) {
		if err != nil {
			return err
		}
		left = true
	}
	if left || a.keepsVersions(study) {
		return nil
	}
	a.packs.drop()
	return a.o.Keys.Forget(study)
}

// keepsVersions reports whether a pack of the study still has members:
// quarantined versions and renditions rest under the same key.
func (a *Archive) keepsVersions(study string) bool {
	if err := a.dropEmpty(); err != nil {
		return true
	}
	found := errors.New("found")
	err := a.each([]byte{rowPack}, func(_, value []byte) error {
		var p archivepb.Pack
		if err := unmarshal(value, &p); err != nil {
			return err
		}
		if p.Study == study {
			return found
		}
		return nil
	})
	return err != nil
}
