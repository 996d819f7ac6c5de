package archive

import (
	"context"

	"pelago/cluster/fault"
	"pelago/node/work"
	"pelago/replication/catalog"
)

// followTombstones has this node's own series counted again when a tombstone of
// single instances, or a version that was accepted over one, changes what counts in
// them, wherever that was decided. (A series that is deleted as a whole the
// catalogue hides by itself.)
func (a *Archive) followTombstones(ctx context.Context, p *work.Progress) error {
	looked, before := false, map[seriesName]bool{}
	var seen uint64
	for {
		changed := a.catalog.Changed()
		if at := a.catalog.TombstonesChanged(); !looked || at != seen {
			now, err := a.partlyDeleted(ctx)
			if err != nil {
				return err
			}
			for name := range now {
				before[name] = true // and those that are no longer among them
			}
			if err := a.recount(ctx, before); err != nil {
				return err
			}
			looked, seen, before = true, at, now
			p.Add(1)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// partlyDeleted lists the series of which something is deleted and something may
// count nevertheless.
func (a *Archive) partlyDeleted(ctx context.Context) (map[seriesName]bool, error) {
	all := map[seriesName]bool{}
	for t, err := range a.catalog.Tombstones(ctx) {
		if err != nil {
			return nil, err
		}
		if t.Instance != "" {
			all[seriesName{t.Study, t.Series}] = true
		}
	}
	records, err := a.catalog.Registry(catalog.KindAccepted)
	if err != nil {
		return nil, err
	}
	for _, value := range records {
		accepted, err := catalog.DecodeAccepted(value)
		if err != nil {
			return nil, err
		}
		all[seriesName{accepted.Study, accepted.Series}] = true
	}
	return all, nil
}

// recount makes the facts anew of those series that count differently here than
// this node has told.
func (a *Archive) recount(ctx context.Context, all map[seriesName]bool) error {
	var changed []seriesName
	for name := range all {
		fact, _, err := facts{Archive: a}.count(ctx, name.study, name.series)
		if err != nil {
			return err
		}
		told, err := a.told(name)
		if err != nil {
			return err
		}
		if told != fact.Instances {
			changed = append(changed, name)
		}
	}
	err := a.again(ctx, changed)
	if fault.Is(err, fault.Unavailable) {
		return nil // it is on its way
	}
	return err
}

// told is how many instances of a series this node has told the catalogue that it
// holds.
func (a *Archive) told(name seriesName) (n uint64, err error) {
	view := a.catalog.View()
	defer func() {
		if closing := view.Close(); err == nil {
			err = closing
		}
	}()
	holders, err := view.Holders(name.study, name.series)
	for _, h := range holders {
		if h.Node == a.o.Node {
			n = h.Instances
		}
	}
	return n, err
}
