package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/klauspost/compress/s2"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/recent"
)

// The headers of a series are nearly the same, and those of some makers are as
// long as their pixels. So a header record rests by reference: as an S2 block
// whose dictionary is the record of an earlier arrival of its series, which
// rests whole. Such a row is a few hundred bytes, in the log, in tables and in
// the cache (docs/formats, "store").
//
// A row that others refer to stays when its instance is dropped, until the last
// of them is: rowReference names who refers to whom, rowKept what was dropped.

// Forms of a header row, its first byte.
const (
	headerWhole = 1 // | S2 block
	headerLike  = 2 // | number BE64 of the instance whose record is the dictionary | S2 block
)

const (
	// maxHeader bounds a header record: staging takes no longer ones.
	maxHeader = 128 << 20
	// maxDictionary is how much of a record serves as dictionary: what S2 can use.
	maxDictionary = s2.MaxDictSize
	// seriesBytes is the memory for the records that arrivals are written
	// against: about a hundred series that come in at the same time.
	seriesBytes = 4 << 20
	// dictionaryBytes is the memory for those that header rows are read with.
	dictionaryBytes = 2 << 20
	// dictionaryTable is what a dictionary takes beside its bytes to write with.
	dictionaryTable = 33 << 10
)

// headers is what is remembered of header rows.
type headers struct {
	// choosing is held for reading from the choice of a reference until the
	// batch that refers to it is applied, and taken for writing by whoever drops
	// an instance: after that, nobody begins to refer to it. Held over a batch
	// that is not synced.
	choosing sync.RWMutex
	mending  sync.Mutex                            // one at a time reads an instance to remake its header; held over I/O, before changing
	series   recent.Values[seriesName, *reference] // what arrivals of a series are written against
	read     recent.Values[uint64, *reference]     // what rows were read with, by number
}

func newHeaders() *headers {
	h := &headers{}
	h.series.Limit, h.read.Limit = seriesBytes, dictionaryBytes
	return h
}

// reference is a header record as a dictionary for others.
type reference struct {
	number uint64
	dict   *s2.Dict
}

// newReference makes a dictionary of a header record; nil if it is too short.
func newReference(number uint64, record []byte) *reference {
	dict := s2.MakeDictManual(record[:min(len(record), maxDictionary)], 0)
	if dict == nil {
		return nil
	}
	return &reference{number, dict}
}

// wholeHeader returns the row of a header record that depends on no other. It is
// in commit frames too.
func wholeHeader(record []byte) []byte {
	row := make([]byte, 1+s2.MaxEncodedLen(len(record)))
	row[0] = headerWhole
	return row[:1+len(s2.EncodeBetter(row[1:], record))]
}

// like returns the row of a header record that refers to this one, or nil if
// that wins nothing worth the dependence. What it returns was read back.
func (f *reference) like(record, whole []byte) []byte {
	row := binary.BigEndian.AppendUint64([]byte{headerLike}, f.number)
	row = append(row, f.dict.Encode(nil, record)...)
	if len(row) > len(whole)/2 {
		return nil
	}
	if back, err := f.record(row[9:]); err != nil || !bytes.Equal(back, record) {
		return nil
	}
	return row
}

// record decodes a block that was written against the reference.
func (f *reference) record(block []byte) ([]byte, error) {
	if err := checkBlock(block); err != nil {
		return nil, err
	}
	record, err := f.dict.Decode(nil, block)
	if err != nil {
		return nil, errHeaderRow(err)
	}
	return record, nil
}

// checkBlock refuses an S2 block that claims to be longer than a record can be.
func checkBlock(block []byte) error {
	if n, err := s2.DecodedLen(block); err != nil || n > maxHeader {
		return errHeaderRow(err)
	}
	return nil
}

func errHeaderRow(cause error) error {
	if cause == nil {
		cause = s2.ErrTooLarge
	}
	return fault.New(fault.Corrupt, "store: a header row that does not parse: %w", cause)
}

// openWhole returns the record of a row that depends on no other.
func openWhole(row []byte) ([]byte, error) {
	if len(row) > 0 && row[0] > headerLike {
		return nil, fault.New(fault.Unsupported, "store: a header row of form %d, newer than %d", row[0], headerLike)
	}
	if len(row) == 0 || row[0] != headerWhole {
		return nil, fault.New(fault.Corrupt, "store: a header row that is not whole")
	}
	if err := checkBlock(row[1:]); err != nil {
		return nil, err
	}
	record, err := s2.Decode(nil, row[1:])
	if err != nil {
		return nil, errHeaderRow(err)
	}
	return record, nil
}

