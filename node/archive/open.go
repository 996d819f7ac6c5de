package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Select implements [Reads].
func (a *Archive) Select(ctx context.Context, study, series, instance string) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		found := false
		for ref, err := range a.choose(ctx, study, series, instance) {
			if err == nil {
				var hidden bool
				if hidden, err = a.hidden(ref); hidden {
					continue
				}
			}
			found = true
			if !yield(ref, err) || err != nil {
				return
			}
		}
		if !found {
			yield(Ref{}, fault.New(fault.NotFound, "no such study, series or instance"))
		}
	}
}

// hidden reports whether a canonical instance is deleted.
func (a *Archive) hidden(ref Ref) (bool, error) {
	if _, deleted := a.catalog.Deleted(ref.Study, ref.Series, ref.SOP); !deleted {
		return false, nil
	}
	if _, some := a.catalog.Accepted(ref.Study, ref.Series); !some {
		return true, nil
	}
	r, ok, err := a.instance(ref.Number)
	if err != nil || !ok {
		return err == nil, err
	}
	return a.covered(r), nil
}

// choose yields canonical instances, those under a tombstone included.
func (a *Archive) choose(ctx context.Context, study, series, instance string) iter.Seq2[Ref, error] {
	switch {
	case study == "" && series == "" && instance == "":
		return func(func(Ref, error) bool) {}
	case study == "" && instance != "":
		return a.bySOP(series, instance)
	case study == "":
		return a.bySeries(ctx, series)
	case series == "" && instance != "":
		return only(a.bySOP("", instance), func(r Ref) bool { return r.Study == study })
	}
	return a.list(ctx, keySeries(study, series, instance))
}

func only(refs iter.Seq2[Ref, error], keep func(Ref) bool) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		for ref, err := range refs {
			if err == nil && !keep(ref) {
				continue
			}
			if !yield(ref, err) {
				return
			}
		}
	}
}

// list yields the instances whose series rows begin with prefix.
func (a *Archive) list(ctx context.Context, prefix []byte) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		err := a.pages(prefix, func(key, value []byte) error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			uids, _, ok := splitUIDs(key[1:], 3)
			l, fine := parseListing(value)
			if !ok || !fine {
				return errSeriesRow()
			}
			ref := Ref{
				Study: uids[0], Series: uids[1], SOP: uids[2],
				Class: l.class, Syntax: l.syntax, Number: l.number, Bytes: l.bytes,
			}
			if !yield(ref, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Ref{}, err)
		}
	}
}

func (a *Archive) bySOP(series, sop string) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		versions, err := a.canonical(sop)
		if err != nil {
			yield(Ref{}, err)
			return
		}
		for _, v := range versions {
			if (series == "" || v.Series == series) && !yield(v.ref(), nil) {
				return
			}
		}
	}
}

func (a *Archive) bySeries(ctx context.Context, series string) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		var studies []string
		prefix := appendUID([]byte{rowParent}, series)
		err := a.each(prefix, func(key, _ []byte) error {
			uids, _, ok := splitUIDs(key[1:], 2)
			if !ok {
				return fault.New(fault.Corrupt, "store: a parent row that does not parse")
			}
			studies = append(studies, uids[1])
			return nil
		})
		if err != nil {
			yield(Ref{}, err)
			return
		}
		for _, study := range studies {
			for ref, err := range a.list(ctx, keySeries(study, series, "")) {
				if !yield(ref, err) || err != nil {
					return
				}
			}
		}
	}
}

// Headers implements [Reads]. Only ref.Number matters.
func (a *Archive) Headers(ctx context.Context, ref Ref) (*dicom.Header, error) {
	r, ok, err := a.instance(ref.Number)
	if err != nil {
		return nil, err
	}
	if !ok || r.State == archivepb.State_DROPPED {
		return nil, fault.New(fault.NotFound, "no instance numbered %d", ref.Number)
	}
	return a.header(ctx, r)
}

// header reads an instance's header, in the character set that is assumed of
// its sender.
func (a *Archive) header(ctx context.Context, r *archivepb.Instance) (*dicom.Header, error) {
	h, _, err := a.readHeader(ctx, r)
	if err != nil {
		return nil, err
	}
	return assume(h, r.Charset), nil
}

func (a *Archive) location(number uint64) (*archivepb.Location, error) {
	value, closer, err := a.store.Get(keyNumber(rowLocation, number))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "no instance numbered %d", number)
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	var l archivepb.Location
	return &l, unmarshal(value, &l)
}

// Open implements [Reads].
func (a *Archive) Open(ctx context.Context, ref Ref) (Instance, error) {
	r, ok, err := a.instance(ref.Number)
	if err != nil {
		return nil, err
	}
	if !ok || r.Sop != ref.SOP || r.State == archivepb.State_DROPPED {
		return nil, fault.New(fault.NotFound, "no such instance")
	}
	header, _, err := a.readHeader(ctx, r)
	if err != nil {
		return nil, err
	}
	one, err := a.open(r, header)
	if err == nil && a.o.Opened != nil {
		a.tellOpened(r.Number)
	}
	return one, err
}

// tellOpened tells whose pack it is that is read: what it does not know it leaves out.
func (a *Archive) tellOpened(number uint64) {
	location, err := a.location(number)
	if err != nil || len(location.Pack) == 0 {
		return
	}
	if id, err := packID(location.Pack); err == nil {
		a.o.Opened(id)
	}
}

