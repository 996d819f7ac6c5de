package web

import (
	"encoding/binary"
	"image"
	"image/color"
	"math"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// Sequences in which enhanced multi-frame images keep what others have at the
// top (PS3.3 C.7.6.16).
const (
	tagShared         = dict.Tag(0x52009229)
	tagPerFrame       = dict.Tag(0x52009230)
	tagFrameVOI       = dict.Tag(0x00289132)
	tagPixelTransform = dict.Tag(0x00289145)
)

// frameText returns an attribute of a frame: its own group's, the shared one, or
// the top level's.
func frameText(ds *dicom.Dataset, group, tag dict.Tag, frame int) string {
	if e := ds.Get(tagPerFrame); e != nil && frame <= len(e.Items) {
		if v := groupText(e.Items[frame-1], group, tag); v != "" {
			return v
		}
	}
	if e := ds.Get(tagShared); e != nil && len(e.Items) > 0 {
		if v := groupText(e.Items[0], group, tag); v != "" {
			return v
		}
	}
	return ds.String(tag)
}

func groupText(ds *dicom.Dataset, group, tag dict.Tag) string {
	if e := ds.Get(group); e != nil && len(e.Items) > 0 {
		return e.Items[0].String(tag)
	}
	return ""
}

// decimal reads a DS value.
func decimal(s string, absent float64) (float64, bool) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !finite(f) {
		return absent, false
	}
	return f, true
}

// picture turns samples into what is shown.
func (s *raster) picture(inst archive.Instance, frame int, asked *window) (image.Image, error) {
	switch photometric := s.photometric; {
	case len(s.planes) == 1 && photometric == "PALETTE COLOR":
		return s.palette(inst)
	case len(s.planes) == 1:
		return s.gray(inst.Header().Dataset, frame, asked), nil
	case photometric == "RGB":
		return s.color(func(r, g, b uint8) color.RGBA { return color.RGBA{r, g, b, 255} }), nil
	case photometric == "YBR_FULL" || photometric == "YBR_FULL_422":
		return s.color(func(y, cb, cr uint8) color.RGBA {
			r, g, b := color.YCbCrToRGB(y, cb, cr)
			return color.RGBA{r, g, b, 255}
		}), nil
	}
	return nil, fault.New(fault.Unsupported, "frames of photometric interpretation %s are not rendered", trimText(printable(s.photometric), 32))
}

// color joins three planes of bytes.
func (s *raster) color(mix func(a, b, c uint8) color.RGBA) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, s.width, s.height))
	for i := range s.planes[0] {
		p := mix(uint8(s.planes[0][i]), uint8(s.planes[1][i]), uint8(s.planes[2][i]))
		out.Pix[4*i], out.Pix[4*i+1], out.Pix[4*i+2], out.Pix[4*i+3] = p.R, p.G, p.B, 255
	}
	return out
}

// gray applies modality rescale, window and inversion (PS3.4 §N.2).
func (s *raster) gray(ds *dicom.Dataset, frame int, asked *window) image.Image {
	slope, ok := decimal(frameText(ds, tagPixelTransform, tagSlope, frame), 1)
	if !ok || slope == 0 {
		slope = 1
	}
	intercept, _ := decimal(frameText(ds, tagPixelTransform, tagIntercept, frame), 0)
	w := asked
	if w == nil {
		w = storedWindow(ds, frame)
	}
	if w == nil {
		w = s.fullWindow(slope, intercept)
	}
	inverse := s.photometric == "MONOCHROME1" != (ds.String(tagLUTShape) == "INVERSE")
	out := image.NewGray(image.Rect(0, 0, s.width, s.height))
	level := func(v int32) uint8 {
		g := w.apply(float64(v)*slope + intercept)
		if inverse {
			g = 255 - g
		}
		return g
	}
	low, high := s.extremes()
	if int64(high)-int64(low) >= 1<<16 { // 32-bit pixels: a table would be larger than the frame
		for i, v := range s.planes[0] {
			out.Pix[i] = level(v)
		}
		return out
	}
	table := make([]uint8, high-low+1)
	for i := range table {
		table[i] = level(low + int32(i))
	}
	for i, v := range s.planes[0] {
		out.Pix[i] = table[v-low]
	}
	return out
}

