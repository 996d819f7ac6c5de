package web

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"

	"pelago/cluster/fault"
	"pelago/dimse/codec"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// raster is a decoded frame: one plane per sample, row by row. Values are as
// stored, sign extended.
type raster struct {
	width, height int
	planes        [][]int32
	photometric   string
}

// shape is what the image pixel module says of a frame (PS3.3 C.7.6.3).
type shape struct {
	rows, columns, samples int
	allocated, stored      int
	high                   int
	signed, planar         bool
	photometric            string
}

// shapeOf reads and checks the image pixel module.
func shapeOf(ds *dicom.Dataset, limit int64) (shape, error) {
	number := func(tag dict.Tag, absent int64) int {
		if n, ok := ds.Int(tag); ok && n >= 0 && n <= 1<<16 {
			return int(n)
		}
		return int(absent)
	}
	s := shape{
		rows: number(tagRows, 0), columns: number(tagColumns, 0), samples: number(tagSamples, 1),
		allocated: number(tagBitsAllocated, 8), photometric: ds.String(tagPhotometric),
		signed: number(tagRepresentation, 0) == 1, planar: number(tagPlanar, 0) == 1,
	}
	s.stored = number(tagBitsStored, int64(s.allocated))
	s.high = number(tagHighBit, int64(s.stored)-1)
	switch {
	case s.rows == 0 || s.columns == 0:
		return s, fault.New(fault.NotFound, "the instance has no image")
	case int64(s.rows)*int64(s.columns) > limit:
		return s, fault.New(fault.Unsupported, "frames of %d × %d pixels are not rendered", s.columns, s.rows)
	case s.samples != 1 && s.samples != 3:
		return s, fault.New(fault.Unsupported, "frames of %d samples a pixel are not rendered", s.samples)
	case s.allocated != 1 && s.allocated != 8 && s.allocated != 16 && s.allocated != 32:
		return s, fault.New(fault.Unsupported, "pixels of %d bits are not rendered", s.allocated)
	case s.stored < 1 || s.stored > s.allocated || s.high >= s.allocated || s.high < s.stored-1:
		return s, fault.New(fault.Unsupported, "pixels with %d of %d bits below bit %d are not rendered", s.stored, s.allocated, s.high)
	case s.samples == 3 && s.allocated != 8:
		return s, fault.New(fault.Unsupported, "color of %d bits a sample is not rendered", s.allocated)
	}
	return s, nil
}

// decodeFrame reads and decodes one frame: native, RLE, JPEG Lossless or baseline
// JPEG.
func (c *call) decodeFrame(inst archive.Instance, table *frameTable, frame int) (*raster, error) {
	header := inst.Header()
	size, err := table.size(frame)
	if err != nil {
		return nil, err
	}
	sh, err := shapeOf(header.Dataset, c.limits.Pixels)
	if err != nil {
		return nil, err
	}
	if limit := 8*c.limits.Pixels + 1<<20; size > limit {
		return nil, fault.New(fault.Unsupported, "frames of %d bytes are not rendered", size)
	}
	src, err := inst.Values()
	if err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	if err := table.send(&raw, src, frame, header.Syntax.BigEndian, c.buffers); err != nil {
		return nil, err
	}
	switch {
	case !header.Syntax.Encapsulated:
		return sh.native(raw.Bytes())
	case codec.Lossless(header.Syntax.UID):
		return sh.lossless(header, raw.Bytes())
	case header.Syntax.UID == "1.2.840.10008.1.2.4.50" || header.Syntax.UID == "1.2.840.10008.1.2.4.51":
		return sh.jpeg(raw.Bytes(), c.limits.Pixels)
	}
	return nil, fault.New(fault.Unsupported, "frames in transfer syntax %s cannot be decoded here", header.Syntax.UID)
}

