package catalog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/shard"
)

// Seal is what is committed of a stripe. Withdrawn is that of its pack; Base and
// Survives are 0.
type Seal struct {
	SealFact
	Deleted bool // a tombstone covers the series: nobody may read it, and it stays until it is purged
}

// Seals returns the seals of a series or, with an empty one, of a study: by series, of
// each by pack, of each the latest generation first. Those of what is deleted are
// left out.
func (v *View) Seals(study, series string) ([]Seal, error) { return v.seals(study, series, false) }

func (v *View) seals(study, series string, deleted bool) ([]Seal, error) {
	var all []Seal
	prefix := packPrefix(study, series)
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("catalog: read seals: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		p, err := decodePack(it.Key(), it.Value())
		if err != nil {
			return nil, err
		}
		if p.study != study || series != "" && p.series != series {
			continue
		}
		seals, err := v.sealsOf(p)
		if err != nil {
			return nil, err
		}
		if deleted || !seals[0].Deleted {
			all = append(all, seals...)
		}
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("catalog: read seals: %w", err)
	}
	slices.SortStableFunc(all, func(a, b Seal) int { return cmp.Compare(a.Series, b.Series) })
	return all, nil
}

// sealsOf returns the seals of a pack, the latest generation first.
func (v *View) sealsOf(p *pack) ([]Seal, error) {
	deleted, err := coveredIn(v.at, p.study, p.series, v.c.stones.Load())
	if err != nil {
		return nil, err
	}
	seals := make([]Seal, 0, len(p.stripes))
	for i := len(p.stripes) - 1; i >= 0; i-- {
		seals = append(seals, Seal{p.fact(&p.stripes[i]), deleted})
	}
	return seals, nil
}

// Pack returns the seals of a pack, the latest generation first; none when it is not
// known. Those of what is deleted are among them, for they must be looked after: who
// reads for a client asks for [Seal.Deleted].
func (v *View) Pack(id [16]byte) ([]Seal, error) {
	where, err := get(v.at, spreadKey(id))
	if err != nil || where == nil {
		return nil, err
	}
	return v.packAt(id, where)
}

// packAt is Pack for who has read where it is.
func (v *View) packAt(id [16]byte, where []byte) ([]Seal, error) {
	key := append(append([]byte{rowPack}, where...), id[:]...)
	row, err := get(v.at, key)
	if err == nil && row == nil {
		err = fault.New(fault.Corrupt, "catalog: a pack is not where it should be")
	}
	if err != nil {
		return nil, err
	}
	p, err := decodePack(key, row)
	if err != nil {
		return nil, err
	}
	return v.sealsOf(p)
}

// Stripe returns the seal of a stripe, as Pack does; false when it is not known, or
// withdrawn.
func (v *View) Stripe(s shard.Stripe) (Seal, bool, error) {
	seals, err := v.Pack(s.Pack)
	i := slices.IndexFunc(seals, func(seal Seal) bool { return seal.Stripe == s })
	if err != nil || i < 0 {
		return Seal{}, false, err
	}
	return seals[i], true, nil
}

// Group yields, pack by pack as Pack returns them, the seals of a placement group
// among so many (a power of two), in the order of shard.Spread. A walk goes on in
// another view behind the pack that it had last; zeros begin it.
func (v *View) Group(group, groups int, behind [16]byte) iter.Seq2[[]Seal, error] {
	return func(yield func([]Seal, error) bool) {
		if groups < 1 || groups&(groups-1) != 0 || group < 0 || group >= groups {
			yield(nil, fault.New(fault.Invalid, "catalog: no placement group %d of %d", group, groups))
			return
		}
		lower, upper := groupBounds(group, groups)
		if behind != [16]byte{} {
			if at := append(spreadKey(behind), 0); bytes.Compare(at, lower) > 0 {
				lower = at
			}
		}
		if bytes.Compare(lower, upper) >= 0 {
			return
		}
		it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			yield(nil, fmt.Errorf("catalog: read seals: %w", err))
			return
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			var seals []Seal
			id, err := idAfter(it.Key(), 1+8)
			if err == nil {
				seals, err = v.packAt(id, it.Value())
			}
			if !yield(seals, err) || err != nil {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(nil, fmt.Errorf("catalog: read seals: %w", err))
		}
	}
}

// groupBounds are the keys between which the packs of a placement group are.
func groupBounds(group, groups int) (lower, upper []byte) {
	shift := 65 - bits.Len(uint(groups)) //nolint:gosec // a power of two, from 1
	at := func(group int) []byte {
		if group == groups {
			return []byte{rowSpread + 1}
		}
		return binary.BigEndian.AppendUint64([]byte{rowSpread}, uint64(group)<<shift) //nolint:gosec // below groups
	}
	return at(group), at(group + 1)
}
