package catalog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"pelago/replication"
)

// txn is one Apply under way: what it has read and changed, in memory, and the
// rows that it ends in. Reads of studies go through it, for commands of one
// Apply see each other's effects.
type txn struct {
	c       *Catalog
	at      pebble.Reader // what is committed
	rows    *rows         // nil: it only reads
	studies map[string]*studyState
	touched []*studyState     // the same, in the order in which commands named them
	small   map[string][]byte // small records and study UID rows as this txn leaves them; nil: absent
	patient map[string]*patientDelta
	names   []name // that have no number yet, in the order of those that they get
	next    uint32
	totals  Totals
	sealed  Sealed
	slots   []slotBytes
	hash    sum
	founded bool
	stones  bool // there is, or was, any tombstone: most catalogues are spared the look-ups
	ticked  bool // the clock has begun: likewise of what is purged
	facts   int
	scratch []byte

	// names of the records of accepted versions by study; nil: not read yet
	accepted map[string][]string

	registered bool // a registry record is written
	buried     bool // a tombstone is written, or taken back
}

// studyState is a study that a txn touches.
type studyState struct {
	t      *txn
	old    *study // as stored; nil when new
	oldRow []byte
	orders []byte // the row of its UID as stored
	cur    *study
	loaded map[string]*seriesState
	all    bool // every stored series is loaded
	refold bool // the fold must be made anew from all series
	gone   bool // nothing is said of any series any more
}

// seriesState is a series that a txn touches.
type seriesState struct {
	oldRow  []byte  // nil when new
	marked  bool    // that it has sayings that are not committed yet
	cur     *series // nil: nothing is said of it any more
	changed bool
}

// patientDelta counts a patient's postings that a txn adds and drops.
type patientDelta struct {
	added   int
	dropped map[Order]bool
}

func (c *Catalog) begin() *txn {
	c.rows.reset()
	return &txn{
		c: c, at: c.db, rows: &c.rows, studies: map[string]*studyState{}, small: map[string][]byte{},
		patient: map[string]*patientDelta{}, next: c.next, totals: c.Totals(), sealed: c.Sealed(), stones: c.stones.Load(), ticked: c.ticked.Load(),
		hash: c.state.Load().hash, founded: c.founded.Load(),
	}
}

// study returns a study's state; nil when it is unknown and create is false.
func (t *txn) study(uid string, create bool) (*studyState, error) {
	if st := t.studies[uid]; st != nil {
		return st, nil
	}
	orders, err := get(t.at, uidKey(rowStudyUID, uid))
	if err != nil {
		return nil, err
	}
	s, row, err := studyAt(t.at, uid, orders)
	if err != nil || s == nil && !create {
		return nil, err
	}
	st := &studyState{t: t, old: s, oldRow: row, orders: orders, loaded: map[string]*seriesState{}}
	if s == nil {
		st.cur, st.all = &study{uid: uid, number: t.next}, true
		t.next++
	} else {
		st.cur = s.clone()
	}
	t.studies[uid], t.touched = st, append(t.touched, st)
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
	return studyAt(r, uid, orders)
}

// studyAt is findStudy for who has read the row of the UID.
func studyAt(r pebble.Reader, uid string, orders []byte) (*study, []byte, error) {
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
	row, err := get(st.t.at, seriesKey(st.old.number, uid))
	if err != nil || row == nil {
		return nil, err
	}
	return st.load(uid, row)
}

// load decodes a stored series.
func (st *studyState) load(uid string, row []byte) (*seriesState, error) {
	x, err := decodeSeries(row, uid, st.old, *st.t.c.names.Load())
	if err != nil {
		return nil, err
	}
	st.loaded[uid] = &seriesState{oldRow: row, cur: x, marked: x.isAhead()}
	return st.loaded[uid], nil
}

