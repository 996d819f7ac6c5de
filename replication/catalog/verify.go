package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
)

// Verify reads every record and checks what must hold between them: each study
// is the fold of its series, every posting and UID row has its study and every
// study its postings, tombstones cover what they say, each pack has its key and is
// found by its id, totals are the sums. It
// calls bad for each breach (without patient data), one call at a time, and
// changes nothing.
func (c *Catalog) Verify(ctx context.Context, bad func(error)) error {
	c.readers.enter()
	defer c.readers.leave()
	v := &verifier{c: c, snapshot: c.db.NewSnapshot(), seed: maphash.MakeSeed(), report: bad}
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
	if v.stones, err = v.any(rowTombstone); err != nil {
		return err
	}
	if v.marked, err = v.any(rowAhead); err != nil {
		return err
	}
	all, found, err := v.walk(ctx)
	if err != nil {
		return err
	}
	if all.postings != found.postings {
		if err := v.compare(ctx); err != nil {
			return err
		}
	}
	if err := v.sealed(ctx, m, &all); err != nil {
		return err
	}
	if err := v.agreed(ctx, m, &all); err != nil {
		return err
	}
	if all.totals.Patients = found.patients; m.totals != all.totals {
		v.bad(fault.New(fault.Corrupt, "catalog: totals are %+v, the records add up to %+v", m.totals, all.totals))
	}
	return nil
}

// verifier is one Verify.
type verifier struct {
	c        *Catalog
	snapshot *pebble.Snapshot
	seed     maphash.Seed
	stones   bool // there is any tombstone: most catalogues are spared the look-ups
	marked   bool // there is any mark; likewise

	mu     sync.Mutex // held over report
	report func(error)
}

func (v *verifier) bad(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report(err)
}

// posted is a set of postings: how many, and the sum of hashes under a seed that
// nobody knows. It spares a look-up for each.
type posted struct{ count, sum uint64 }

func (p *posted) add(hash uint64) { p.count, p.sum = p.count+1, p.sum+hash }

// tally is what studies add up to.
type tally struct {
	hash     sum
	marks    int
	totals   Totals // patients left out
	postings posted
	scratch  []byte
	hashes   []uint64
}

// found is what the rows of postings add up to.
type found struct {
	postings posted
	patients uint64
}

// walk checks every study, and reads every posting beside.
func (v *verifier) walk(ctx context.Context) (all tally, there found, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return v.studies(ctx, &all) })
	group.Go(func() (err error) {
		there, err = v.found(ctx)
		return err
	})
	err = group.Wait() // before the results are read
	return all, there, err
}

