package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// View is the catalogue at one moment, for one goroutine. It holds rows in
// memory and on disk while it is open: long answers open a new one now and then.
type View struct {
	c       *Catalog
	at      *pebble.Snapshot
	rows    *Stream
	patient *Stream // over all patients' postings
	streams []*Stream
}

// View opens a view. The caller closes it.
func (c *Catalog) View() *View {
	c.readers.enter()
	return &View{c: c, at: c.db.NewSnapshot()}
}

// Close closes the view and its streams.
func (v *View) Close() error {
	defer v.c.readers.leave()
	var errs []error
	for _, s := range v.streams {
		errs = append(errs, s.it.Close())
	}
	v.streams, v.rows, v.patient = nil, nil, nil
	return errors.Join(append(errs, v.at.Close())...)
}

// Stream yields the orders of the studies under one prefix.
type Stream struct {
	it  *pebble.Iterator
	key []byte // the prefix, with room for an order

	placed bool  // the iterator stands at, or after, the first key at or above asked
	ended  bool  // there is none
	asked  Order // of the last SeekGE
	at     Order // where the iterator stands
	steps  int   // how many keys to step over before seeking is tried
}

// maxSteps bounds the keys that a stream steps over: a step costs a fifth of a seek.
const maxSteps = 8

func (v *View) stream(prefix []byte) (*Stream, error) {
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, fmt.Errorf("catalog: read: %w", err)
	}
	s := &Stream{it: it, key: append(make([]byte, 0, len(prefix)+OrderBytes), prefix...), steps: maxSteps / 2}
	v.streams = append(v.streams, s)
	return s, nil
}

// SeekGE returns the first order at or above o; false when there is none. It
// is fastest when o rises: near orders are stepped to, far ones sought.
func (s *Stream) SeekGE(o Order) (Order, bool, error) {
	if s.placed && bytes.Compare(s.asked[:], o[:]) <= 0 {
		s.asked = o
		if s.ended || bytes.Compare(o[:], s.at[:]) <= 0 {
			return s.at, !s.ended, nil
		}
		for range s.steps {
			if !s.take(s.it.Next()) || bytes.Compare(o[:], s.at[:]) <= 0 {
				s.steps = min(s.steps+1, maxSteps)
				return s.result()
			}
		}
		// Far: step less the next time, but try again now and then.
		if s.steps /= 2; s.steps == 0 && s.at[OrderBytes-1]%16 == 0 {
			s.steps = 2
		}
	}
	s.placed, s.asked = true, o
	s.take(s.it.SeekGE(append(s.key, o[:]...)))
	return s.result()
}

// take notes where the iterator stands, passing over keys that are no postings
// of the prefix itself.
func (s *Stream) take(ok bool) bool {
	at := len(s.key)
	for ; ok; ok = s.it.Next() {
		if key := s.it.Key(); len(key) == at+OrderBytes {
			s.at = Order(key[at:])
			break
		}
	}
	s.ended = !ok
	return ok
}

func (s *Stream) result() (Order, bool, error) {
	if !s.ended {
		return s.at, true, nil
	}
	if err := s.it.Error(); err != nil {
		s.placed = false
		return Order{}, false, fmt.Errorf("catalog: read: %w", err)
	}
	return Order{}, false, nil
}

// All streams every known study, hidden ones too.
func (v *View) All() (*Stream, error) { return v.stream([]byte{rowStudy}) }

// Postings streams the studies that have a term.
func (v *View) Postings(index byte, term string) (*Stream, error) {
	return v.stream(indexPrefix(index, term))
}

// Patient streams the studies of a patient; for the zero key, of the study that
// is its own patient. Hash collisions may bring in others.
func (v *View) Patient(p PatientKey, study string) (*Stream, error) {
	return v.stream(patientPrefix(p, study))
}

