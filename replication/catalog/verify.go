package catalog

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// Verify reads every record and checks what must hold between them: each study
// is the fold of its series, every posting and UID row has its study and every
// study its postings, tombstones cover what they say, totals are the sums. It
// calls bad for each breach (without patient data) and changes nothing.
func (c *Catalog) Verify(ctx context.Context, bad func(error)) error {
	c.readers.enter()
	defer c.readers.leave()
	v := &verifier{c: c, bad: bad, snapshot: c.db.NewSnapshot(), postings: map[byte]uint64{}, patients: map[string]struct{}{}}
	defer v.snapshot.Close()
	row, err := get(v.snapshot, []byte{rowMeta})
	if err != nil {
		return err
	}
	var m meta
	if row != nil {
		if m, err = decodeMeta(row); err != nil {
			return err
		}
	}
	if err := v.each(ctx, []byte{rowStudy}, v.study); err != nil {
		return err
	}
	for _, kind := range []byte{rowPatient, rowIndex} {
		var found uint64
		if err := v.each(ctx, []byte{kind}, func(_, _ []byte) error { found++; return nil }); err != nil {
			return err
		}
		if found != v.postings[kind] {
			bad(fault.New(fault.Corrupt, "catalog: %d postings of kind %c, %d expected", found, kind, v.postings[kind]))
		}
	}
	if err := v.agreed(ctx, m); err != nil {
		return err
	}
	v.totals.Patients = uint64(len(v.patients))
	if m.totals != v.totals {
		bad(fault.New(fault.Corrupt, "catalog: totals are %+v, the records add up to %+v", m.totals, v.totals))
	}
	return nil
}

// agreed checks the state hash, to which the studies have been added, and that
// no mark stands for nothing.
func (v *verifier) agreed(ctx context.Context, m meta) error {
	for _, kind := range []byte{rowTombstone, rowRegistry, rowCursor, rowDecision} {
		err := v.each(ctx, []byte{kind}, func(key, value []byte) error {
			v.hash.add(appendAgreed(nil, key, value))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if v.hash != m.hash {
		v.bad(fault.New(fault.Corrupt, "catalog: the state hash is %x, the records add up to %x", m.hash.bytes(), v.hash.bytes()))
	}
	marks := 0
	if err := v.each(ctx, []byte{rowAhead}, func(_, _ []byte) error { marks++; return nil }); err != nil {
		return err
	}
	if marks != v.marks {
		v.bad(fault.New(fault.Corrupt, "catalog: %d series are marked, %d have sayings that are not committed", marks, v.marks))
	}
	return nil
}

// series adds what is committed of a series to the hash, and checks the mark of
// what is not.
func (v *verifier) series(s *study, x *series, ahead *uint32) error {
	for i := range x.origins {
		if x.origins[i].said != nil {
			v.hash.add(appendSaying(nil, s.uid, x.uid, &x.origins[i]))
		}
	}
	if !x.place().committed() {
		*ahead++
	}
	mark, err := get(v.snapshot, aheadKey(s.number, x.uid))
	if err != nil {
		return err
	}
	if (mark != nil) != x.isAhead() {
		v.bad(fault.New(fault.Corrupt, "catalog: a series of study %d is marked %t", s.number, mark != nil))
	}
	if x.isAhead() {
		v.marks++
	}
	return nil
}

type verifier struct {
	c        *Catalog
	hash     sum
	marks    int
	bad      func(error)
	snapshot *pebble.Snapshot
	totals   Totals
	postings map[byte]uint64
	patients map[string]struct{}
}

func (v *verifier) each(ctx context.Context, prefix []byte, fn func(key, value []byte) error) error {
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("catalog: verify: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: verify: %w", err)
	}
	return nil
}

// study checks one study with all that hangs on it. Reading errors end the
// check, breaches do not.
func (v *verifier) study(key, value []byte) error {
	s, err := decodeStudy(bytes.Clone(value))
	if err != nil {
		v.bad(err)
		return nil
	}
	if order := s.order(); !bytes.Equal(key, studyKey(order)) {
		v.bad(fault.New(fault.Corrupt, "catalog: study %d stands in the wrong place", s.number))
	}
	if found, _, err := findStudy(v.snapshot, s.uid); err != nil || found == nil || found.number != s.number {
		v.bad(fault.New(fault.Corrupt, "catalog: study %d is not found by its UID: %w", s.number, err))
	}
	again := s.clone()
	var list []*series
	for x, err := range allSeries(v.snapshot, s, v.c) {
		if err != nil {
			v.bad(fmt.Errorf("catalog: study %d: %w", s.number, err))
			return nil
		}
		list = append(list, x)
	}
	again.ahead = 0
	for _, x := range list {
		covered := false
		for _, uid := range [...]string{"", x.uid} {
			stone, err := get(v.snapshot, tombstoneKey(s.uid, uid, ""))
			if err != nil {
				return err
			}
			covered = covered || stone != nil
		}
		if covered {
			accepted, err := get(v.snapshot, registryKey(KindAccepted, AcceptedName(s.uid, x.uid)))
			if err != nil {
				return err
			}
			covered = accepted == nil
		}
		if x.deleted != covered {
			v.bad(fault.New(fault.Corrupt, "catalog: a series of study %d is hidden %t, tombstones say %t", s.number, x.deleted, covered))
		}
		if err := v.series(s, x, &again.ahead); err != nil {
			return err
		}
	}
	again.fold(list)
	if len(list) == 0 {
		v.bad(fault.New(fault.Corrupt, "catalog: study %d has no series", s.number))
	}
	if !bytes.Equal(again.encode(), value) {
		v.bad(fault.New(fault.Corrupt, "catalog: study %d is not the fold of its series", s.number))
	}
	if s.visible() {
		v.totals.Studies++
		v.totals.Series += uint64(s.series)
		v.totals.Instances += s.instances
		v.totals.Bytes += s.bytes
	}
	for _, posting := range postings(s, v.c.indexer) {
		v.postings[posting[0]]++
		if posting[0] == rowPatient {
			v.patients[string(posting[:len(posting)-OrderBytes])] = struct{}{}
		}
		row, err := get(v.snapshot, posting)
		if err != nil {
			return err
		}
		if row == nil {
			v.bad(fault.New(fault.Corrupt, "catalog: study %d lacks a posting", s.number))
		}
	}
	return nil
}