// open opens an instance whose rows were read.
func (a *Archive) open(r *archivepb.Instance, header *dicom.Header) (*opened, error) {
	one := &opened{archive: a, ref: version{r}.ref(), header: header}
	copy(one.hash[:], r.Hash)
	var err error
	if one.stored, one.close, err = a.bytesOf(r); err != nil {
		return nil, err
	}
	return one, nil
}

// bytesOf opens an instance's bytes wherever they rest. The packer may move
// them between our look at the row and our opening of the segment: then the row
// has changed, and we look again.
func (a *Archive) bytesOf(r *archivepb.Instance) (io.ReaderAt, func() error, error) {
	for {
		location, err := a.location(r.Number)
		if err != nil {
			return nil, nil, err
		}
		if len(location.Pack) > 0 {
			return a.packed(location, r)
		}
		reader, err := a.staging.Open(placed(location))
		if err == nil {
			return reader, reader.Close, nil
		}
		now, lerr := a.location(r.Number)
		if lerr != nil || len(now.Pack) == 0 {
			return nil, nil, errors.Join(err, lerr)
		}
	}
}

// packed opens an instance in a pack.
func (a *Archive) packed(location *archivepb.Location, r *archivepb.Instance) (io.ReaderAt, func() error, error) {
	id, err := packID(location.Pack)
	if err != nil {
		return nil, nil, err
	}
	plaintext, ok := a.packs.Get(id)
	if !ok {
		if plaintext, err = a.openPack(id); err != nil {
			return nil, nil, err
		}
		a.packs.Offer(id, plaintext, 1)
	}
	return a.codec.Instance(id, plaintext, packEntry(location, r)), func() error { return nil }, nil
}

// openPack returns the plaintext of a pack.
func (a *Archive) openPack(id pack.ID) (io.ReaderAt, error) {
	p, err := a.pack(id)
	if err != nil {
		return nil, err
	}
	if p.Lost {
		return nil, fault.New(fault.Corrupt, "the pack of this instance is lost to a rotten or missing table")
	}
	if len(p.Key) != 16 {
		return nil, fault.New(fault.Corrupt, "store: key id of %d bytes", len(p.Key))
	}
	study, err := a.o.Keys.Key([16]byte(p.Key))
	if err != nil {
		return nil, err
	}
	from, err := a.ciphertext(id, p)
	if err != nil {
		return nil, err
	}
	return seal.Reader(from, p.BlobBytes, seal.PackKey(study, id)), nil
}

func (a *Archive) pack(id pack.ID) (*archivepb.Pack, error) {
	value, ok, err := a.get(keyPack(id))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.NotFound, "no such pack")
	}
	var p archivepb.Pack
	return &p, unmarshal(value, &p)
}

// maxOpenPacks bounds the plaintext readers that are kept; each is small (a key
// schedule), so the bound is for order more than for memory.
const maxOpenPacks = 4096

// opened is an [Instance].
type opened struct {
	archive *Archive
	ref     Ref
	hash    [32]byte
	header  *dicom.Header
	stored  io.ReaderAt
	close   func() error

	inflated *inflated // set by the first Values of a deflated instance
}

func (o *opened) Ref() Ref              { return o.ref }
func (o *opened) Header() *dicom.Header { return o.header }
func (o *opened) Stored() io.ReaderAt   { return o.stored }
func (o *opened) Hash() [32]byte        { return o.hash }

// Values implements [Instance].
func (o *opened) Values() (io.ReaderAt, error) {
	if !o.header.Syntax.Deflated {
		return o.stored, nil
	}
	if o.inflated == nil {
		in, err := o.archive.inflate(io.NewSectionReader(o.stored, 0, o.ref.Bytes), o.header.Size)
		if err != nil {
			return nil, err
		}
		o.inflated = in
	}
	return o.inflated, nil
}

// Close implements [Instance].
func (o *opened) Close() error {
	var err error
	if o.inflated != nil {
		err = o.inflated.Close()
		o.inflated = nil
	}
	return errors.Join(err, o.close())
}

// numberOf reads the local number at the end of a key.
func numberOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// nativeSamples tells the packer how an instance's pixels lie.
func nativeSamples(h *dicom.Header) pack.Samples {
	pixels := h.Dataset.Get(dict.PixelData)
	if pixels == nil || pixels.Cut == nil || h.Syntax.Encapsulated || h.Syntax.Deflated {
		return pack.Samples{}
	}
	allocated, _ := h.Dataset.Int(dict.BitsAllocated)
	columns, _ := h.Dataset.Int(dict.Columns)
	samples, ok := h.Dataset.Int(dict.SamplesPerPixel)
	if !ok || samples < 1 {
		samples = 1
	}
	if allocated != 8 && allocated != 16 && allocated != 32 || columns < 1 || columns > 1<<16 || samples > 4 {
		return pack.Samples{}
	}
	s := pack.Samples{
		Offset: pixels.Cut.Offset, Length: pixels.Cut.Length,
		Width: int(columns), Bytes: int(allocated / 8), Stride: 1,
		BigEndian: h.Syntax.BigEndian,
	}
	if planar, _ := h.Dataset.Int(dict.PlanarConfiguration); samples > 1 && planar == 0 {
		s.Width *= int(samples)
		s.Stride = int(samples)
	}
	return s
}
