package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/semaphore"

	"pelago/cluster/fault"
	"pelago/dimse/codec"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// decodable reports whether instances stored in a transfer syntax are sent
// uncompressed to clients that name no other (DESIGN §9, Web and Pixels): those
// whose pixels this node restores exactly.
func decodable(stored string) bool { return codec.Lossless(stored) }

// maxDecoded bounds the pixel data of a decoded instance: an element's length
// has 32 bits, and the last value stands for none.
const maxDecoded = 1<<32 - 2

// codedMargin is how much longer than two of its images a frame's codestream may
// be: RLE takes twice the bytes at worst, JPEG Lossless less, besides their heads.
const codedMargin = 64 << 10

// decoded is an encapsulated instance as if it had come in explicit little
// endian. Only what says how pixels are encoded differs: Pixel Data and its VR,
// Photometric Interpretation and Planar Configuration; offset tables are gone.
// It serves one goroutine.
type decoded struct {
	archive.Instance
	header *dicom.Header
	pixels *decodedPixels
	memory *pixelMemory
	weight int64
}

// decode opens an instance as a decoded one, whose frame first (from 1) is
// decoded at once: a codestream that is broken, or of a kind that is not decoded
// here, is known before anything was promised. Closing it closes inst; after an
// error inst is as it was.
func (h *Handler) decode(ctx context.Context, inst archive.Instance, first int) (*decoded, error) {
	stored := inst.Header()
	image, err := codec.ImageOf(stored.Dataset)
	if err != nil {
		return nil, err
	}
	frames, err := stored.Frames()
	if err != nil {
		return nil, err
	}
	size := image.Bytes()
	switch {
	case frames.Native || image.Allocated < 8:
		return nil, fault.New(fault.Unsupported, "pixels of %d bits are not decoded", image.Allocated)
	case size > maxDecoded/int64(frames.Count):
		return nil, fault.New(fault.Unsupported, "%d frames of %d bytes are not decoded", frames.Count, size)
	case first > frames.Count:
		return nil, fault.New(fault.NotFound, "there is no frame %d; the instance has %d", first, frames.Count)
	}
	values, err := inst.Values()
	if err != nil {
		return nil, err
	}
	d := &decoded{Instance: inst, memory: h.pixelMemory, weight: 3*size + codedMargin} // a frame, and its codestream at worst
	if err := d.memory.take(ctx, d.weight); err != nil {
		return nil, err
	}
	d.pixels = &decodedPixels{
		stored: values, frames: frames, syntax: stored.Syntax, image: image,
		from: stored.Size, size: size,
	}
	if err := d.pixels.decode(first); err != nil {
		d.memory.give(d.weight)
		return nil, err
	}
	d.header = decodedHeader(stored, image, dicom.Cut{Tag: dict.PixelData, Offset: stored.Size, Length: size * int64(frames.Count)})
	return d, nil
}

// decodedHeader is the header of the decoded form, whose pixels lie at a place.
func decodedHeader(stored *dicom.Header, image codec.Image, at dicom.Cut) *dicom.Header {
	h := *stored
	h.Syntax, _ = dict.Syntax(dict.ExplicitLittleEndian)
	h.Fragments, h.BasicOffsets = nil, nil
	ds := *stored.Dataset
	ds.Syntax, ds.Elements = h.Syntax, slices.Clone(ds.Elements)
	ds.Remove(dict.ExtendedOffsetTable)
	ds.Remove(dict.ExtendedOffsetTableLengths)
	ds.Remove(dict.EncapsulatedPixelDataValueTotalLength)
	if image.Samples > 1 {
		ds.SetUint(dict.PlanarConfiguration, dict.US, 0)
	}
	if image.Subsampled { // each pixel has its own chrominance now
		ds.Set(dict.PhotometricInterpretation, dict.CS, "YBR_FULL")
	}
	at.VR = dict.OW
	if image.Allocated <= 8 {
		at.VR = dict.OB
	}
	ds.Put(dicom.Element{Tag: dict.PixelData, VR: at.VR, Cut: &at})
	h.Dataset = &ds
	return &h
}

