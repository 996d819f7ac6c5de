package archive

import (
	"context"
	"errors"
	"io"
	"iter"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/shard/bulk"
	"pelago/shard/pack"
)

// What node/reach makes instances of that rest elsewhere with: the same parts
// that those here are made of.

// Assemble is an opened instance whose bytes come from elsewhere, r being its
// record at the node that stores it. Closing it calls done.
func (a *Archive) Assemble(origin string, r *archivepb.Instance, header *dicom.Header, stored io.ReaderAt, done func() error) (Instance, error) {
	if len(r.Hash) != 32 {
		return nil, fault.New(fault.Corrupt, "an instance's record with a hash of %d bytes", len(r.Hash))
	}
	return &opened{archive: a, ref: RefOf(origin, r), hash: [32]byte(r.Hash), header: header, stored: stored, close: done}, nil
}

// ReadThrough has an instance that [Archive.Open] opened read its bytes through
// another reader, which wrap makes of its own.
func (a *Archive) ReadThrough(in Instance, wrap func(stored io.ReaderAt) io.ReaderAt) Instance {
	one := in.(*opened)
	one.stored = wrap(one.stored)
	return one
}

// RefOf is the reference to an instance that a node stores.
func RefOf(origin string, r *archivepb.Instance) Ref {
	ref := version{r}.ref()
	ref.Origin = origin
	return ref
}

// HeaderOf reads a header record as another node sent it, beside the instance's
// record. assumed puts it in the character set that is assumed of its sender, as
// [Reads.Headers] does and [Reads.Open] does not.
func HeaderOf(r *archivepb.Instance, record []byte, assumed bool) (*dicom.Header, error) {
	h, err := dicom.ParseHeader(record)
	if err != nil {
		return nil, err
	}
	if assumed {
		h = assume(h, r.Charset)
	}
	return h, nil
}

// HeaderFrom makes the header record of an instance from its bytes.
func (a *Archive) HeaderFrom(stored io.ReaderAt, r *archivepb.Instance) ([]byte, error) {
	syntax, err := storedSyntax(r.Syntax)
	if err != nil {
		return nil, err
	}
	h, err := dicom.ReadHeader(io.NewSectionReader(stored, 0, r.Bytes), syntax, a.o.Limits)
	if err != nil {
		return nil, err
	}
	return h.AppendBinary(nil)
}

// Codec is what readers of packs share: what is decompressed for one serves the
// others, and is kept for a while.
func (a *Archive) Codec() *pack.Codec { return a.codec }

// Bulk is where packs rest. Only [bulk.Cached] is for others to write.
func (a *Archive) Bulk() *bulk.Store { return a.bulk }

// Reserve grants n bytes of the disk, or answers fault.Full: the ballast stays
// free.
func (a *Archive) Reserve(n int64) error { return a.space.reserve(n) }

// ReserveBeside is Reserve for what can do without: it leaves so many bytes more free,
// which remain for others.
func (a *Archive) ReserveBeside(n, kept int64) error { return a.space.grant(n, 1, kept) }

// Pressed reports whether little more is free than the ballast and what is kept besides,
// in bytes, so that copies should make room.
func (a *Archive) Pressed(kept int64) bool {
	free, size, err := a.space.free()
	return err == nil && free < 2*a.space.ballast(size)+kept
}

// AddUID adds a SOP Instance UID to the hash of a set of them, as the catalogue
// keeps it for every series and node: a sum modulo 2^256 of the UIDs' BLAKE3,
// little endian.
func AddUID(sum *[32]byte, uid string) { addUID(sum, uid) }

// Record returns the record of an instance that is stored here; fault.NotFound if
// there is none of the number.
func (a *Archive) Record(number uint64) (*archivepb.Instance, error) {
	r, ok, err := a.instance(number)
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "no instance numbered %d", number)
	}
	return r, err
}

// Packed returns how an instance lies in its pack, and the record of that, lost or
// not; a nil pack for one that rests in staging. fault.NotFound if there is none of
// the number any more.
func (a *Archive) Packed(ctx context.Context, number uint64) (far.Holding, *archivepb.Pack, error) {
	h, err := a.holding(ctx, number)
	if err != nil || len(h.Location.Pack) == 0 {
		return h, nil, err
	}
	id, err := packID(h.Location.Pack)
	if err != nil {
		return h, nil, err
	}
	p, err := a.pack(id)
	if err == nil && (len(p.Key) != 16 || len(p.Root) != 32) {
		err = fault.New(fault.Corrupt, "store: a pack's record without its key or root")
	}
	return h, p, err
}

// Lost yields the local numbers of the canonical instances whose packs were lost
// to a rotten or missing table, but for those that are deleted.
func (a *Archive) Lost(ctx context.Context) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		if !a.damage.noted.Load() {
			return
		}
		err := a.pages([]byte{rowLost}, func(key, _ []byte) error {
			_, rest, ok := splitUIDs(key[1:], 2)
			id, err := packID(rest)
			if !ok || err != nil {
				return errors.Join(err, errSeriesRow())
			}
			return a.pages(prefixMember(id), func(key, _ []byte) error {
				if err := context.Cause(ctx); err != nil {
					return err
				}
				err := a.stopIfIn(id, numberOf(key))
				if errors.Is(err, errStop) && yield(numberOf(key), nil) {
					return nil
				}
				return err
			})
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(0, err)
		}
	}
}

// IsLost reports whether the bytes of an instance are known to be lost, so that the
// same ones are stored in their place when they come again.
func (a *Archive) IsLost(ctx context.Context, number uint64) (bool, error) {
	r, location, err := a.held(number)
	if err != nil || r == nil || location == nil {
		return false, err
	}
	return a.gone(ctx, r)
}
