package catalog

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// txn is one Apply under way: what it has read and changed, in memory, and the
// batch that it ends in. Reads of studies go through it, for commands of one
// Apply see each other's effects.
type txn struct {
	c       *Catalog
	batch   *pebble.Batch
	studies map[string]*studyState
	small   map[string][]byte // tombstone, study UID and series UID rows as this txn leaves them; nil: absent
	patient map[string]*patientDelta
	next    uint32
	totals  Totals
	stones  bool // there is, or was, any tombstone: most catalogues are spared the look-ups
}

// studyState is a study that a txn touches.
type studyState struct {
	t      *txn
	old    *study // as stored; nil when new
	oldRow []byte
	cur    *study
	loaded map[string]*seriesState
	all    bool // every stored series is loaded
	refold bool // the fold must be made anew from all series
}

// seriesState is a series that a txn touches.
type seriesState struct {
	oldRow  []byte // nil when new
	cur     *series
	changed bool
}

// patientDelta counts a patient's postings that a txn adds and drops.
type patientDelta struct {
	added   int
	dropped map[Order]bool
}

func (c *Catalog) begin() *txn {
	return &txn{
		c: c, batch: c.db.NewBatch(), studies: map[string]*studyState{}, small: map[string][]byte{},
		patient: map[string]*patientDelta{}, next: c.next, totals: c.Totals(), stones: c.stones.Load(),
	}
}

// study returns a study's state; nil when it is unknown and create is false.
func (t *txn) study(uid string, create bool) (*studyState, error) {
	if st := t.studies[uid]; st != nil {
		return st, nil
	}
	s, row, err := findStudy(t.c.db, uid)
	if err != nil || s == nil && !create {
		return nil, err
	}
	st := &studyState{t: t, old: s, oldRow: row, loaded: map[string]*seriesState{}}
	if s == nil {
		st.cur, st.all = &study{uid: uid, number: t.next}, true
		t.next++
	} else {
		st.cur = s.clone()
	}
	t.studies[uid] = st
	return st, nil
}

// clone copies what folding changes in place.
func (s *study) clone() *study {
	c := *s
	c.patients = slices.Clone(s.patients)
	c.modalities, c.classes, c.sites = slices.Clone(s.modalities), slices.Clone(s.classes), slices.Clone(s.sites)
	return &c
}

// findStudy reads a study record by UID, nil when unknown, with its row.
func findStudy(r pebble.Reader, uid string) (*study, []byte, error) {
	orders, err := get(r, uidKey(rowStudyUID, uid))
	if err != nil {
		return nil, nil, err
	}
	for ; len(orders) >= OrderBytes; orders = orders[OrderBytes:] {
		row, err := get(r, studyKey(Order(orders[:OrderBytes])))
		if err != nil {
			return nil, nil, err
		}
		if row == nil {
			continue
		}
		s, err := decodeStudy(row)
		if err != nil {
			return nil, nil, err
		}
		if s.uid == uid {
			return s, row, nil
		}
	}
	return nil, nil, nil
}

// findSeries returns a series' state, nil when unknown.
func (st *studyState) findSeries(uid string) (*seriesState, error) {
	if x := st.loaded[uid]; x != nil || st.all {
		return x, nil
	}
	row, err := get(st.t.c.db, seriesKey(st.old.number, uid))
	if err != nil || row == nil {
		return nil, err
	}
	x, err := decodeSeries(row, uid, st.old)
	if err != nil {
		return nil, err
	}
	st.loaded[uid] = &seriesState{oldRow: row, cur: x}
	return st.loaded[uid], nil
}

// loadAll reads every stored series that is not loaded yet.
func (st *studyState) loadAll() error {
	if st.all {
		return nil
	}
	prefix := seriesPrefix(st.old.number)
	it, err := st.t.c.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("catalog: read series: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		uid := string(it.Key()[len(prefix):])
		if st.loaded[uid] != nil {
			continue
		}
		row := bytes.Clone(it.Value())
		x, err := decodeSeries(row, uid, st.old)
		if err != nil {
			return err
		}
		st.loaded[uid] = &seriesState{oldRow: row, cur: x}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: read series: %w", err)
	}
	st.all = true
	return nil
}

// fold makes the study record the fold of its series again.
func (st *studyState) fold() error {
	if err := st.loadAll(); err != nil {
		return err
	}
	st.cur.reset()
	inOrder := slices.SortedFunc(maps.Values(st.loaded), func(a, b *seriesState) int {
		return cmp.Compare(a.cur.sequence, b.cur.sequence)
	})
	for _, x := range inOrder {
		if x.cur.visible() {
			st.cur.add(x.cur)
		}
	}
	return nil
}

// save writes what the transaction changed into its batch.
func (t *txn) save(index uint64) error {
	for _, uid := range slices.Sorted(maps.Keys(t.studies)) {
		if err := t.studies[uid].save(); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(t.small)) {
		if err := t.put([]byte(key), t.small[key]); err != nil {
			return err
		}
	}
	if err := t.countPatients(); err != nil {
		return err
	}
	m := meta{applied: index, next: t.next, indexer: t.c.indexer.Version(), totals: t.totals}
	return t.put([]byte{rowMeta}, m.encode())
}