// refersTo returns whose record a row was written against, and the block; false
// for one that depends on none.
func refersTo(row []byte) (number uint64, block []byte, ok bool) {
	if len(row) < 9 || row[0] != headerLike {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(row[1:]), row[9:], true
}

// putHeader writes the header row of an arrival by reference if its series has
// one, else whole, and reports which. choosing is held for reading.
func (a *Archive) putHeader(b *pebble.Batch, r *archivepb.Instance, record, whole []byte) (like bool, err error) {
	row := whole
	if f, ok := a.headers.series.Get(seriesName{r.Study, r.Series}); ok {
		if short := f.like(record, whole); short != nil {
			row, like = short, true
			err = b.Set(keyReference(f.number, r.Number), nil, nil)
		}
	}
	return like, errors.Join(err, b.Set(keyNumber(rowHeader, r.Number), row, nil))
}

// offerHeader lets later arrivals of a series refer to one whose row is whole.
// choosing is held for reading since before that was applied.
func (a *Archive) offerHeader(r *archivepb.Instance, record []byte) {
	if f := newReference(r.Number, record); f != nil && r.State == archivepb.State_CANONICAL {
		a.headers.series.Offer(seriesName{r.Study, r.Series}, f, int64(min(len(record), maxDictionary)+dictionaryTable))
	}
}

// headerRecord returns an instance's header record; false if it has none.
func (a *Archive) headerRecord(number uint64) ([]byte, bool, error) {
	row, ok, err := a.get(keyNumber(rowHeader, number))
	if err != nil || !ok {
		return nil, false, err
	}
	of, block, like := refersTo(row)
	if !like {
		record, err := openWhole(row)
		return record, err == nil, err
	}
	f, err := a.reference(of)
	if err != nil {
		return nil, false, err
	}
	record, err := f.record(block)
	return record, err == nil, err
}

// reference returns what rows that refer to a number were written against.
func (a *Archive) reference(number uint64) (*reference, error) {
	if f, ok := a.headers.read.Get(number); ok {
		return f, nil
	}
	row, ok, err := a.get(keyNumber(rowHeader, number))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.Corrupt, "store: header row %d, which others refer to, is missing", number)
	}
	record, err := openWhole(row)
	if err != nil {
		return nil, err
	}
	f := newReference(number, record)
	if f == nil {
		return nil, fault.New(fault.Corrupt, "store: a header row of %d bytes cannot be referred to", len(record))
	}
	a.headers.read.Offer(number, f, int64(min(len(record), maxDictionary)))
	return f, nil
}

// verifyReference checks that a header row which refers to another is named by
// the row that keeps that one.
func (a *Archive) verifyReference(number uint64) error {
	row, _, err := a.get(keyNumber(rowHeader, number))
	if err != nil {
		return err
	}
	of, _, like := refersTo(row)
	if !like {
		return nil
	}
	_, ok, err := a.get(keyReference(of, number))
	if err == nil && !ok {
		err = fault.New(fault.Corrupt, "no row keeps the header row %d that its own refers to", of)
	}
	return err
}

// dropHeader takes the header row of an instance that is dropped, or notes that
// it has to stay while others refer to it. changing is held.
func (a *Archive) dropHeader(b *pebble.Batch, r *archivepb.Instance) error {
	a.headers.choosing.Lock() // until those who have chosen it have said so in their rows
	a.headers.series.Forget(seriesName{r.Study, r.Series}, func(f *reference) bool { return f.number == r.Number })
	a.headers.choosing.Unlock()

	row, _, err := a.get(keyNumber(rowHeader, r.Number))
	if err != nil && !isRot(err) {
		return err
	}
	if of, _, like := refersTo(row); like { // a rotten row's is dropped by dropReferences
		if err := b.Delete(keyReference(of, r.Number), nil); err != nil {
			return err
		}
	}
	alone, err := a.none(keyNumber(rowReference, r.Number))
	if err != nil {
		return err
	}
	if !alone {
		return b.Set(keyNumber(rowKept, r.Number), nil, nil)
	}
	return b.Delete(keyNumber(rowHeader, r.Number), nil)
}

// dropKept takes the header rows of dropped instances that none refers to any
// more.
func (a *Archive) dropKept() error {
	a.changing.Lock()
	defer a.changing.Unlock()
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := a.each([]byte{rowKept}, func(key, _ []byte) error {
		number := numberOf(key)
		alone, err := a.dropReferences(batch, number)
		if err != nil || !alone {
			return err
		}
		return errors.Join(batch.Delete(key, nil), batch.Delete(keyNumber(rowHeader, number), nil))
	}); err != nil || batch.Empty() {
		return err
	}
	return fmtStore(batch.Commit(pebble.Sync))
}