// studies checks all studies.
func (v *verifier) studies(ctx context.Context, t *tally) (err error) {
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: []byte{rowSeries}, UpperBound: after([]byte{rowSeries})})
	if err != nil {
		return fmt.Errorf("catalog: verify: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	return v.each(ctx, []byte{rowStudy}, func(key, value []byte) error { return v.study(key, value, it, t) })
}

// found reads all postings.
func (v *verifier) found(ctx context.Context) (f found, err error) {
	var last []byte
	err = v.each(ctx, []byte{rowPatient}, func(key, _ []byte) error {
		f.postings.add(maphash.Bytes(v.seed, key))
		if prefix := key[:max(0, len(key)-OrderBytes)]; !bytes.Equal(prefix, last) {
			last = append(last[:0], prefix...)
			f.patients++
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	return f, v.each(ctx, []byte{rowIndex}, func(key, _ []byte) error {
		f.postings.add(maphash.Bytes(v.seed, key))
		return nil
	})
}

// compare tells which postings are missing, or that there are others.
func (v *verifier) compare(ctx context.Context) error {
	expected := map[byte]uint64{}
	err := v.each(ctx, []byte{rowStudy}, func(_, value []byte) error {
		s, err := decodeStudy(bytes.Clone(value))
		if err != nil {
			return nil //nolint:nilerr // it is a breach that was told
		}
		for _, posting := range postings(s, v.c.indexer) {
			expected[posting[0]]++
			row, err := get(v.snapshot, posting)
			if err != nil {
				return err
			}
			if row == nil {
				v.bad(fault.New(fault.Corrupt, "catalog: study %d lacks a posting", s.number))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, kind := range []byte{rowPatient, rowIndex} {
		var there uint64
		if err := v.each(ctx, []byte{kind}, func(_, _ []byte) error { there++; return nil }); err != nil {
			return err
		}
		if there != expected[kind] {
			v.bad(fault.New(fault.Corrupt, "catalog: %d postings of kind %c, %d expected", there, kind, expected[kind]))
		}
	}
	return nil
}

// agreed checks the state hash, to which studies, keys and packs have been added, and that
// no mark stands for nothing.
func (v *verifier) agreed(ctx context.Context, m meta, all *tally) error {
	for _, kind := range []byte{rowTombstone, rowRegistry, rowCursor, rowDecision, rowClock, rowSeen, rowPurged, rowForgotten, rowEmptied} {
		err := v.each(ctx, []byte{kind}, func(key, value []byte) error {
			all.hash.add(appendAgreed(nil, key, value))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if all.hash != m.hash {
		v.bad(fault.New(fault.Corrupt, "catalog: the state hash is %x, the records add up to %x", m.hash.bytes(), all.hash.bytes()))
	}
	marks := 0
	if err := v.each(ctx, []byte{rowAhead}, func(_, _ []byte) error { marks++; return nil }); err != nil {
		return err
	}
	if marks != all.marks {
		v.bad(fault.New(fault.Corrupt, "catalog: %d series are marked, %d have sayings that are not committed", marks, all.marks))
	}
	return nil
}

// any reports whether there is a row of a kind.
func (v *verifier) any(kind byte) (bool, error) {
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: after([]byte{kind})})
	if err != nil {
		return false, fmt.Errorf("catalog: verify: %w", err)
	}
	is := it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return false, fmt.Errorf("catalog: verify: %w", err)
	}
	return is, nil
}

func (v *verifier) each(ctx context.Context, prefix []byte, fn func(key, value []byte) error) error {
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("catalog: verify: %w", err)
	}
	defer it.Close()
	for n, ok := 0, it.First(); ok; n, ok = n+1, it.Next() {
		if n%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
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
func (v *verifier) study(key, value []byte, it *pebble.Iterator, t *tally) error {
	s, err := decodeStudy(value)
	if err != nil {
		v.bad(err)
		return nil
	}
	order := s.order()
	if !bytes.Equal(key, studyKey(order)) {
		v.bad(fault.New(fault.Corrupt, "catalog: study %d stands in the wrong place", s.number))
	}
	if err := v.named(s, order); err != nil {
		return err
	}
	list, err := v.seriesOf(s, it)
	if err != nil {
		v.bad(fmt.Errorf("catalog: study %d: %w", s.number, err))
		return nil
	}
	again := s.clone()
	again.ahead = 0
	for _, x := range list {
		covered, err := v.covered(s.uid, x.uid)
		if err != nil {
			return err
		}
		if x.deleted != covered {
			v.bad(fault.New(fault.Corrupt, "catalog: a series of study %d is hidden %t, tombstones say %t", s.number, x.deleted, covered))
		}
		if err := v.series(s, x, t, &again.ahead); err != nil {
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
		t.totals.Studies++
		t.totals.Series += uint64(s.series)
		t.totals.Instances += s.instances
		t.totals.Bytes += s.bytes
	}
	t.hashes = t.hashes[:0]
	eachPosting(s, v.c.indexer, func(key []byte) { t.hashes = append(t.hashes, maphash.Bytes(v.seed, key)) })
	slices.Sort(t.hashes) // a key that comes twice is one posting
	for _, hash := range slices.Compact(t.hashes) {
		t.postings.add(hash)
	}
	return nil
}

// named checks that a study is found by its UID.
func (v *verifier) named(s *study, order Order) error {
	orders, err := get(v.snapshot, uidKey(rowStudyUID, s.uid))
	if err != nil {
		return err
	}
	if bytes.Equal(orders, order[:]) { // the only one with that hash
		return nil
	}
	if found, _, err := studyAt(v.snapshot, s.uid, orders); err != nil || found == nil || found.number != s.number {
		v.bad(fault.New(fault.Corrupt, "catalog: study %d is not found by its UID: %w", s.number, err))
	}
	return nil
}

// seriesOf reads the series of a study.
func (v *verifier) seriesOf(s *study, it *pebble.Iterator) (list []*series, err error) {
	prefix, names := seriesPrefix(s.number), *v.c.names.Load()
	for ok := it.SeekGE(prefix); ok && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
		x, err := decodeSeries(bytes.Clone(it.Value()), string(it.Key()[len(prefix):]), s, names)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, it.Error()
}

// covered reports whether tombstones hide a series.
func (v *verifier) covered(study, series string) (bool, error) {
	return coveredIn(v.snapshot, study, series, v.stones)
}

// series adds what is committed of a series to the hash, and checks the mark of
// what is not.
func (v *verifier) series(s *study, x *series, t *tally, ahead *uint32) error {
	for i := range x.origins {
		if x.origins[i].said != nil {
			t.scratch = appendSaying(t.scratch[:0], s.uid, x.uid, &x.origins[i])
			t.hash.add(t.scratch)
		}
	}
	if !x.place().committed() {
		*ahead++
	}
	var mark []byte
	if v.marked {
		var err error
		if mark, err = get(v.snapshot, aheadKey(s.number, x.uid)); err != nil {
			return err
		}
	}
	if (mark != nil) != x.isAhead() {
		v.bad(fault.New(fault.Corrupt, "catalog: a series of study %d is marked %t", s.number, mark != nil))
	}
	if x.isAhead() {
		t.marks++
	}
	return nil
}
