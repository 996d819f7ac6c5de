package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/node/archive/archivepb"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

const (
	// purgeEvery is how often objects past their grace are looked for.
	purgeEvery = time.Hour
	// purgeRounds is how often in a grace at least, by the network's time.
	purgeRounds = 120
	// purgeSlice is how many instances go at a time: the packer and backups wait
	// for so many and no more.
	purgeSlice = 500
	// purgeMargin is how much longer than the grace an object is kept, so that a
	// restoration at the last moment is through before the purge looks.
	purgeMargin = 10 * time.Minute
)

const (
	// clockStride is how far the clock may have gone on since the last look: the
	// looks are an hour apart.
	clockStride = 25 * time.Hour
	// clockDoubt is how long nothing is purged after a longer stride: a node that
	// was switched off has lost nothing by it, and a clock that jumped (a battery,
	// a wrong time server) can be set right before it ends everybody's grace.
	clockDoubt = 24 * time.Hour
)

// purgeRound makes the round of the purge, which remembers since when it doubts
// the clock.
func (a *Archive) purgeRound() func(context.Context, *work.Progress) error {
	var doubted time.Time
	return func(ctx context.Context, _ *work.Progress) error {
		now := time.Now()
		sure, err := a.trustClock(now, &doubted)
		switch {
		case err != nil:
			return err
		case sure:
			return a.observe("purge", func() error { return a.purge(ctx, now) })
		case a.o.Graces != nil: // the network's time is not the wall clock's
			return a.observe("purge", func() error { return errors.Join(a.purgeDeleted(ctx, now), a.forget(ctx)) })
		}
		return nil
	}
}

// trustClock reports whether graces may be ended by the wall clock: it has gone
// on since the last look as clocks do, or was doubted for long enough. doubted
// is when doubts began, zero without any.
func (a *Archive) trustClock(now time.Time, doubted *time.Time) (bool, error) {
	value, known, err := a.get([]byte{rowClock})
	if err != nil {
		return false, err
	}
	if known && len(value) == 8 {
		last := time.UnixMicro(int64(binary.BigEndian.Uint64(value)))
		if ahead := now.Sub(last); ahead > clockStride {
			if doubted.IsZero() {
				*doubted = now
				a.log.Warn("the clock is far ahead of the last look for what is past its grace: nothing is purged for a day",
					"ahead_hours", int64(ahead.Hours()))
			}
			if now.Sub(*doubted) < clockDoubt {
				return false, nil
			}
		}
	}
	*doubted = time.Time{}
	value = binary.BigEndian.AppendUint64(nil, uint64(now.UnixMicro()))
	// Unsynced: an older time only makes us doubt sooner.
	return true, fmtStore(a.store.Set([]byte{rowClock}, value, pebble.NoSync))
}

// plausible reports whether the wall clock is where it would have gone on to since the
// last look at which it was trusted, or was never looked at.
func (a *Archive) plausible(now time.Time) (bool, error) {
	value, known, err := a.get([]byte{rowClock})
	if err != nil || !known || len(value) != 8 {
		return err == nil, err
	}
	return now.Sub(time.UnixMicro(int64(binary.BigEndian.Uint64(value)))) <= clockStride, nil
}

// purge frees the bytes of what was deleted, or discarded by an operator, more
// than the grace before now. Tombstones stay for ever. Nothing goes for any
// other reason.
func (a *Archive) purge(ctx context.Context, now time.Time) error {
	if err := a.purgeDeleted(ctx, now); err != nil {
		return err
	}
	return errors.Join(a.purgeDiscarded(ctx, now), a.dropKept(), a.forget(ctx))
}

// purgeDeleted frees what tombstones cover that are past the grace, but for what other
// nodes have shards of.
func (a *Archive) purgeDeleted(ctx context.Context, now time.Time) error {
	for tombstone, err := range a.catalog.Tombstones(ctx) {
		if err != nil {
			return err
		}
		over, err := a.over(tombstone, now)
		if err != nil {
			return err
		}
		if !over {
			continue
		}
		if err := a.purgeObject(ctx, &tombstone.TombstoneFact); err != nil {
			return err
		}
	}
	return nil
}

// over reports whether a tombstone is past the grace, by the network's time if there is
// one.
func (a *Archive) over(stone *catalog.Tombstone, now time.Time) (bool, error) {
	if a.o.Graces != nil {
		return a.o.Graces.Over(stone)
	}
	return now.Sub(time.Unix(stone.Tick, 0)) > a.o.Grace+purgeMargin, nil
}

// sealed reports whether a pack goes by a committed purge only: the network has agreed
// on a stripe of it, and others have shards.
func (a *Archive) sealed(id pack.ID) (sealed bool, err error) {
	v := a.catalog.View()
	defer func() {
		if closing := v.Close(); err == nil {
			err = closing
		}
	}()
	seals, err := v.Pack(id)
	return len(seals) > 0, err
}

// keeps reports whether there is such a pack of this node's of a study.
func (a *Archive) keeps(study string) (keeps bool, err error) {
	v := a.catalog.View()
	defer func() {
		if closing := v.Close(); err == nil {
			err = closing
		}
	}()
	seals, err := v.Packs(study, "")
	for _, seal := range seals {
		keeps = keeps || seal.Origin == a.o.Node
	}
	return keeps, err
}

