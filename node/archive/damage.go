package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/query"
	"pelago/shard/bulk"
	"pelago/shard/pack"
)

// damage is whether any pack is noted as lost: rowLost names them by the series
// that they are of, so that a query asks for a study what bulk/ reported by
// table. Nearly always there is none, and then nobody reads a row.
type damage struct{ noted atomic.Bool }

// lost is bulk's report that ranges are rotten or missing: their packs are
// marked, durably, before the range is excised. What others keep in bulk/ is theirs
// to note: copies of other nodes' packs are got anew by who reads one.
func (a *Archive) lost(refs []bulk.Ref, cause error) {
	hot := map[bulk.Ref]bool{}
	var copies int
	for _, r := range refs {
		switch r.Space {
		case bulk.Hot:
			hot[r] = true
		case bulk.Cached:
			copies++
		case bulk.Held: // told of one by one
		}
	}
	if copies > 0 {
		a.log.Warn("cached packs lost to a rotten or missing table; they will be fetched again", "packs", copies, "cause", cause)
	}
	if len(hot) < len(refs) {
		if err := a.o.BulkLost(a.Rows, refs, cause); err != nil {
			a.log.Error("what is lost to a rotten or missing table could not be noted", "blobs", len(refs), "cause", cause, "error", err)
		}
	}
	if len(hot) > 0 {
		a.lostPacks(hot, cause)
	}
}

// lostPacks marks the packs of blobs as lost, and tells of them.
func (a *Archive) lostPacks(hot map[bulk.Ref]bool, cause error) {
	var found []pack.ID
	err := a.each([]byte{rowPack}, func(key, value []byte) error {
		var p archivepb.Pack
		if err := unmarshal(value, &p); err != nil {
			a.log.Error("a pack's record does not parse", "pack", hex.EncodeToString(key[1:]), "error", err)
			return nil // verify names it; the others are to be marked
		}
		if !hot[packRef(&p)] {
			return nil
		}
		id, err := packID(p.Id)
		found = append(found, id)
		return err
	})
	marked, markErr := a.markLost(found)
	err = errors.Join(err, markErr)
	if len(marked) > 0 {
		a.damage.noted.Store(true)
	}
	a.stats.PacksLost.Add(uint64(len(marked)))
	a.log.Error("packs lost to a rotten or missing table", "packs", len(marked), "cause", cause, "error", err)
	a.packs.Drop()
	if err == nil && len(marked) > 0 {
		a.o.PacksLost(marked, cause)
	}
}

// markLost makes it durable that packs are lost, and returns which of them are so by
// this. Their rows are read anew: since they were found, a pack may have been evicted,
// for which nothing is lost, or purged, and its row must not come back.
func (a *Archive) markLost(found []pack.ID) (marked []pack.ID, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	batch := a.store.NewBatch()
	defer batch.Close()
	var errs []error
	for _, id := range found {
		p, err := a.pack(id)
		if fault.Is(err, fault.NotFound) || err == nil && (p.Lost || p.Evicted) {
			continue
		}
		if err == nil {
			p.Lost = true
			err = errors.Join(batch.Set(keyPack(id), marshal(p), nil), batch.Set(keyLost(p), nil, nil))
		}
		if err != nil {
			errs = append(errs, err)
			continue // the others are to be marked
		}
		marked = append(marked, id)
	}
	return marked, errors.Join(fmtStore(batch.Commit(pebble.Sync)), errors.Join(errs...))
}

// EachLost visits the packs whose bytes are lost here, until visit returns false.
func (a *Archive) EachLost(ctx context.Context, visit func(pack.ID) (bool, error)) error {
	err := a.pages([]byte{rowLost}, func(key, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		_, rest, ok := splitUIDs(key[1:], 2)
		id, err := packID(rest)
		if !ok || err != nil {
			return errors.Join(err, errSeriesRow())
		}
		more, err := visit(id)
		if err == nil && !more {
			return errStop
		}
		return err
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// lookForDamage sets damage.noted by the rows.
func (a *Archive) lookForDamage() error {
	a.damage.noted.Store(false) // first: a loss that is noted meanwhile sets it behind us
	none, err := a.none([]byte{rowLost})
	if err == nil && !none {
		a.damage.noted.Store(true)
	}
	return err
}

// Availability implements [query.Instances]: it knows what was found lost when
// it was read, and takes the rest to be here. Deleted and quarantined instances
// do not count.
func (k Known) Availability(ctx context.Context, study, series string, number uint64) query.Availability {
	if !k.damage.noted.Load() {
		return query.Online
	}
	prefix := []byte{rowLost}
	if study != "" {
		prefix = appendUID(prefix, study)
	}
	if series != "" {
		prefix = appendUID(prefix, series)
	}
	err := k.each(prefix, func(key, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		_, rest, ok := splitUIDs(key[1:], 2)
		id, err := packID(rest)
		if !ok || err != nil {
			return errors.Join(err, errSeriesRow())
		}
		if number != 0 {
			return k.stopIfIn(id, number)
		}
		return k.each(prefixMember(id), func(key, _ []byte) error {
			return k.stopIfIn(id, numberOf(key))
		})
	})
	switch {
	case errors.Is(err, errStop):
		return query.Unavailable
	case err != nil && ctx.Err() == nil:
		k.log.Warn("instance availability was not determined", "error", err)
	}
	return query.Online
}

// stopIfIn returns errStop if a pack holds an instance, and that is canonical
// and not deleted.
func (a *Archive) stopIfIn(id pack.ID, number uint64) error {
	_, member, err := a.get(keyMember(id, number))
	if err != nil || !member {
		return err
	}
	r, ok, err := a.instance(number)
	if err != nil || !ok || r.State != archivepb.State_CANONICAL || a.covered(r) {
		return err
	}
	return errStop
}
