package catalog

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// Keys returns the keys of a study, of all origins or of one, in the order of commit;
// none of one that is deleted.
func (v *View) Keys(study, origin string) ([]StudyKey, error) {
	deleted, err := v.hidesKeys(study)
	if err != nil || deleted {
		return nil, err
	}
	return v.keys(study, origin)
}

func (v *View) keys(study, origin string) ([]StudyKey, error) {
	prefix := uidKey(rowKeyStudy, study)
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("catalog: read keys: %w", err)
	}
	defer it.Close()
	var keys []StudyKey
	for it.First(); it.Valid(); it.Next() {
		k, err := v.keyAfter(it.Key(), len(prefix))
		if err != nil {
			return nil, err
		}
		if k.Study == study && (origin == "" || k.Origin == origin) {
			keys = append(keys, *k)
		}
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("catalog: read keys: %w", err)
	}
	slices.SortFunc(keys, func(a, b StudyKey) int { return cmp.Compare(a.At, b.At) })
	return keys, nil
}

// Key returns a key by its id; false when it is not known, or of a study that is
// deleted.
func (v *View) Key(id [16]byte) (StudyKey, bool, error) {
	row, err := get(v.at, keyKey(id))
	if err != nil || row == nil {
		return StudyKey{}, false, err
	}
	k, err := decodeKey(id, row)
	if err != nil {
		return StudyKey{}, false, err
	}
	if deleted, err := v.hidesKeys(k.Study); err != nil || deleted {
		return StudyKey{}, false, err
	}
	return *k, true, nil
}

// keyAfter reads the key whose id a posting ends in.
func (v *View) keyAfter(posting []byte, at int) (*StudyKey, error) {
	id, err := idAfter(posting, at)
	if err != nil {
		return nil, err
	}
	row, err := get(v.at, keyKey(id))
	if err == nil && row == nil {
		err = fault.New(fault.Corrupt, "catalog: a key is not where it should be")
	}
	if err != nil {
		return nil, err
	}
	return decodeKey(id, row)
}

// hidesKeys reports whether a study is deleted and nothing of it was accepted after.
func (v *View) hidesKeys(study string) (bool, error) {
	if !v.c.stones.Load() {
		return false, nil
	}
	stone, err := get(v.at, tombstoneKey(study, "", ""))
	if err != nil || stone == nil {
		return false, err
	}
	prefix := registryKey(KindAccepted, "") // few: each is an operator's decision
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return false, fmt.Errorf("catalog: read registry: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		a, err := DecodeAccepted(it.Value())
		if err != nil {
			return false, err
		}
		if a.Study == study {
			return false, nil
		}
	}
	if err := it.Error(); err != nil {
		return false, fmt.Errorf("catalog: read registry: %w", err)
	}
	return true, nil
}

// keysAtOnce is how many keys StudyKeys reads before it yields them.
const keysAtOnce = 512

// StudyKeys yields all keys whose place in the order of commit is above one, those of
// deleted studies too, in that order: to who keeps copies, and goes on behind the last
// At that it had. A key that was wrapped anew comes again. Between keys the catalogue
// is not held, and more are committed ([Catalog.Changed]).
//
// In another generation of the network, which a [Catalog.Replace] may have brought,
// the same places may be of other keys. Who finds another key at its place than it
// had there begins again at 0.
func (c *Catalog) StudyKeys(ctx context.Context, place uint64) iter.Seq2[StudyKey, error] {
	return func(yield func(StudyKey, error) bool) {
		for {
			keys, err := c.keysAfter(place)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(StudyKey{}, err)
				return
			}
			for _, k := range keys {
				if place = k.At; !yield(k, nil) {
					return
				}
			}
			if len(keys) < keysAtOnce {
				return
			}
		}
	}
}

// keysAfter reads the first of the keys above a place.
func (c *Catalog) keysAfter(place uint64) (keys []StudyKey, err error) {
	v := c.View()
	defer v.Close()
	if place == ^uint64(0) {
		return nil, nil
	}
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: keyOrderKey(place + 1), UpperBound: after([]byte{rowKeyOrder})})
	if err != nil {
		return nil, fmt.Errorf("catalog: read keys: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid() && len(keys) < keysAtOnce; it.Next() {
		k, err := v.keyAfter(it.Value(), 0)
		if err != nil {
			return nil, err
		}
		keys = append(keys, *k)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("catalog: read keys: %w", err)
	}
	return keys, nil
}