// loadAll reads every stored series that is not loaded yet.
func (st *studyState) loadAll() error {
	if st.all {
		return nil
	}
	prefix := seriesPrefix(st.old.number)
	it, err := st.t.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("catalog: read series: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		uid := string(it.Key()[len(prefix):])
		if st.loaded[uid] != nil {
			continue
		}
		if _, err := st.load(uid, bytes.Clone(it.Value())); err != nil {
			return err
		}
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
	var all []*series
	for _, x := range st.loaded {
		if x.cur != nil {
			all = append(all, x.cur)
		}
	}
	st.cur.fold(all)
	st.gone = len(all) == 0
	return nil
}

// fold makes the record the fold of series, which it sorts.
func (s *study) fold(all []*series) {
	s.reset()
	slices.SortFunc(all, func(a, b *series) int { return a.place().compare(b.place()) })
	for _, x := range all {
		if x.visible() {
			s.add(x)
		}
	}
}

// save gathers the rows of what the transaction changed.
func (t *txn) save(at replication.Position) error {
	for _, st := range t.touched {
		if err := st.save(); err != nil {
			return err
		}
	}
	for key, value := range t.small {
		t.rows.put([]byte(key), value)
	}
	if err := t.countPatients(); err != nil {
		return err
	}
	m := meta{
		index: at.Index, term: at.Term, next: t.next, indexer: t.c.indexer.Version(), founded: t.founded, ticked: t.ticked, totals: t.totals, sealed: t.sealed, hash: t.hash,
	}
	t.rows.set([]byte{rowMeta}, m.encode())
	// Members are many and seldom change.
	if known := t.c.state.Load().position; at.MembersIndex != known.MembersIndex || !slices.Equal(at.Members, known.Members) {
		t.rows.set([]byte{rowPosition}, at.Encode())
	}
	return nil
}

// read returns a small row as this transaction has it.
func (t *txn) read(key []byte) ([]byte, error) {
	if v, ok := t.small[string(key)]; ok {
		return v, nil
	}
	return get(t.at, key)
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
	for uid, x := range st.loaded {
		if x.changed || !shared {
			st.saveSeries(uid, x)
		}
	}
	st.saveRow()
	st.total(st.old, -1)
	st.total(st.cur, +1)
	if shared && st.old.visible() == st.cur.visible() && slices.Equal(st.old.modalities, st.cur.modalities) {
		return nil
	}
	st.savePostings()
	return nil
}

// saveSeries writes a series' row, and the mark that Adopt goes by.
func (st *studyState) saveSeries(uid string, x *seriesState) {
	key, rows := seriesKey(st.cur.number, uid), st.t.rows
	if x.cur == nil {
		if x.oldRow != nil {
			rows.drop(key)
		}
		rows.drop(seriesUIDKey(uid, st.cur.uid))
	} else if row := x.cur.encode(st.cur, st.t.number); !bytes.Equal(row, x.oldRow) {
		rows.set(key, row)
	}
	marked := x.cur != nil && x.cur.isAhead()
	switch mark := aheadKey(st.cur.number, uid); {
	case marked && !x.marked:
		rows.set(mark, []byte(st.cur.uid))
	case x.marked && !marked:
		rows.drop(mark)
	}
}

func (st *studyState) saveRow() {
	order := st.cur.order()
	row := st.cur.encode()
	if !st.gone && st.old != nil && st.old.order() == order {
		if !bytes.Equal(row, st.oldRow) {
			st.t.rows.set(studyKey(order), row)
		}
		return
	}
	key := uidKey(rowStudyUID, st.cur.uid)
	orders, ok := st.t.small[string(key)] // of another study of this transaction whose UID has the same hash
	if !ok {
		orders = st.orders
	}
	var kept []byte
	for ; len(orders) >= OrderBytes; orders = orders[OrderBytes:] {
		if st.old == nil || Order(orders[:OrderBytes]) != st.old.order() {
			kept = append(kept, orders[:OrderBytes]...)
		}
	}
	if st.old != nil {
		st.t.rows.drop(studyKey(st.old.order()))
	}
	if !st.gone {
		kept = append(kept, order[:]...)
		st.t.rows.set(studyKey(order), row)
	}
	st.t.small[string(key)] = kept
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

// savePostings writes the difference between the postings of the stored record
// and of the new one. A new study has no old ones, so its need no comparing: in
// what order and how often a key is named is settled where all rows are sorted.
func (st *studyState) savePostings() {
	t := st.t
	put := func(key []byte) {
		t.countPosting(key, false)
		t.rows.set(key, nil)
	}
	if st.old == nil || !st.old.visible() {
		eachPosting(st.cur, t.c.indexer, put)
	} else {
		diff(postings(st.old, t.c.indexer), postings(st.cur, t.c.indexer), func(key []byte) {
			t.countPosting(key, true)
			t.rows.drop(key)
		}, put)
	}
	t.c.words(st.cur, func(key []byte) { t.rows.set(key, nil) })
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
	it, err := t.at.NewIter(&pebble.IterOptions{LowerBound: []byte{rowPatient}, UpperBound: after([]byte{rowPatient})})
	if err != nil {
		return fmt.Errorf("catalog: read patients: %w", err)
	}
	defer it.Close()
	for _, prefix := range slices.Sorted(maps.Keys(t.patient)) {
		d := t.patient[prefix]
		if len(d.dropped) == 0 && t.c.patients.has(prefix) {
			continue
		}
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
		t.c.patients.note(prefix, kept > 0)
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