// put sets a row, or deletes it when the value is nil.
func (t *txn) put(key, value []byte) (err error) {
	if value == nil {
		err = t.batch.Delete(key, nil)
	} else {
		err = t.batch.Set(key, value, nil)
	}
	if err != nil {
		return fmt.Errorf("catalog: apply: %w", err)
	}
	return nil
}

// read returns a small row as this transaction has it.
func (t *txn) read(key []byte) ([]byte, error) {
	if v, ok := t.small[string(key)]; ok {
		return v, nil
	}
	return get(t.c.db, key)
}

// addSeriesUID notes that a study has a series.
func (t *txn) addSeriesUID(series, study string) error {
	key, h := uidKey(rowSeriesUID, series), hash64(study)
	v, err := t.read(key)
	if err != nil {
		return err
	}
	for i := 0; i+hashBytes <= len(v); i += hashBytes {
		if bytes.Equal(v[i:i+hashBytes], h[:]) {
			return nil
		}
	}
	t.small[string(key)] = append(slices.Clip(v), h[:]...)
	return nil
}

// save writes a study's rows and postings by what differs from the stored ones.
func (st *studyState) save() error {
	if st.refold {
		if err := st.fold(); err != nil {
			return err
		}
	}
	shared := st.old != nil && st.cur.sharesUpper(st.old)
	if !shared { // series records lean on the study record
		if err := st.loadAll(); err != nil {
			return err
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(st.loaded)) {
		x := st.loaded[uid]
		if !x.changed && shared {
			continue
		}
		if row := x.cur.encode(st.cur); !bytes.Equal(row, x.oldRow) {
			if err := st.t.put(seriesKey(st.cur.number, uid), row); err != nil {
				return err
			}
		}
	}
	if err := st.saveRow(); err != nil {
		return err
	}
	st.total(st.old, -1)
	st.total(st.cur, +1)
	if shared && st.old.visible() == st.cur.visible() && slices.Equal(st.old.modalities, st.cur.modalities) {
		return nil
	}
	return st.savePostings()
}

func (st *studyState) saveRow() error {
	order := st.cur.order()
	row := st.cur.encode()
	if st.old != nil && st.old.order() == order {
		if bytes.Equal(row, st.oldRow) {
			return nil
		}
		return st.t.put(studyKey(order), row)
	}
	key := uidKey(rowStudyUID, st.cur.uid)
	orders, err := st.t.read(key)
	if err != nil {
		return err
	}
	var kept []byte
	for ; len(orders) >= OrderBytes; orders = orders[OrderBytes:] {
		if st.old == nil || Order(orders[:OrderBytes]) != st.old.order() {
			kept = append(kept, orders[:OrderBytes]...)
		}
	}
	st.t.small[string(key)] = append(kept, order[:]...)
	if st.old != nil {
		if err := st.t.put(studyKey(st.old.order()), nil); err != nil {
			return err
		}
	}
	return st.t.put(studyKey(order), row)
}

// total adds a study to the totals, or takes it out.
func (st *studyState) total(s *study, sign int) {
	if s == nil || !s.visible() {
		return
	}
	t := &st.t.totals
	if sign < 0 {
		t.Studies, t.Series, t.Instances, t.Bytes = t.Studies-1, t.Series-uint64(s.series), t.Instances-s.instances, t.Bytes-s.bytes
		return
	}
	t.Studies, t.Series, t.Instances, t.Bytes = t.Studies+1, t.Series+uint64(s.series), t.Instances+s.instances, t.Bytes+s.bytes
}

func (st *studyState) savePostings() error {
	var failed error
	keep := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	diff(postings(st.old, st.t.c.indexer), postings(st.cur, st.t.c.indexer), func(key []byte) {
		st.t.countPosting(key, true)
		keep(st.t.put(key, nil))
	}, func(key []byte) {
		st.t.countPosting(key, false)
		keep(st.t.put(key, []byte{}))
	})
	keep(st.t.c.words(st.cur, func(key []byte) error { return st.t.put(key, []byte{}) }))
	return failed
}

// countPosting notes patients that may have come or gone.
func (t *txn) countPosting(key []byte, dropped bool) {
	if key[0] != rowPatient {
		return
	}
	at := len(key) - OrderBytes
	d := t.patient[string(key[:at])]
	if d == nil {
		d = &patientDelta{dropped: map[Order]bool{}}
		t.patient[string(key[:at])] = d
	}
	if dropped {
		d.dropped[Order(key[at:])] = true
	} else {
		d.added++
	}
}

// countPatients brings the number of patients up to date: a patient is there
// while it has a posting.
func (t *txn) countPatients() error {
	if len(t.patient) == 0 {
		return nil
	}
	it, err := t.c.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rowPatient}, UpperBound: after([]byte{rowPatient})})
	if err != nil {
		return fmt.Errorf("catalog: read patients: %w", err)
	}
	defer it.Close()
	for _, prefix := range slices.Sorted(maps.Keys(t.patient)) {
		d := t.patient[prefix]
		before, kept := 0, d.added
		for it.SeekGE([]byte(prefix)); it.Valid() && bytes.HasPrefix(it.Key(), []byte(prefix)); it.Next() {
			before++
			if !d.dropped[Order(it.Key()[len(prefix):])] {
				kept++
			}
			if kept > 0 {
				break
			}
		}
		switch {
		case before == 0 && kept > 0:
			t.totals.Patients++
		case before > 0 && kept == 0:
			t.totals.Patients--
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: read patients: %w", err)
	}
	return nil
}
