package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

// Parting is by which tombstones a pack may be purged.
type Parting struct {
	Study, Series string
	ByStudy       bool
	BySeries      bool
	Instances     []string // ascending; those that neither covers
}

// Parting says by which tombstones, of those that over accepts, everything in a pack is
// deleted, so that it may be purged: nil while something in it is not, or waits for an
// operator. fault.NotFound for a pack that is not here. A pack that nothing is in any more
// needs no tombstone of instances, but one of its series or study.
//
// Instances of a pack are only ever fewer later, or accepted over a tombstone
// ([catalog.KindAccepted]), which who purges has to make a condition.
func (a *Archive) Parting(id pack.ID, over func(*catalog.Tombstone) (bool, error)) (*Parting, error) {
	p, err := a.pack(id)
	if err != nil {
		return nil, err
	}
	part := &Parting{Study: p.Study, Series: p.Series}
	wide, err := a.parts(part, over)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sure, err := a.plausible(now)
	if err != nil {
		return nil, err
	}
	instances := map[string]bool{}
	err = a.pages(prefixMember(id), func(key, _ []byte) error {
		r, _, err := a.held(numberOf(key))
		if err != nil || r == nil {
			return err
		}
		if r.State == archivepb.State_DISCARDED && !sure {
			return errStop // its grace is the wall clock's
		}
		goes, err := a.goes(r, wide, over, now)
		if err != nil {
			return err
		}
		if !goes {
			return errStop
		}
		if r.State != archivepb.State_DISCARDED {
			instances[r.Sop] = true
		}
		return nil
	})
	switch {
	case errors.Is(err, errStop):
		return nil, nil
	case err != nil:
		return nil, err
	case !wide && len(instances) == 0:
		return nil, nil // a pack of what operators discarded: nothing tells the network of that
	case !wide:
		part.Instances = slices.Sorted(maps.Keys(instances))
	}
	return part, nil
}

// parts finds whether a tombstone of the study or the series of a pack will do.
func (a *Archive) parts(part *Parting, over func(*catalog.Tombstone) (bool, error)) (wide bool, err error) {
	stones, err := a.catalog.Covering(part.Study, part.Series, "")
	if err != nil {
		return false, err
	}
	for _, stone := range stones {
		done, err := over(stone)
		if err != nil {
			return false, err
		}
		part.ByStudy = part.ByStudy || done && stone.Series == ""
		part.BySeries = part.BySeries || done && stone.Series != ""
	}
	return part.ByStudy || part.BySeries, nil
}

// goes reports whether an instance may go with its pack.
func (a *Archive) goes(r *archivepb.Instance, wide bool, over func(*catalog.Tombstone) (bool, error), now time.Time) (bool, error) {
	switch r.State {
	case archivepb.State_DISCARDED:
		return a.discardOver(r, now), nil
	case archivepb.State_CANONICAL, archivepb.State_RENDITION:
	default:
		return false, nil
	}
	if !a.covered(r) || wide {
		return a.covered(r), nil
	}
	stones, err := a.catalog.Covering(r.Study, r.Series, r.Sop)
	for _, stone := range stones {
		if stone.Instance == "" {
			continue // one that is not over
		}
		return over(stone)
	}
	return false, err
}

// HasPack reports whether a pack is here, or was and is still to be dropped.
func (a *Archive) HasPack(id pack.ID) (bool, error) {
	_, err := a.pack(id)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// KeepsStudy reports whether anything of a study is here that its keys open, or will
// open: canonical, quarantined or discarded, packed or not.
func (a *Archive) KeepsStudy(study string) (keeps bool, err error) {
	for _, prefix := range [][]byte{keySeries(study, "", ""), appendUID([]byte{rowQueue}, study)} {
		if none, err := a.none(prefix); err != nil || !none {
			return err == nil, err
		}
	}
	err = a.EachPack(context.Background(), pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		keeps = p.Study == study
		return !keeps, nil
	})
	return keeps, err
}

// DropPurged drops packs that were purged, with what was in them. It is durable when it
// returns; packs that are not here are no error. fault.Invalid for one that was not purged:
// nothing of it is dropped.
func (a *Archive) DropPurged(ctx context.Context, ids ...pack.ID) error {
	for _, id := range ids {
		index, err := a.catalog.Purged(id)
		if err != nil {
			return err
		}
		if index == 0 {
			return fault.New(fault.Invalid, "archive: pack %s was not purged", hex.EncodeToString(id[:]))
		}
		if here, err := a.HasPack(id); err != nil || !here {
			if err != nil {
				return err
			}
			continue
		}
		if err := a.dropPurged(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) dropPurged(ctx context.Context, id pack.ID) error {
	var due []uint64
	left := 0
	flush := func() error {
		gone, err := a.purgeInstances(due)
		left += len(due) - gone
		due = due[:0]
		return err
	}
	err := a.pages(prefixMember(id), func(key, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if due = append(due, numberOf(key)); len(due) < purgeSlice {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	if left > 0 {
		// It holds what no tombstone covers: its bytes stay here, whatever others dropped.
		a.log.Error("a pack was purged that holds what is not deleted; it stays", "pack", hex.EncodeToString(id[:]), "instances", left)
		return nil
	}
	if err := a.store.Set(keyEmpty(id), nil, pebble.Sync); err != nil {
		return fmtStore(err)
	}
	a.still.Lock()
	defer a.still.Unlock()
	return a.dropEmpty()
}
