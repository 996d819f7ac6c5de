package codec

import (
	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Image is what the attributes of the Image Pixel module (PS3.3 C.7.6.3) say
// of one frame.
type Image struct {
	Rows, Columns int
	Samples       int // per pixel
	Allocated     int // bits: 1, 8, 16, 32 or 64
	Stored        int // bits
	Signed        bool
	Planar        bool // colour by plane, in the encoding at hand
	Subsampled    bool // YBR_FULL_422 and the like: two chroma samples for two pixels
}

// maxFrame bounds a decoded frame, in bytes: whole-slide and mammography frames
// stay far below it.
const maxFrame = 256 << 20

// ImageOf reads an image's attributes; fault.Invalid when they are missing or
// out of range.
func ImageOf(ds *dicom.Dataset) (Image, error) {
	number := func(tag dict.Tag, absent int64) int {
		if v, ok := ds.Int(tag); ok && v >= 0 && v <= 1<<16 {
			return int(v)
		}
		return int(absent)
	}
	m := Image{
		Rows: number(dict.Rows, 0), Columns: number(dict.Columns, 0),
		Samples:   number(dict.SamplesPerPixel, 1),
		Allocated: number(dict.BitsAllocated, 0),
		Signed:    number(dict.PixelRepresentation, 0) == 1,
		Planar:    number(dict.PlanarConfiguration, 0) == 1,
	}
	m.Stored = number(dict.BitsStored, int64(m.Allocated))
	switch ds.String(dict.PhotometricInterpretation) {
	case "YBR_FULL_422", "YBR_PARTIAL_422":
		m.Subsampled = true
	}
	switch {
	case m.Rows == 0 || m.Columns == 0 || m.Samples == 0 || m.Samples > 4:
		return m, fault.New(fault.Invalid, "an image of %d × %d pixels of %d samples", m.Columns, m.Rows, m.Samples)
	case m.Allocated != 1 && m.Allocated != 8 && m.Allocated != 16 && m.Allocated != 32 && m.Allocated != 64:
		return m, fault.New(fault.Unsupported, "%d bits allocated", m.Allocated)
	case m.Allocated == 1 && m.Samples > 1:
		return m, fault.New(fault.Unsupported, "colour of one bit a sample")
	case m.Bytes() > maxFrame:
		return m, fault.New(fault.Invalid, "a frame of %d bytes", m.Bytes())
	}
	return m, nil
}

// Bytes is the size of the frame's plain samples.
func (m Image) Bytes() int64 {
	return (int64(m.Rows)*int64(m.Columns)*int64(m.Samples)*int64(m.Allocated) + 7) / 8
}

// Lossless reports whether frames of an encapsulated transfer syntax decode
// here to exactly the samples that were encoded.
func Lossless(syntax string) bool {
	switch syntax {
	case rleLossless, jpegLossless14, jpegLosslessSV1:
		return true
	}
	return false
}

// The encapsulated transfer syntaxes that this package decodes.
const (
	rleLossless     = "1.2.840.10008.1.2.5"
	jpegLossless14  = "1.2.840.10008.1.2.4.57"
	jpegLosslessSV1 = "1.2.840.10008.1.2.4.70"
)

// Decode returns a frame's plain samples. fault.Unsupported for syntaxes that
// have no decoder here, fault.Invalid for a frame that does not decode. The
// result may alias frame.
func Decode(syntax dict.TransferSyntax, frame []byte, m Image) ([]byte, error) {
	switch {
	case !syntax.Encapsulated:
		return decodeNative(frame, m, syntax.BigEndian)
	case syntax.UID == rleLossless:
		return decodeRLE(frame, m)
	case syntax.UID == jpegLossless14 || syntax.UID == jpegLosslessSV1:
		return decodeJPEGLossless(frame, m)
	}
	return nil, fault.New(fault.Unsupported, "no decoder for transfer syntax %s", syntax.UID)
}

// decodeNative swaps and interleaves.
func decodeNative(frame []byte, m Image, bigEndian bool) ([]byte, error) {
	if m.Subsampled {
		return frame, nil // compared and served as it is
	}
	size := m.Bytes()
	if int64(len(frame)) < size {
		return nil, fault.New(fault.Invalid, "a frame of %d bytes where the image has %d", len(frame), size)
	}
	frame = frame[:size]
	width := m.Allocated / 8
	if width <= 1 && (!m.Planar || m.Samples == 1) {
		return frame, nil
	}
	if !bigEndian && (!m.Planar || m.Samples == 1) {
		return frame, nil
	}
	out := make([]byte, size)
	pixels := m.Rows * m.Columns
	for s := range m.Samples {
		for p := range pixels {
			from, to := (p*m.Samples+s)*width, (p*m.Samples+s)*width
			if m.Planar {
				from = (s*pixels + p) * width
			}
			for b := range width {
				if bigEndian {
					out[to+b] = frame[from+width-1-b]
				} else {
					out[to+b] = frame[from+b]
				}
			}
		}
	}
	return out, nil
}