// Ref tells the transfer syntax of this form. It has no number: nothing that is
// kept about the stored form holds for it.
func (d *decoded) Ref() archive.Ref {
	ref := d.Instance.Ref()
	ref.Syntax, ref.Number = dict.ExplicitLittleEndian, 0
	return ref
}

func (d *decoded) Header() *dicom.Header        { return d.header }
func (d *decoded) Values() (io.ReaderAt, error) { return d.pixels, nil }

// Hash tells this form from the stored one, in entity tags.
func (d *decoded) Hash() [32]byte {
	hash := d.Instance.Hash()
	return blake3.Sum256(append(hash[:], "decoded"...))
}

// release gives the frame's memory back.
func (d *decoded) release() {
	d.pixels.frame, d.pixels.coded, d.pixels.number = nil, nil, 0
	d.memory.give(d.weight)
}

// Close gives the memory back and closes the stored instance.
func (d *decoded) Close() error {
	d.release()
	return d.Instance.Close()
}

// undecoded is the error of a frame whose codestream is broken: the request was
// in order, what it asks for cannot be made.
func undecoded(err error) error {
	if fault.Is(err, fault.Invalid) {
		return fault.New(fault.Unsupported, "%w", err)
	}
	return err
}

// undecodable reports whether an error of decode is about the image: what is
// stored can be sent as it is.
func undecodable(err error) bool {
	return fault.Is(err, fault.Invalid) || fault.Is(err, fault.Unsupported)
}

// decodedPixels is the stored data set, followed by its decoded frames.
type decodedPixels struct {
	stored io.ReaderAt
	frames *dicom.Frames
	syntax dict.TransferSyntax
	image  codec.Image
	from   int64 // where the frames begin
	size   int64 // bytes of one

	number int // of the frame that is held, from 1; 0: none
	frame  []byte
	coded  []byte // buffer
}

// decode makes frame n the one that is held.
func (p *decodedPixels) decode(n int) error {
	if p.number == n {
		return nil
	}
	p.number, p.frame = 0, nil
	switch length, err := (&frameTable{frames: p.frames}).size(n); {
	case err != nil:
		return err
	case length > 2*p.size+codedMargin:
		return fault.New(fault.Unsupported, "frame %d has %d bytes for an image of %d", n, length, p.size)
	}
	coded, err := p.frames.ReadFrame(p.coded[:0], p.stored, n)
	if err != nil {
		return err
	}
	p.coded = coded
	frame, err := codec.Decode(p.syntax, coded, p.image)
	if err != nil {
		return undecoded(fmt.Errorf("frame %d: %w", n, err))
	}
	if int64(len(frame)) != p.size {
		return fault.New(fault.Unsupported, "frame %d decodes to %d bytes instead of %d", n, len(frame), p.size)
	}
	p.number, p.frame = n, frame
	return nil
}

// ReadAt reads of the stored data set or across decoded frames.
func (p *decodedPixels) ReadAt(b []byte, off int64) (int, error) {
	if off < p.from {
		return p.stored.ReadAt(b[:min(int64(len(b)), p.from-off)], off)
	}
	done := 0
	for done < len(b) {
		at := off + int64(done) - p.from
		n := at/p.size + 1
		if n > int64(p.frames.Count) {
			return done, io.EOF
		}
		if err := p.decode(int(n)); err != nil {
			return done, err
		}
		done += copy(b[done:], p.frame[at%p.size:])
	}
	return done, nil
}

// pixelMemory bounds what decoded frames of all requests hold at once.
type pixelMemory struct {
	free *semaphore.Weighted
	all  int64
	wait time.Duration
}

func newPixelMemory(bytes int64, wait time.Duration) *pixelMemory {
	return &pixelMemory{free: semaphore.NewWeighted(bytes), all: bytes, wait: wait}
}

// take waits for room as a request waits for its turn. What needs more than
// there is gets all of it.
func (m *pixelMemory) take(ctx context.Context, bytes int64) error {
	if m.free.TryAcquire(min(bytes, m.all)) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, m.wait)
	defer cancel()
	err := m.free.Acquire(waiting, min(bytes, m.all))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fault.New(fault.Unavailable, "too many images are being decoded")
	}
	return err
}

func (m *pixelMemory) give(bytes int64) { m.free.Release(min(bytes, m.all)) }