// freed reports whether an instance may leave where its bytes rest: it is in no pack that
// other nodes have shards of. That goes whole.
func (a *Archive) freed(number uint64) (bool, error) {
	_, at, err := a.held(number)
	if err != nil || at == nil || len(at.Pack) == 0 {
		return err == nil, err
	}
	id, err := packID(at.Pack)
	if err != nil {
		return false, err
	}
	sealed, err := a.sealed(id)
	return !sealed, err
}

// purgeObject frees what a tombstone covers: its canonical instances and their
// renditions. Quarantined versions wait for an operator.
func (a *Archive) purgeObject(ctx context.Context, of *catalog.TombstoneFact) error {
	prefix := keySeries(of.Study, of.Series, of.Instance)
	for {
		var due []uint64
		for ref, err := range a.list(ctx, prefix) {
			if err != nil {
				return err
			}
			if due, err = a.withRenditions(due, ref); err != nil {
				return err
			}
			if len(due) >= purgeSlice {
				break
			}
		}
		gone, err := a.purgeInstances(due)
		if err != nil || gone == 0 {
			return err
		}
	}
}

// withRenditions appends an instance's number and those of its renditions.
func (a *Archive) withRenditions(due []uint64, ref Ref) ([]uint64, error) {
	free, err := a.freed(ref.Number)
	if err != nil {
		return nil, err
	}
	if free {
		due = append(due, ref.Number)
	}
	err = a.eachVersion(ref.SOP, func(number uint64, state archivepb.State, _ []byte) error {
		if state != archivepb.State_RENDITION {
			return nil
		}
		v, err := a.record(number)
		if err != nil || v.Against != ref.Number || !a.covered(v.Instance) {
			return err
		}
		free, err := a.freed(number)
		if free {
			due = append(due, number)
		}
		return err
	})
	return due, err
}

// purgeDiscarded frees what operators discarded.
func (a *Archive) purgeDiscarded(ctx context.Context, now time.Time) error {
	var due []uint64
	flush := func() error {
		_, err := a.purgeInstances(due)
		due = due[:0]
		return err
	}
	err := a.pages([]byte{rowDiscard}, func(key, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		v, err := a.record(numberOf(key))
		if err != nil {
			return err
		}
		if free, err := a.freed(v.Number); err != nil || !free || !a.discardOver(v.Instance, now) {
			return err
		}
		if due = append(due, v.Number); len(due) < purgeSlice {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// discardOver reports whether an operator's decision to discard is past the grace.
func (a *Archive) discardOver(r *archivepb.Instance, now time.Time) bool {
	return now.Sub(time.UnixMicro(r.Decided)) > a.o.Grace+purgeMargin
}

// purgeInstances drops instances with one synced batch, and then gives their
// bytes up. It returns how many it dropped: those that a tombstone covers at
// this moment, or that are discarded.
func (a *Archive) purgeInstances(numbers []uint64) (gone int, err error) {
	if len(numbers) == 0 {
		return 0, nil
	}
	a.still.Lock()
	defer a.still.Unlock()
	left, err := a.purgeRows(numbers)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, at := range left {
		if len(at.Pack) == 0 {
			errs = append(errs, a.release(at))
		}
	}
	return len(left), errors.Join(errors.Join(errs...), a.dropEmpty())
}

// purgeRows commits the dropping of instances and returns where their bytes
// rested.
func (a *Archive) purgeRows(numbers []uint64) (left []*archivepb.Location, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	batch := a.store.NewBatch()
	defer batch.Close()
	for _, number := range numbers {
		r, at, err := a.held(number)
		if err != nil {
			return nil, err
		}
		if r == nil || r.State != archivepb.State_DISCARDED && !a.covered(r) {
			continue
		}
		left = append(left, at)
		if err := errors.Join(
			a.dropInstance(batch, r, at),
			batch.Set(keyForget(r.Study), nil, nil),
		); err != nil {
			return nil, err
		}
	}
	return left, fmtStore(batch.Commit(pebble.Sync))
}

// forget drops this node's keys of purged studies of which it has nothing left
// (crypto-shredding). Quarantined versions and renditions rest under the same
// key, so a study may wait for years; it is named durably until then.
func (a *Archive) forget(ctx context.Context) error {
	a.still.Lock()
	defer a.still.Unlock()
	gone := map[string]bool{}
	err := a.each([]byte{rowForget}, func(key, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		uids, _, ok := splitUIDs(key[1:], 1)
		if !ok {
			return nil
		}
		for _, prefix := range [][]byte{keySeries(uids[0], "", ""), appendUID([]byte{rowQueue}, uids[0])} {
			if none, err := a.none(prefix); err != nil || !none {
				return err
			}
		}
		if kept, err := a.keeps(uids[0]); err != nil || kept {
			return err
		}
		gone[uids[0]] = true
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	if err := a.each([]byte{rowPack}, func(_, value []byte) error {
		var p archivepb.Pack
		if err := unmarshal(value, &p); err != nil {
			return err
		}
		delete(gone, p.Study)
		return nil
	}); err != nil || len(gone) == 0 {
		return err
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	studies := make([]string, 0, len(gone))
	for study := range gone {
		studies = append(studies, study)
		if err := batch.Delete(keyForget(study), nil); err != nil {
			return err
		}
	}
	a.packs.Drop()
	if err := a.o.Keys.ForgetOwn(studies...); err != nil {
		return err
	}
	return fmtStore(batch.Commit(pebble.Sync))
}
