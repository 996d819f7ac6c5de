package archive

import (
	"io"

	"pelago/cluster/fault"
	"pelago/dimse/codec"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// decoder yields the frames of an instance as plain samples: little endian,
// colour by pixel.
type decoder struct {
	values io.ReaderAt
	frames *dicom.Frames
	syntax dict.TransferSyntax
	image  codec.Image
	buffer []byte
}

func newDecoder(i Instance) (*decoder, error) {
	h := i.Header()
	if h.Syntax.Encapsulated && !codec.Lossless(h.Syntax.UID) {
		return nil, errNoDecoder(h.Syntax.UID)
	}
	frames, err := h.Frames()
	if err != nil {
		return nil, err
	}
	values, err := i.Values()
	if err != nil {
		return nil, err
	}
	image, err := codec.ImageOf(h.Dataset)
	if err != nil {
		return nil, err
	}
	return &decoder{values: values, frames: frames, syntax: h.Syntax, image: image}, nil
}

// frame returns frame n, from 1; it is valid until the next call.
func (d *decoder) frame(n int) ([]byte, error) {
	b, err := d.frames.ReadFrame(d.buffer[:0], d.values, n)
	if err != nil {
		return nil, err
	}
	d.buffer = b
	out, err := codec.Decode(d.syntax, b, d.image)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "frame %d: %w", n, err)
	}
	return out, nil
}
