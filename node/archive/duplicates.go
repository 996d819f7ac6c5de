package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
)

// version is a stored instance under a SOP Instance UID.
type version struct{ *archivepb.Instance }

func (v version) ref() Ref {
	return Ref{
		Study: v.Study, Series: v.Series, SOP: v.Sop, Class: v.Class, Syntax: v.Syntax,
		Number: v.Number, Bytes: v.Bytes,
	}
}

// versions returns what is stored under a UID, whatever its state, oldest first.
func (a *Archive) versions(sop string) ([]version, error) {
	var all []version
	err := a.each(prefixUID(sop), func(key, _ []byte) error {
		r, ok, err := a.instance(binary.BigEndian.Uint64(key[len(key)-8:]))
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Corrupt, "store: a UID row without its instance")
		}
		all = append(all, version{r})
		return nil
	})
	return all, err
}

// instance reads an instance record.
func (a *Archive) instance(number uint64) (*archivepb.Instance, bool, error) {
	value, ok, err := a.get(keyNumber(rowInstance, number))
	if err != nil || !ok {
		return nil, false, err
	}
	var r archivepb.Instance
	return &r, true, unmarshal(value, &r)
}

// settleVersion finds out, once an arrival is durable, whether other bytes
// under a known UID are after all the same instance (DESIGN §2, Duplicates): in
// canonical form, or as a lossless rendition.
func (a *Archive) settleVersion(ctx context.Context, r *archivepb.Instance, header *dicom.Header) (Stored, error) {
	stored := Stored{Ref: version{r}.ref()}
	if r.State == archivepb.State_CANONICAL {
		return stored, nil
	}
	stored.Outcome = Quarantined
	if r.Against == 0 {
		stored.Deleted = true
		return stored, nil
	}
	against, ok, err := a.instance(r.Against)
	if err != nil || !ok {
		return stored, err
	}
	verdict, err := a.compare(ctx, r, header, against)
	if err != nil {
		// The instance is durable and quarantined: that is a success. An
		// operator can compare again.
		a.log.Warn("comparing versions of an instance failed", "number", r.Number, "error", err)
		return stored, nil
	}
	switch verdict {
	case sameForm:
		if err := a.setState(r, archivepb.State_DROPPED); err != nil {
			return stored, err
		}
		return Stored{Ref: version{against}.ref(), Outcome: Same}, nil
	case rendition:
		if err := a.setState(r, archivepb.State_RENDITION); err != nil {
			return stored, err
		}
		stored.Outcome = Rendition
	}
	return stored, nil
}

