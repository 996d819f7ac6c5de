package purge

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"pelago/cluster/pause"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
)

const (
	// gather is how long purges may gather before what they name is dropped: dropping
	// syncs, and keys are dropped by writing the ring anew.
	gather = time.Second
	// maxDropped bounds what is dropped at once.
	maxDropped = 512
	// keepAgain is for how long a key is forgotten again: who keeps other nodes' study keys may
	// have read one before it was given up, and keep it after.
	keepAgain = 2 * time.Minute
)

// forgotten is a key that was given up lately.
type forgotten struct {
	id    [16]byte
	until time.Duration // by Options.Monotonic
}

// cursor is up to where of what is gone a node has dropped everything, durably.
type cursor struct{ generation, index uint64 }

const (
	rowCursor     = "dropped"
	cursorVersion = 1
)

func (c cursor) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, c.generation)
	return binary.BigEndian.AppendUint64(b, c.index)
}

// parseCursor reads what encode wrote; anything else is the beginning, from where nothing
// is missed.
func parseCursor(b []byte) (c cursor) {
	if len(b) == 1+8+8 && b[0] == cursorVersion {
		c = cursor{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}
	}
	return c
}

// Dropped is the index up to which this node has dropped what was purged, durably; 0: it
// has not looked yet, at what this generation of the network gave up.
func (p *Purger) Dropped() uint64 {
	now := p.o.Generation()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped.generation != now {
		return 0
	}
	return p.dropped.index
}

// Drop drops what was purged, and then as it is, until ctx ends or something cannot be
// dropped.
func (p *Purger) Drop(ctx context.Context) error {
	if err := p.Sweep(ctx); err != nil {
		return err
	}
	for {
		changed := p.o.Catalog.Changed() // before it is read
		if err := p.CatchUp(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was cut short; the next start goes on
			}
			return err
		}
		limit := time.NewTimer(keepAgain / 4)
		select {
		case <-ctx.Done():
			limit.Stop()
			return nil
		case <-changed:
		case <-limit.C:
		}
		limit.Stop()
		if !pause.For(ctx, gather) {
			return nil
		}
	}
}

// CatchUp drops all that was purged and is not dropped yet. One call at a time.
func (p *Purger) CatchUp(ctx context.Context) error {
	if !p.read {
		row, _, err := p.o.Rows.Get(rowCursor)
		if err != nil {
			return err
		}
		p.at, p.read = parseCursor(row), true
	}
	// Before entries are read: those of a network that is recovered meanwhile are found to
	// be another one's the next time.
	if generation := p.o.Generation(); p.at.generation != generation {
		p.at = cursor{generation: generation}
	}
	upTo := p.o.Catalog.Applied()
	var batch []catalog.Gone
	for gone, err := range p.o.Catalog.Gone(ctx, p.at.index) {
		if err != nil {
			return err
		}
		if gone.Index > upTo {
			break
		}
		if batch = append(batch, gone); len(batch) == maxDropped {
			if err := p.dropTo(ctx, batch, gone.Index-1); err != nil { // of this entry more may follow
				return err
			}
			batch = batch[:0]
		}
	}
	if len(batch) > 0 {
		if err := p.dropTo(ctx, batch, upTo); err != nil {
			return err
		}
	}
	p.at.index = max(p.at.index, upTo) // without anything in between it need not be remembered
	p.mu.Lock()
	p.dropped = p.at
	p.mu.Unlock()
	return p.forgetAgain()
}

// dropTo drops what is gone, and remembers up to where.
func (p *Purger) dropTo(ctx context.Context, batch []catalog.Gone, index uint64) error {
	if err := p.drop(ctx, batch); err != nil {
		return err
	}
	p.at.index = max(p.at.index, index)
	return p.o.Rows.Commit(map[string][]byte{rowCursor: p.at.encode()})
}

// drop drops packs first and keys after, each of them durably.
func (p *Purger) drop(ctx context.Context, all []catalog.Gone) error {
	var packs []pack.ID
	var keys [][16]byte
	studies := map[[16]byte]string{} // of keys
	for _, gone := range all {
		if gone.IsKey {
			keys, studies[gone.ID] = append(keys, gone.ID), gone.Study
			continue
		}
		packs = append(packs, pack.ID(gone.ID))
		if err := p.dropShards(ctx, gone); err != nil {
			return err
		}
	}
	if len(packs) > 0 {
		if p.o.Copies != nil {
			if err := p.o.Copies.Forget(packs...); err != nil {
				return err
			}
		}
		if err := p.o.Archive.DropPurged(ctx, packs...); err != nil {
			return err
		}
		p.o.Log.Info("what was purged is dropped", "packs", len(packs))
	}
	keys, err := p.unneeded(keys, studies)
	if err != nil || len(keys) == 0 {
		return err
	}
	if err := p.o.Ring.ForgetKeys(keys...); err != nil {
		return err
	}
	p.o.Log.Info("keys of what was purged are forgotten", "study_keys", len(keys))
	p.mu.Lock()
	defer p.mu.Unlock()
	until := p.o.Monotonic() + keepAgain
	for _, id := range keys {
		p.again = append(p.again, forgotten{id, until})
	}
	return nil
}