// native takes samples from little endian bytes.
func (sh shape) native(b []byte) (*raster, error) {
	pixels := sh.rows * sh.columns
	if sh.photometric == "YBR_FULL_422" && sh.samples == 3 {
		return sh.native422(b)
	}
	need := (pixels*sh.samples*sh.allocated + 7) / 8
	if len(b) < need {
		return nil, fault.New(fault.Invalid, "a frame has %d bytes instead of %d", len(b), need)
	}
	out := sh.empty()
	for s := range sh.samples {
		plane := out.planes[s]
		for i := range plane {
			at := i*sh.samples + s
			if sh.planar {
				at = s*pixels + i
			}
			plane[i] = sh.value(b, at)
		}
	}
	return out, nil
}

// native422 takes YBR samples whose chrominance is shared by two pixels of a row.
func (sh shape) native422(b []byte) (*raster, error) {
	if sh.columns%2 != 0 || len(b) < sh.rows*sh.columns*2 {
		return nil, fault.New(fault.Unsupported, "the frame is no YBR_FULL_422 of even width")
	}
	out := sh.empty()
	for i := 0; i < sh.rows*sh.columns; i += 2 {
		q := b[i*2 : i*2+4]
		for j := range 2 {
			out.planes[0][i+j] = int32(q[j])
			out.planes[1][i+j], out.planes[2][i+j] = int32(q[2]), int32(q[3])
		}
	}
	return out, nil
}

// empty returns planes of the shape.
func (sh shape) empty() *raster {
	out := &raster{width: sh.columns, height: sh.rows, photometric: sh.photometric}
	for range sh.samples {
		out.planes = append(out.planes, make([]int32, sh.rows*sh.columns))
	}
	return out
}

// value takes the stored bits of sample n.
func (sh shape) value(b []byte, n int) int32 {
	var v uint32
	switch sh.allocated {
	case 1:
		return int32(b[n/8]>>(n%8)) & 1
	case 8:
		v = uint32(b[n])
	case 16:
		v = uint32(binary.LittleEndian.Uint16(b[2*n:]))
	case 32:
		v = binary.LittleEndian.Uint32(b[4*n:])
	}
	v >>= uint(sh.high - sh.stored + 1)
	if sh.stored == 32 {
		return int32(v)
	}
	v &= 1<<sh.stored - 1
	if sh.signed && v>>(sh.stored-1) == 1 {
		return int32(v) - 1<<sh.stored
	}
	return int32(v)
}

// lossless decodes RLE Lossless and JPEG Lossless.
func (sh shape) lossless(header *dicom.Header, b []byte) (*raster, error) {
	image, err := codec.ImageOf(header.Dataset)
	if err != nil {
		return nil, err
	}
	samples, err := codec.Decode(header.Syntax, b, image)
	if err != nil {
		return nil, err
	}
	sh.planar = false
	if image.Subsampled { // each pixel has its own chrominance
		sh.photometric = "YBR_FULL"
	}
	return sh.native(samples)
}

// jpeg decodes baseline JPEG after looking at the size it claims.
func (sh shape) jpeg(b []byte, limit int64) (*raster, error) {
	config, err := jpeg.DecodeConfig(bytes.NewReader(b))
	if err != nil || int64(config.Width)*int64(config.Height) > limit {
		return nil, fault.New(fault.Unsupported, "the frame is no baseline JPEG that can be decoded here")
	}
	picture, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the frame is no valid JPEG")
	}
	box := picture.Bounds()
	sh.rows, sh.columns = box.Dy(), box.Dx()
	gray, isGray := picture.(*image.Gray)
	if isGray {
		sh.samples = 1
		out := sh.empty()
		for y := range sh.rows {
			for x := range sh.columns {
				out.planes[0][y*sh.columns+x] = int32(gray.GrayAt(box.Min.X+x, box.Min.Y+y).Y)
			}
		}
		return out, nil
	}
	// The decoder has undone the color transform.
	sh.samples, sh.photometric = 3, "RGB"
	out := sh.empty()
	for y := range sh.rows {
		for x := range sh.columns {
			p := color.RGBAModel.Convert(picture.At(box.Min.X+x, box.Min.Y+y)).(color.RGBA)
			i := y*sh.columns + x
			out.planes[0][i], out.planes[1][i], out.planes[2][i] = int32(p.R), int32(p.G), int32(p.B)
		}
	}
	return out, nil
}
