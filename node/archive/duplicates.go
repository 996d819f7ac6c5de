package archive

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
)

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

// Reviews lists what waits for an operator, oldest first: the first limit of
// those whose number is above after.
func (a *Archive) Reviews(after uint64, limit int) ([]Review, error) {
	var all []Review
	err := a.eachFrom(keyNumber(rowReview, after+1), []byte{rowReview + 1}, func(key, _ []byte) error {
		if len(all) == limit {
			return errStop
		}
		r, ok, err := a.instance(numberOf(key))
		if err != nil || !ok {
			return err
		}
		review := Review{Ref: version{r}.ref(), Arrived: r.Arrived, Sender: r.CallingAe}
		against, err := a.rival(r)
		if err != nil {
			return err
		}
		if against != nil {
			ref := version{against}.ref()
			review.Against = &ref
		}
		all = append(all, review)
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return all, err
}

// rival is the version that a quarantined one conflicts with now: the canonical
// one, which need not be that of its arrival, since an operator may have accepted
// another meanwhile. Where all of those are deleted it is that of the arrival;
// nil if that is gone, or if it is a tombstone that covers the instance.
func (a *Archive) rival(r *archivepb.Instance) (*archivepb.Instance, error) {
	if r.Against == 0 {
		return nil, nil
	}
	standing, err := a.canonical(r.Sop)
	if err != nil {
		return nil, err
	}
	for _, v := range standing {
		if !a.covered(v.Instance) {
			return v.Instance, nil
		}
	}
	against, ok, err := a.instance(r.Against)
	if err != nil || !ok {
		return nil, err
	}
	return against, nil
}

// Quarantined is how many instances wait for an operator.
func (a *Archive) Quarantined() (int, error) {
	n := 0
	err := a.each([]byte{rowReview}, func(_, _ []byte) error { n++; return nil })
	return n, err
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
		return nil, errNoReview(number)
	}
	if r.Against == 0 {
		return nil, fault.New(fault.NotFound, "instance %d conflicts with a tombstone, not with another version", number)
	}
	against, err := a.rival(r)
	if err != nil {
		return nil, err
	}
	if against == nil {
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