// NextOf returns the first of a patient's studies at or above an order, as
// [View.Patient] streams them, for those who ask about many patients.
func (v *View) NextOf(p PatientKey, study string, at Order) (Order, bool, error) {
	if v.patient == nil {
		s, err := v.stream([]byte{rowPatient})
		if err != nil {
			return Order{}, false, err
		}
		v.patient = s
	}
	prefix := patientPrefix(p, study)
	it := v.patient.it
	if it.SeekGE(append(prefix, at[:]...)) && bytes.HasPrefix(it.Key(), prefix) && len(it.Key()) == len(prefix)+OrderBytes {
		return Order(it.Key()[len(prefix):]), true, nil
	}
	if err := it.Error(); err != nil {
		return Order{}, false, fmt.Errorf("catalog: read: %w", err)
	}
	return Order{}, false, nil
}

// Study returns the study at an order; false when there is none that queries
// may see.
func (v *View) Study(o Order) (StudyRow, bool, error) {
	if v.rows == nil {
		s, err := v.All()
		if err != nil {
			return StudyRow{}, false, err
		}
		v.rows = s
	}
	found, ok, err := v.rows.SeekGE(o)
	if err != nil || !ok || found != o {
		return StudyRow{}, false, err
	}
	s, err := decodeStudy(bytes.Clone(v.rows.it.Value()))
	if err != nil || !s.visible() {
		return StudyRow{}, false, err
	}
	return StudyRow{s, v.c.utf8}, true, nil
}

// StudyOrders returns where the studies stand whose UIDs have the hashes of
// uids, usually one for each, in no order.
func (v *View) StudyOrders(uids ...string) ([]Order, error) {
	return v.orders(uidKeys(rowStudyUID, uids))
}

// SeriesOrders returns where the studies stand that may have one of the series,
// in no order.
func (v *View) SeriesOrders(uids ...string) ([]Order, error) {
	var keys [][]byte
	err := v.eachWithin(uidKeys(rowSeriesUID, uids), func(study []byte) {
		keys = append(keys, append([]byte{rowStudyUID}, study...))
	})
	if err != nil {
		return nil, err
	}
	return v.orders(keys)
}

// orders returns the orders that rows of study UIDs hold.
func (v *View) orders(keys [][]byte) ([]Order, error) {
	var orders []Order
	err := v.each(keys, func(row []byte) { orders = append(orders, ordersOf(row)...) })
	return orders, err
}

func uidKeys(row byte, uids []string) [][]byte {
	keys := make([][]byte, len(uids))
	for i, uid := range uids {
		keys[i] = uidKey(row, uid)
	}
	return keys
}

// each calls found with the rows of keys, which it sorts, as far as there are
// any: one iterator goes through all in their order, by the filters of tables.
// The row is valid during the call.
func (v *View) each(keys [][]byte, found func(row []byte)) error {
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, bytes.Compare)
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: keys[0], UpperBound: after(keys[len(keys)-1])})
	if err != nil {
		return fmt.Errorf("catalog: read: %w", err)
	}
	defer it.Close()
	for i, key := range keys {
		if i > 0 && bytes.Equal(key, keys[i-1]) {
			continue
		}
		if it.SeekPrefixGE(key) && bytes.Equal(it.Key(), key) {
			found(it.Value())
		} else if err := it.Error(); err != nil {
			return fmt.Errorf("catalog: read: %w", err)
		}
	}
	return nil
}

// eachWithin calls found with what stands behind prefixes, which it sorts, in
// the keys that begin with them. The suffix is valid during the call.
func (v *View) eachWithin(prefixes [][]byte, found func(suffix []byte)) error {
	if len(prefixes) == 0 {
		return nil
	}
	slices.SortFunc(prefixes, bytes.Compare)
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: prefixes[0], UpperBound: after(prefixes[len(prefixes)-1])})
	if err != nil {
		return fmt.Errorf("catalog: read: %w", err)
	}
	defer it.Close()
	for i, prefix := range prefixes {
		if i > 0 && bytes.Equal(prefix, prefixes[i-1]) {
			continue
		}
		for it.SeekGE(prefix); it.Valid() && bytes.HasPrefix(it.Key(), prefix); it.Next() {
			found(it.Key()[len(prefix):])
		}
		if err := it.Error(); err != nil {
			return fmt.Errorf("catalog: read: %w", err)
		}
	}
	return nil
}

