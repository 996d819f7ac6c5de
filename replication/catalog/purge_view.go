package catalog

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// Gone is a pack that was purged, or a study key that was forgotten.
type Gone struct {
	Index uint64 // of the entry that gave it up
	IsKey bool
	ID    [16]byte
	Study string
}

// goneAtOnce is how many Gone reads before it yields them.
const goneAtOnce = 512

// Gone yields what was given up by the entries above an index, in their order. Between
// two the catalogue is not held, and more may be given up.
//
// In another generation of the network entries are others: who follows begins again at 0.
func (c *Catalog) Gone(ctx context.Context, above uint64) iter.Seq2[Gone, error] {
	return func(yield func(Gone, error) bool) {
		if above == ^uint64(0) {
			return
		}
		from := goneKey(above+1, 0, [16]byte{})
		for {
			all, next, err := c.goneFrom(from)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Gone{}, err)
				return
			}
			for _, g := range all {
				if !yield(g, nil) {
					return
				}
			}
			if len(all) < goneAtOnce {
				return
			}
			from = next
		}
	}
}

func (c *Catalog) goneFrom(from []byte) (all []Gone, next []byte, err error) {
	v := c.View()
	defer v.Close()
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after([]byte{rowGone})})
	if err != nil {
		return nil, nil, fmt.Errorf("catalog: read what is gone: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid() && len(all) < goneAtOnce; it.Next() {
		key := it.Key()
		if len(key) != 1+8+1+16 {
			return nil, nil, fault.New(fault.Corrupt, "catalog: a row of what is gone, of %d bytes", len(key))
		}
		g := Gone{Index: binary.BigEndian.Uint64(key[1:]), IsKey: key[9] == goneStudyKey, ID: [16]byte(key[10:])}
		where := purgedKey(g.ID)
		if g.IsKey {
			where = forgottenKey(g.ID)
		}
		row, err := get(v.at, where)
		if err != nil {
			return nil, nil, err
		}
		p, err := decodePurged(row)
		if err != nil {
			return nil, nil, err
		}
		g.Study = p.study
		all, next = append(all, g), append(append([]byte(nil), key...), 0)
	}
	if err := it.Error(); err != nil {
		return nil, nil, fmt.Errorf("catalog: read what is gone: %w", err)
	}
	return all, next, nil
}

// Purged returns the index of the entry that gave a pack up; 0: none has.
func (c *Catalog) Purged(pack [16]byte) (uint64, error) {
	row, err := get(c.db, purgedKey(pack))
	if err != nil || row == nil {
		return 0, err
	}
	p, err := decodePurged(row)
	return p.index, err
}

// Forgotten reports whether a study key was given up.
func (c *Catalog) Forgotten(key [16]byte) (bool, error) {
	row, err := get(c.db, forgottenKey(key))
	return row != nil, err
}

// Packs is as Seals, those of what is deleted too, which are purged by it.
func (v *View) Packs(study, series string) ([]Seal, error) { return v.seals(study, series, true) }

// KeysLeft is as Keys, those of a deleted study too.
func (v *View) KeysLeft(study string) ([]StudyKey, error) { return v.keys(study, "") }

// Would says what a command would come to, were the node to decide it as of what is
// applied here: nil if it were taken. It changes nothing.
func (c *Catalog) Would(node string, command Command) (refusal, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.begin()
	return t.command(command, node, c.Applied()+1)
}

// Age is how long a tombstone has stood, in seconds of the network's clock, and whether
// that is the grace.
func (c *Catalog) Age(stone *Tombstone) (seconds uint64, aged bool, err error) {
	clock, err := c.Clock()
	if err != nil {
		return 0, false, err
	}
	terms, err := c.Terms()
	if err != nil || clock.Seconds < stone.At {
		return 0, false, err
	}
	age := clock.Seconds - stone.At
	return age, clock.Seconds > 0 && age >= uint64(terms.Grace.Seconds()), nil
}

// Held reports whether a hold keeps a study, or one of the patients that its nodes name.
func (c *Catalog) Held(study string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begin().held(study)
}

// Covering returns the tombstones of an instance, its series and its study, those that
// there are: the widest first.
func (c *Catalog) Covering(study, series, instance string) ([]*Tombstone, error) {
	if !c.stones.Load() {
		return nil, nil
	}
	var all []*Tombstone
	for _, key := range [...][]byte{tombstoneKey(study, "", ""), tombstoneKey(study, series, ""), tombstoneKey(study, series, instance)} {
		if len(all) > 0 && slices.ContainsFunc(all, func(t *Tombstone) bool { return string(tombstoneKey(t.Study, t.Series, t.Instance)) == string(key) }) {
			continue // the instance or the series was not named
		}
		row, err := get(c.db, key)
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue
		}
		stone, err := decodeTombstone(key, row)
		if err != nil {
			return nil, err
		}
		all = append(all, stone)
	}
	return all, nil
}