// setState changes what an instance is to readers. A dropped one leaves
// staging: its record remains so that replay knows it.
func (a *Archive) setState(r *archivepb.Instance, state archivepb.State) error {
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := changeState(batch, r, state); err != nil {
		return err
	}
	location, err := a.location(r.Number)
	if err != nil {
		return err
	}
	if state == archivepb.State_DROPPED {
		if err := batch.Delete(keyQueue(r.Study, r.Series, r.Number), nil); err != nil {
			return err
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	if state == archivepb.State_DROPPED && len(location.Pack) == 0 {
		return a.staging.Release(placed(location))
	}
	return nil
}

// changeState puts the rows of a state change into a batch and sets r.State.
func changeState(b *pebble.Batch, r *archivepb.Instance, state archivepb.State) error {
	switch r.State {
	case archivepb.State_CANONICAL:
		if err := b.Delete(keySeries(r.Study, r.Series, r.Sop), nil); err != nil {
			return err
		}
	case archivepb.State_QUARANTINED:
		if err := b.Delete(keyNumber(rowReview, r.Number), nil); err != nil {
			return err
		}
	}
	r.State = state
	if err := b.Set(keyNumber(rowInstance, r.Number), marshal(r), nil); err != nil {
		return err
	}
	return putState(b, r)
}

// verdict is how two versions relate.
type verdict uint8

const (
	differ verdict = iota
	sameForm
	rendition
)

// compare relates two stored versions by content.
func (a *Archive) compare(ctx context.Context, r *archivepb.Instance, header *dicom.Header, against *archivepb.Instance) (verdict, error) {
	if bytes.Equal(r.Hash, against.Hash) && r.Syntax == against.Syntax {
		return sameForm, nil
	}
	one, err := a.Open(ctx, version{r}.ref())
	if err != nil {
		return differ, err
	}
	defer one.Close()
	other, err := a.Open(ctx, version{against}.ref())
	if err != nil {
		return differ, err
	}
	defer other.Close()
	syntax, _ := dict.Syntax(r.Syntax)
	former, _ := dict.Syntax(against.Syntax)
	if !syntax.Uncompressed() || !former.Uncompressed() {
		same, err := sameImage(one, other)
		if err != nil || !same {
			return differ, err
		}
		return rendition, nil
	}
	first, err := canonicalHash(one)
	if err != nil {
		return differ, err
	}
	second, err := canonicalHash(other)
	if err != nil || first != second {
		return differ, err
	}
	return sameForm, nil
}

// canonicalHash is the BLAKE3 of an uncompressed instance's canonical form.
func canonicalHash(i Instance) (sum [32]byte, err error) {
	values, err := i.Values()
	if err != nil {
		return sum, err
	}
	h := blake3.New()
	if err := i.Header().Canonical(h, values); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Review is a quarantined instance as an operator sees it.
type Review struct {
	Ref
	Against *Ref // the version it conflicts with; nil: a tombstone covers it
	Arrived int64
	Sender  string
}

// Reviews lists what waits for an operator, oldest first.
func (a *Archive) Reviews() ([]Review, error) {
	var all []Review
	err := a.each([]byte{rowReview}, func(key, _ []byte) error {
		r, ok, err := a.instance(binary.BigEndian.Uint64(key[1:]))
		if err != nil || !ok {
			return err
		}
		review := Review{Ref: version{r}.ref(), Arrived: r.Arrived, Sender: r.CallingAe}
		if r.Against != 0 {
			against, ok, err := a.instance(r.Against)
			if err != nil {
				return err
			}
			if ok {
				ref := version{against}.ref()
				review.Against = &ref
			}
		}
		all = append(all, review)
		return nil
	})
	return all, err
}

// Difference is how two versions of an instance differ.
type Difference struct {
	Canonical, Quarantined Ref
	Attributes             []dict.Tag // top-level attributes whose bytes differ, or that one lacks
	Pixels                 bool       // pixel data differs, or cannot be compared
}

// Compare tells an operator how a quarantined instance differs from the one it
// conflicts with.
func (a *Archive) Compare(ctx context.Context, number uint64) (*Difference, error) {
	r, ok, err := a.instance(number)
	if err != nil {
		return nil, err
	}
	if !ok || r.State != archivepb.State_QUARANTINED {
		return nil, fault.New(fault.NotFound, "no quarantined instance numbered %d", number)
	}
	if r.Against == 0 {
		return nil, fault.New(fault.NotFound, "instance %d conflicts with a tombstone, not with another version", number)
	}
	against, ok, err := a.instance(r.Against)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.NotFound, "the version that instance %d conflicts with is gone", number)
	}
	one, err := a.Open(ctx, version{against}.ref())
	if err != nil {
		return nil, err
	}
	defer one.Close()
	other, err := a.Open(ctx, version{r}.ref())
	if err != nil {
		return nil, err
	}
	defer other.Close()
	d := &Difference{Canonical: one.Ref(), Quarantined: other.Ref()}
	return d, d.fill(one, other)
}

func (d *Difference) fill(one, other Instance) error {
	left, right := one.Header().Dataset, other.Header().Dataset
	for i := range left.Elements {
		e := &left.Elements[i]
		if e.Tag == dict.PixelData {
			continue
		}
		same, err := sameElement(one, e, other, right.Get(e.Tag))
		if err != nil {
			return err
		}
		if !same {
			d.Attributes = append(d.Attributes, e.Tag)
		}
	}
	for i := range right.Elements {
		if tag := right.Elements[i].Tag; tag != dict.PixelData && !left.Has(tag) {
			d.Attributes = append(d.Attributes, tag)
		}
	}
	same, err := samePixels(one, other)
	d.Pixels = !same
	if fault.Is(err, fault.Unsupported) {
		return nil
	}
	return err
}

// sameElement compares two elements by their explicit little endian encoding,
// or by their bulk bytes.
func sameElement(one Instance, e *dicom.Element, other Instance, f *dicom.Element) (bool, error) {
	if f == nil || (e.Cut == nil) != (f.Cut == nil) {
		return false, nil
	}
	if e.Cut != nil {
		return sameBytes(one, *e.Cut, other, *f.Cut)
	}
	left, err := encodeElement(one, e)
	if err != nil {
		return false, err
	}
	right, err := encodeElement(other, f)
	return bytes.Equal(left, right), err
}

func encodeElement(i Instance, e *dicom.Element) ([]byte, error) {
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	from := i.Header().Dataset
	one := &dicom.Dataset{Syntax: from.Syntax, Charset: from.Charset, Elements: []dicom.Element{*e}}
	return one.Encode(nil, explicit)
}

// sameBytes compares two cuts of equal encodings.
func sameBytes(one Instance, e dicom.Cut, other Instance, f dicom.Cut) (bool, error) {
	if e.Length != f.Length {
		return false, nil
	}
	left, err := one.Values()
	if err != nil {
		return false, err
	}
	right, err := other.Values()
	if err != nil {
		return false, err
	}
	const piece = 256 << 10
	a, b := make([]byte, piece), make([]byte, piece)
	for at := int64(0); at < e.Length; at += piece {
		n := min(piece, e.Length-at)
		if err := readFull(left, a[:n], e.Offset+at); err != nil {
			return false, err
		}
		if err := readFull(right, b[:n], f.Offset+at); err != nil {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// readFull fills p from r; the end of the data is an error.
func readFull(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Decision is what an operator does with a quarantined instance.
type Decision uint8

const (
	Accept  Decision = iota // it becomes canonical; the former canonical one is quarantined in its place
	Discard                 // it goes once the delete grace has passed
)

// Decide carries out an operator's decision. Accepting over a tombstone needs
// the object restored first ([Archive.Restore]).
func (a *Archive) Decide(ctx context.Context, number uint64, decision Decision) error {
	r, ok, err := a.instance(number)
	if err != nil {
		return err
	}
	if !ok || r.State != archivepb.State_QUARANTINED {
		return fault.New(fault.NotFound, "no quarantined instance numbered %d", number)
	}
	release, err := a.arrival.enter(ctx, r.Sop)
	if err != nil {
		return err
	}
	defer release()
	r.Decided = time.Now().UnixMicro()
	if decision == Discard {
		return a.setState(r, archivepb.State_DISCARDED)
	}
	if a.covered(r) {
		return fault.New(fault.Conflict, "instance %d is deleted; restore it first", number)
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	versions, err := a.versions(r.Sop)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.State == archivepb.State_CANONICAL {
			v.Against = r.Number
			if err := changeState(batch, v.Instance, archivepb.State_QUARANTINED); err != nil {
				return err
			}
			defer a.journal.Dirty(v.Number, v.Study, v.Series)
		}
	}
	r.Against = 0
	if err := changeState(batch, r, archivepb.State_CANONICAL); err != nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	a.journal.Dirty(r.Number, r.Study, r.Series)
	return nil
}