// unneeded are the keys but those of this node of studies of which it still has anything.
// Others gave them up while it was away, and knew nothing of what came here meanwhile or
// waits for an operator; the archive forgets them when that is gone.
func (p *Purger) unneeded(keys [][16]byte, studies map[[16]byte]string) (left [][16]byte, err error) {
	for _, id := range keys {
		k, err := p.o.Ring.Wrapped(id)
		if err == nil && k.Origin == "" {
			keeps, err := p.o.Archive.KeepsStudy(studies[id])
			if err != nil {
				return nil, err
			}
			if keeps {
				p.o.Log.Warn("a study key that was given up stays: this node has something under it")
				continue
			}
		}
		left = append(left, id) // what cannot be read is for the ring to judge
	}
	return left, nil
}

// dropShards drops what this node holds of a pack.
func (p *Purger) dropShards(ctx context.Context, gone catalog.Gone) error {
	if p.o.Held == nil {
		return nil
	}
	var names []held.Name
	spread := shard.Spread(gone.ID)
	err := p.o.Held.List(spread, spread, nil, func(s held.Status) (bool, error) {
		if s.Pack == gone.ID {
			names = append(names, s.Name)
		}
		return true, nil
	})
	if err != nil || len(names) == 0 {
		return err
	}
	_, err = p.o.Held.Drop(ctx, held.Purged{Index: gone.Index}, names...)
	return err
}

// forgetAgain forgets once more what was forgotten lately.
func (p *Purger) forgetAgain() error {
	p.mu.Lock()
	now := p.o.Monotonic()
	var ids [][16]byte
	p.again = slices.DeleteFunc(p.again, func(f forgotten) bool {
		ids = append(ids, f.id)
		return f.until <= now
	})
	p.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	return p.o.Ring.ForgetKeys(ids...)
}

// Sweep drops, at a start, what this node holds of packs that the catalogue says were purged,
// and keys that it says were forgotten: they may have come back with an older copy of a
// store, or in a crash. What the catalogue does not know stays.
func (p *Purger) Sweep(ctx context.Context) error {
	if p.o.Held != nil {
		if err := p.sweepShards(ctx); err != nil {
			return err
		}
	}
	return p.sweepKeys(ctx)
}

func (p *Purger) sweepShards(ctx context.Context) error {
	var after *held.Name
	for more := true; more; {
		more = false
		var page []held.Name
		err := p.o.Held.List(0, math.MaxUint64, after, func(s held.Status) (bool, error) {
			page = append(page, s.Name)
			more = len(page) == maxDropped
			return !more, nil
		})
		if err != nil {
			return err
		}
		for i, name := range page {
			if err := p.sweep(ctx, name); err != nil {
				return err
			}
			after = &page[i]
		}
		if more && !pause.For(ctx, sweepPause) {
			return nil
		}
	}
	return nil
}

// sweepPause is between two pages of shards: nobody waits for a sweep.
const sweepPause = 10 * time.Millisecond

func (p *Purger) sweep(ctx context.Context, name held.Name) error {
	index, err := p.o.Catalog.Purged(name.Pack)
	if err != nil {
		return err
	}
	if index == 0 && p.o.bug == bugUnreferenced {
		v := p.o.Catalog.View()
		seals, err := v.Pack(name.Pack)
		if closing := v.Close(); err != nil || closing != nil || len(seals) > 0 {
			return err
		}
		index = 1
	}
	if index == 0 {
		return nil
	}
	_, err = p.o.Held.Drop(ctx, held.Purged{Index: index}, name)
	return err
}

func (p *Purger) sweepKeys(ctx context.Context) error {
	var ids [][16]byte
	studies := map[[16]byte]string{}
	flush := func() error {
		left, err := p.unneeded(ids, studies)
		ids = ids[:0]
		clear(studies)
		if err != nil || len(left) == 0 {
			return err
		}
		return p.o.Ring.ForgetKeys(left...)
	}
	for gone, err := range p.o.Catalog.Gone(ctx, 0) {
		if err != nil {
			return err
		}
		if gone.IsKey {
			ids, studies[gone.ID] = append(ids, gone.ID), gone.Study
		}
		if len(ids) == maxDropped {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