func ordersOf(row []byte) []Order {
	var orders []Order
	for ; len(row) >= OrderBytes; row = row[OrderBytes:] {
		orders = append(orders, Order(row[:OrderBytes]))
	}
	return orders
}

// Collect returns the orders of all studies that have a term with a prefix,
// ascending, without duplicates; false when there are more than limit postings.
func (v *View) Collect(index byte, prefix string, limit int) ([]Order, bool, error) {
	lower := append([]byte{rowIndex, index}, prefix...)
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(lower)})
	if err != nil {
		return nil, false, fmt.Errorf("catalog: read: %w", err)
	}
	defer it.Close()
	var orders []Order
	for it.First(); it.Valid(); it.Next() {
		if len(orders) == limit {
			return nil, false, nil
		}
		if key := it.Key(); len(key) > OrderBytes+2 {
			orders = append(orders, Order(key[len(key)-OrderBytes:]))
		}
	}
	if err := it.Error(); err != nil {
		return nil, false, fmt.Errorf("catalog: read: %w", err)
	}
	slices.SortFunc(orders, func(a, b Order) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(orders), true, nil
}

// Terms returns the distinct terms of an index that keep accepts, in ascending
// order; false when the index has more than limit terms.
func (v *View) Terms(index byte, limit int, keep func(term string) bool) ([]string, bool, error) {
	lower := []byte{rowIndex, index}
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(lower)})
	if err != nil {
		return nil, false, fmt.Errorf("catalog: read: %w", err)
	}
	defer it.Close()
	var terms []string
	seen := 0
	for ok := it.First(); ok; {
		key := it.Key()
		end := bytes.IndexByte(key[len(lower):], 0)
		if end < 0 {
			ok = it.Next()
			continue
		}
		if seen++; seen > limit {
			return nil, false, nil
		}
		term := string(key[len(lower) : len(lower)+end])
		if keep(term) {
			terms = append(terms, term)
		}
		ok = it.SeekGE(append(append(slices.Clip(lower), term...), 1)) // terms hold no byte below 04
	}
	if err := it.Error(); err != nil {
		return nil, false, fmt.Errorf("catalog: read: %w", err)
	}
	return terms, true, nil
}

// Words returns the words with a prefix of an index's vocabulary, ascending;
// false when there are more than limit.
func (v *View) Words(index byte, prefix string, limit int) ([]string, bool, error) {
	lower := append([]byte{rowWord, index}, prefix...)
	it, err := v.at.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(lower)})
	if err != nil {
		return nil, false, fmt.Errorf("catalog: read: %w", err)
	}
	defer it.Close()
	var words []string
	for it.First(); it.Valid(); it.Next() {
		if len(words) == limit {
			return nil, false, nil
		}
		words = append(words, string(it.Key()[2:]))
	}
	if err := it.Error(); err != nil {
		return nil, false, fmt.Errorf("catalog: read: %w", err)
	}
	return words, true, nil
}

// Series yields the series of a study that queries may see, by ascending UID.
func (v *View) Series(r StudyRow) iter.Seq2[SeriesRow, error] {
	return func(yield func(SeriesRow, error) bool) {
		for x, err := range allSeries(v.at, r.s, v.c) {
			if err != nil {
				yield(SeriesRow{}, err)
				return
			}
			if x.visible() && !yield(SeriesRow{x, v.c.utf8}, nil) {
				return
			}
		}
	}
}

// allSeries yields every series record of a study by ascending UID.
func allSeries(r pebble.Reader, s *study, c *Catalog) iter.Seq2[*series, error] {
	return func(yield func(*series, error) bool) {
		prefix := seriesPrefix(s.number)
		it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
		if err != nil {
			yield(nil, fmt.Errorf("catalog: read series: %w", err))
			return
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			x, err := decodeSeries(bytes.Clone(it.Value()), string(it.Key()[len(prefix):]), s, *c.names.Load())
			if !yield(x, err) || err != nil {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(nil, fmt.Errorf("catalog: read series: %w", err))
		}
	}
}