// storedWindow returns the first window that the instance itself proposes.
func storedWindow(ds *dicom.Dataset, frame int) *window {
	center, ok1 := decimal(frameText(ds, tagFrameVOI, tagWindowCenter, frame), 0)
	width, ok2 := decimal(frameText(ds, tagFrameVOI, tagWindowWidth, frame), 0)
	if !ok1 || !ok2 || width <= 0 {
		return nil
	}
	w := &window{center, width, "LINEAR"}
	if f := frameText(ds, tagFrameVOI, tagVOIFunction, frame); f == "SIGMOID" || f == "LINEAR_EXACT" {
		w.function = f
	}
	return w
}

// fullWindow spans the values that occur.
func (s *raster) fullWindow(slope, intercept float64) *window {
	low, high := s.extremes()
	a, b := float64(low)*slope+intercept, float64(high)*slope+intercept
	if a > b {
		a, b = b, a
	}
	return &window{center: (a + b) / 2, width: max(b-a, 1), function: "LINEAR_EXACT"}
}

// extremes returns the least and the greatest sample.
func (s *raster) extremes() (low, high int32) {
	low, high = s.planes[0][0], s.planes[0][0]
	for _, v := range s.planes[0] {
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

// apply maps a value to a gray level (PS3.3 C.11.2.1.2.1, C.11.2.1.3).
func (w *window) apply(x float64) uint8 {
	var y float64
	switch w.function {
	case "SIGMOID":
		y = 255 / (1 + math.Exp(-4*(x-w.center)/w.width))
	case "LINEAR_EXACT":
		y = ((x-w.center)/w.width + 0.5) * 255
	default:
		switch low, high := w.center-0.5-(w.width-1)/2, w.center-0.5+(w.width-1)/2; {
		case x <= low:
			y = 0
		case x > high:
			y = 255
		default:
			y = ((x-(w.center-0.5))/(w.width-1) + 0.5) * 255
		}
	}
	return uint8(math.Round(min(max(y, 0), 255)))
}

// palette looks colors up (PS3.3 C.7.9).
func (s *raster) palette(inst archive.Instance) (image.Image, error) {
	var tables [3][]uint8
	var first int32
	for i := range tables {
		t, from, err := paletteTable(inst, dict.Tag(0x00281101+i), dict.Tag(0x00281201+i))
		if err != nil {
			return nil, err
		}
		tables[i], first = t, from
	}
	out := image.NewRGBA(image.Rect(0, 0, s.width, s.height))
	for i, v := range s.planes[0] {
		at := int(v) - int(first)
		for j, t := range tables {
			out.Pix[4*i+j] = t[min(max(at, 0), len(t)-1)]
		}
		out.Pix[4*i+3] = 255
	}
	return out, nil
}

// paletteTable reads one color's table, 8 or 16 bits an entry, as 8.
func paletteTable(inst archive.Instance, descriptor, data dict.Tag) ([]uint8, int32, error) {
	header := inst.Header()
	ds := header.Dataset
	bad := fault.New(fault.Unsupported, "the palette of the image cannot be read here")
	numbers := ds.Strings(descriptor)
	e := ds.Get(data)
	if len(numbers) != 3 || e == nil {
		return nil, 0, bad
	}
	count, err1 := strconv.Atoi(numbers[0])
	first, err2 := strconv.ParseInt(numbers[1], 10, 32)
	bits, err3 := strconv.Atoi(numbers[2])
	if err1 != nil || err2 != nil || err3 != nil || bits != 8 && bits != 16 {
		return nil, 0, bad
	}
	if count == 0 {
		count = 1 << 16
	}
	if count < 0 { // a count above 32,767 read as SS
		count += 1 << 16
	}
	src, size, err := valueOf(inst, e)
	if err != nil {
		return nil, 0, err
	}
	if size > 1<<18 {
		return nil, 0, bad
	}
	b := make([]byte, size)
	if n, err := src.ReadAt(b, 0); n < len(b) {
		return nil, 0, err
	}
	if header.Syntax.BigEndian {
		swapBytes(b, e.VR.Size())
	}
	out := make([]uint8, count)
	switch {
	case bits == 16 || len(b) >= 2*count: // 8 bits may stand in 16
		if len(b) < 2*count {
			return nil, 0, bad
		}
		for i := range out {
			v := binary.LittleEndian.Uint16(b[2*i:])
			if bits == 16 {
				v >>= 8
			}
			out[i] = uint8(v)
		}
	case len(b) >= count:
		copy(out, b)
	default:
		return nil, 0, bad
	}
	return out, int32(first), nil
}
