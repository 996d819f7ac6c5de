package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"iter"
	"math/big"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
	"pelago/query"
	"pelago/replication/catalog"
)

// ReservedStudy is the study that Non-Patient Objects rest in, a series per SOP
// class: they have no study of their own (DESIGN §9, What is an instance).
const ReservedStudy = "2.25.302168744562093741890276365217054812373"

// reservedSeries names a SOP class's reserved series: a UUID-derived UID
// (PS3.5 §B.2) made from the class, the same on every node.
func reservedSeries(class string) string {
	sum := sha256.Sum256([]byte("pelago reserved series " + class))
	return "2.25." + new(big.Int).SetBytes(sum[:16]).String()
}

// facts is the archive as the journal's source.
type facts struct {
	*Archive
	said *sayings // nil: everything is read from the rows
}

// SeriesFact implements [journal.Source].
func (f facts) SeriesFact(ctx context.Context, study, series string) (*catalog.SeriesFact, error) {
	fact, first, err := f.count(ctx, study, series)
	if err != nil || first == 0 {
		return fact, err
	}
	said, ok := f.said.take(first)
	if !ok {
		record, ok, err := f.instance(first)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fault.New(fault.Corrupt, "store: a series row without its instance")
		}
		header, err := f.header(ctx, record)
		if err != nil {
			return nil, err
		}
		said = says(record, header)
	}
	fact.Issuer, fact.Arrived, fact.Attributes = said.issuer, said.arrived, said.attributes
	return fact, nil
}

// count makes the fact of a series without what its first instance says, and
// returns that one's number; 0 if there is none.
func (f facts) count(ctx context.Context, study, series string) (fact *catalog.SeriesFact, first uint64, err error) {
	fact = &catalog.SeriesFact{
		Origin: f.o.Node, Site: f.o.Site, Study: study, Series: series,
		Reserved: study == ReservedStudy,
		AsOf:     f.visible.Load(),
	}
	classes := map[string]bool{}
	_, some := f.catalog.Accepted(study, series)
	for ref, err := range f.list(ctx, keySeries(study, series, "")) {
		if err != nil {
			return nil, 0, err
		}
		if out, err := f.leftOut(ref, some); err != nil {
			return nil, 0, err
		} else if out {
			continue
		}
		if first == 0 {
			first = ref.Number
		}
		fact.Instances++
		fact.Bytes += uint64(ref.Bytes)
		classes[ref.Class] = true
		addUID(&fact.UIDHash, ref.SOP)
	}
	for class := range classes {
		fact.Classes = append(fact.Classes, class)
	}
	slices.Sort(fact.Classes)
	return fact, first, nil
}

// leftOut reports whether an instance does not count in its series: it was deleted
// by itself, or with the series of which some is accepted nevertheless. A series
// that is deleted as a whole is told as it is: the catalogue hides it.
func (f facts) leftOut(ref Ref, some bool) (bool, error) {
	if some {
		return f.hidden(ref)
	}
	t, deleted := f.catalog.Deleted(ref.Study, ref.Series, ref.SOP)
	return deleted && t.Instance != "", nil
}

// assume gives the data sets of a header that name no character set the
// sender's (DESIGN §9, AE registry: default character set).
func assume(h *dicom.Header, charset string) *dicom.Header {
	if charset == "" {
		return h
	}
	if c, err := dicom.NewCharset(strings.Split(charset, "\\")); err == nil {
		assumeIn(h.Dataset, c)
	}
	return h
}

// assumeIn stops at items that name their own.
func assumeIn(ds *dicom.Dataset, c *dicom.Charset) {
	if ds.Has(dict.SpecificCharacterSet) {
		return
	}
	ds.Charset = c
	for i := range ds.Elements {
		for _, item := range ds.Elements[i].Items {
			assumeIn(item, c)
		}
	}
}

// addUID adds the BLAKE3 of a UID to a sum modulo 2^256, little endian, so that
// a set's hash does not depend on order.
func addUID(sum *[32]byte, uid string) {
	h := blake3.Sum256([]byte(uid))
	carry := uint16(0)
	for i := range sum {
		carry += uint16(sum[i]) + uint16(h[i])
		sum[i] = byte(carry)
		carry >>= 8
	}
}

// After implements [journal.Source].
func (f facts) After(ctx context.Context, number uint64, yield func(number uint64, study, series string) error) error {
	it, err := f.store.NewIter(&pebble.IterOptions{
		LowerBound: keyNumber(rowInstance, number+1), UpperBound: []byte{rowInstance + 1},
	})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		var r archivepb.Instance
		if err := unmarshal(value, &r); err != nil {
			return err
		}
		if err := yield(r.Number, r.Study, r.Series); err != nil {
			return err
		}
	}
	return it.Error()
}

// Known is the archive as the query engine's image level.
type Known struct{ *Archive }

// Instances returns the image level of this node's own studies.
func (a *Archive) Instances() Known { return Known{a} }

var _ query.Instances = Known{}

// List implements [query.Instances].
func (k Known) List(ctx context.Context, study, series string) iter.Seq2[query.Instance, error] {
	return instances(k.Select(ctx, study, series, ""))
}

// Find implements [query.Instances].
func (k Known) Find(ctx context.Context, sop string) ([]query.Instance, error) {
	var found []query.Instance
	for instance, err := range instances(k.Select(ctx, "", "", sop)) {
		if err != nil {
			return nil, err
		}
		found = append(found, instance)
	}
	return found, nil
}

// instances turns references into the engine's form; nothing found is no error.
func instances(refs iter.Seq2[Ref, error]) iter.Seq2[query.Instance, error] {
	return func(yield func(query.Instance, error) bool) {
		for ref, err := range refs {
			if fault.Is(err, fault.NotFound) {
				return
			}
			if !yield(query.Instance{
				Study: ref.Study, Series: ref.Series, SOP: ref.SOP, Class: ref.Class,
				Syntax: ref.Syntax, Number: ref.Number, Bytes: ref.Bytes,
			}, err) {
				return
			}
		}
	}
}

// Header implements [query.Instances].
func (k Known) Header(ctx context.Context, number uint64) (*dicom.Header, error) {
	return k.Headers(ctx, Ref{Number: number})
}

// Settle implements [query.Instances].
func (k Known) Settle(ctx context.Context) error {
	err := k.journal.Settle(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, "the catalogue lags behind what was stored: %w", err)
	}
	return err
}
