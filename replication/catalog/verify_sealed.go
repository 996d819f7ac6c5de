package catalog

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"

	"pelago/cluster/fault"
)

// sealed checks keys and packs, and adds them to the state hash: each is found by its
// postings and there are no others, each pack has its key, totals are the sums.
func (v *verifier) sealed(ctx context.Context, m meta, all *tally) error {
	var expected, found posted
	var s Sealed
	if err := v.keys(ctx, all, &s, &expected); err != nil {
		return err
	}
	if err := v.packs(ctx, all, &s, &expected); err != nil {
		return err
	}
	if err := v.gone(ctx, &expected); err != nil {
		return err
	}
	for _, kind := range []byte{rowKeyStudy, rowKeyOrder, rowSpread, rowGone} {
		err := v.each(ctx, []byte{kind}, func(key, value []byte) error {
			found.add(v.hashRow(key, value))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if expected != found {
		v.bad(fault.New(fault.Corrupt, "catalog: keys and packs need %d postings, there are %d, or others", expected.count, found.count))
	}
	if s.lastKey > m.sealed.lastKey {
		v.bad(fault.New(fault.Corrupt, "catalog: a key stands at %d, the last was given %d", s.lastKey, m.sealed.lastKey))
	}
	if s.lastKey = m.sealed.lastKey; s != m.sealed {
		v.bad(fault.New(fault.Corrupt, "catalog: totals of keys and packs are %+v, the records add up to %+v", m.sealed, s))
	}
	return nil
}

// gone checks what was purged and forgotten: nothing of it is here any more.
func (v *verifier) gone(ctx context.Context, expected *posted) error {
	for kind, row := range map[byte]byte{gonePack: rowPurged, goneStudyKey: rowForgotten} {
		err := v.each(ctx, []byte{row}, func(key, value []byte) error {
			id, err := idAfter(key, 1)
			if err != nil {
				v.bad(err)
				return nil
			}
			p, err := decodePurged(value)
			if err != nil {
				v.bad(err)
				return nil
			}
			expected.add(v.hashRow(goneKey(p.index, kind, id), nil))
			left := spreadKey(id)
			if kind == goneStudyKey {
				left = keyKey(id)
			}
			there, err := get(v.snapshot, left)
			if err == nil && there != nil {
				v.bad(fault.New(fault.Corrupt, "catalog: what was given up by entry %d is here", p.index))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) hashRow(key, value []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(v.seed)
	_, _ = h.Write(key) // never fails
	_, _ = h.Write(value)
	return h.Sum64()
}

func (v *verifier) keys(ctx context.Context, all *tally, s *Sealed, expected *posted) error {
	return v.each(ctx, []byte{rowKey}, func(key, value []byte) error {
		all.scratch = appendAgreed(all.scratch[:0], key, value)
		all.hash.add(all.scratch)
		id, err := idAfter(key, 1)
		if err != nil {
			v.bad(err)
			return nil
		}
		k, err := decodeKey(id, value)
		if err != nil {
			v.bad(err)
			return nil
		}
		s.Keys, s.lastKey = s.Keys+1, max(s.lastKey, k.At)
		expected.add(v.hashRow(keyOrderKey(k.At), k.ID[:]))
		expected.add(v.hashRow(keyStudyKey(k.Study, k.ID), nil))
		return nil
	})
}

func (v *verifier) packs(ctx context.Context, all *tally, s *Sealed, expected *posted) error {
	return v.each(ctx, []byte{rowPack}, func(key, value []byte) error {
		all.scratch = appendAgreed(all.scratch[:0], key, value)
		all.hash.add(all.scratch)
		p, err := decodePack(key, value)
		if err != nil {
			v.bad(err)
			return nil
		}
		s.count(p.size, p.spare(), +1)
		expected.add(v.hashRow(spreadKey(p.id), placeIn(key)))
		return v.pack(p, key)
	})
}

// pack checks one pack. Reading errors end the check, breaches do not.
func (v *verifier) pack(p *pack, key []byte) error {
	if !bytes.Equal(key, packKey(p.study, p.series, p.id)) {
		v.bad(fault.New(fault.Corrupt, "catalog: seals of a pack stand in the wrong place"))
	}
	for i := range p.stripes {
		f := p.fact(&p.stripes[i])
		if err := f.check(); err != nil {
			v.bad(fmt.Errorf("catalog: what is committed of a pack: %w", err))
		}
	}
	row, err := get(v.snapshot, keyKey(p.key))
	if err != nil {
		return err
	}
	k, err := decodeKey(p.key, row)
	if err != nil {
		v.bad(fmt.Errorf("catalog: the key of a pack: %w", err))
	} else if k == nil || k.Study != p.study || k.Origin != p.origin {
		v.bad(fault.New(fault.Corrupt, "catalog: a pack lacks its key"))
	}
	return nil
}
