package codec

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// decodeJPEGLossless decodes a JPEG Lossless frame (ISO/IEC 10918-1 Annex H):
// Huffman coded differences to one of seven predictions.
func decodeJPEGLossless(frame []byte, m Image) ([]byte, error) {
	d := &jpegDecoder{data: frame, image: m}
	if err := d.headers(); err != nil {
		return nil, err
	}
	return d.scan()
}

// The JPEG markers that matter here (ISO/IEC 10918-1 Table B.1).
const (
	markerSOF3 = 0xC3
	markerDHT  = 0xC4
	markerSOI  = 0xD8
	markerEOI  = 0xD9
	markerSOS  = 0xDA
	markerDRI  = 0xDD
)

type jpegDecoder struct {
	data  []byte
	at    int
	image Image

	precision  int
	ids        []byte      // component identifiers, in frame order
	tables     [4]*huffman // DC tables by destination
	components []jpegComponent
	predictor  int
	transform  int // point transform
	restart    int // MCUs between restart markers; 0: none
}

// jpegComponent is a component of the scan.
type jpegComponent struct {
	table *huffman
}

func jpegError(format string, args ...any) error {
	return fault.New(fault.Invalid, "JPEG Lossless: "+format, args...)
}

// headers reads the marker segments up to the start of the scan.
func (d *jpegDecoder) headers() error {
	if len(d.data) < 4 || d.data[0] != 0xFF || d.data[1] != markerSOI {
		return jpegError("no start of image")
	}
	d.at = 2
	for {
		marker, segment, err := d.segment()
		if err != nil {
			return err
		}
		switch marker {
		case markerSOF3:
			err = d.frame(segment)
		case markerDHT:
			err = d.huffmanTables(segment)
		case markerDRI:
			if len(segment) < 2 {
				return jpegError("short restart interval")
			}
			d.restart = int(binary.BigEndian.Uint16(segment))
		case markerSOS:
			return d.scanHeader(segment)
		case markerEOI:
			return jpegError("no scan")
		default:
			if marker >= 0xC0 && marker <= 0xCF && marker != 0xC8 && marker != 0xCC {
				return fault.New(fault.Unsupported, "JPEG process SOF%d is not lossless", marker-0xC0)
			}
		}
		if err != nil {
			return err
		}
	}
}

// segment returns the next marker and its payload.
func (d *jpegDecoder) segment() (byte, []byte, error) {
	for d.at+4 <= len(d.data) {
		if d.data[d.at] != 0xFF {
			return 0, nil, jpegError("no marker at byte %d", d.at)
		}
		marker := d.data[d.at+1]
		if marker == 0xFF { // fill
			d.at++
			continue
		}
		if marker == markerEOI {
			return marker, nil, nil
		}
		length := int(binary.BigEndian.Uint16(d.data[d.at+2:]))
		if length < 2 || d.at+2+length > len(d.data) {
			return 0, nil, jpegError("segment %02X is cut short", marker)
		}
		payload := d.data[d.at+4 : d.at+2+length]
		d.at += 2 + length
		return marker, payload, nil
	}
	return 0, nil, jpegError("cut short in its headers")
}

// frame reads SOF3 and holds it against the image's attributes.
func (d *jpegDecoder) frame(s []byte) error {
	if len(s) < 6 || len(s) < 6+3*int(s[5]) {
		return jpegError("short frame header")
	}
	d.precision = int(s[0])
	rows, columns, n := int(binary.BigEndian.Uint16(s[1:])), int(binary.BigEndian.Uint16(s[3:])), int(s[5])
	if rows != d.image.Rows || columns != d.image.Columns || n != d.image.Samples {
		return jpegError("%d × %d pixels of %d samples where the image has %d × %d of %d",
			columns, rows, n, d.image.Columns, d.image.Rows, d.image.Samples)
	}
	if d.precision < 2 || d.precision > 16 || d.precision > d.image.Allocated {
		return jpegError("%d bits precision for %d bits allocated", d.precision, d.image.Allocated)
	}
	for i := range n {
		if s[7+3*i] != 0x11 {
			return fault.New(fault.Unsupported, "JPEG Lossless: subsampled components")
		}
		d.ids = append(d.ids, s[6+3*i])
	}
	return nil
}

// scanHeader reads SOS.
func (d *jpegDecoder) scanHeader(s []byte) error {
	if len(s) < 1 || len(s) < 4+2*int(s[0]) {
		return jpegError("short scan header")
	}
	n := int(s[0])
	if n != len(d.ids) {
		return fault.New(fault.Unsupported, "JPEG Lossless: components in several scans")
	}
	for i := range n {
		id, destination := s[1+2*i], s[2+2*i]>>4
		if id != d.ids[i] || destination > 3 || d.tables[destination] == nil {
			return jpegError("scan names an unknown component or table")
		}
		d.components = append(d.components, jpegComponent{table: d.tables[destination]})
	}
	d.predictor, d.transform = int(s[1+2*n]), int(s[3+2*n]&15)
	if d.predictor < 1 || d.predictor > 7 || d.transform >= d.precision {
		return jpegError("predictor %d, point transform %d", d.predictor, d.transform)
	}
	return nil
}

// scan decodes the entropy-coded data into samples, colour by pixel.
func (d *jpegDecoder) scan() ([]byte, error) {
	m := d.image
	n := len(d.components)
	// A sample takes a bit at least: a frame cannot claim more than it holds.
	if int64(m.Rows)*int64(m.Columns)*int64(n) > 8*int64(len(d.data)-d.at) {
		return nil, jpegError("%d bytes of entropy-coded data for %d × %d pixels", len(d.data)-d.at, m.Columns, m.Rows)
	}
	out := make([]byte, 0, m.Bytes())
	above, row := make([]uint16, m.Columns*n), make([]uint16, m.Columns*n)
	bits := bitReader{data: d.data[d.at:]}
	left := d.restart
	top := 0 // the first row since the start or the last restart
	for y := range m.Rows {
		for x := range m.Columns {
			fresh := y == 0 && x == 0
			if d.restart > 0 && left == 0 {
				if !bits.restart() {
					return nil, jpegError("no restart marker in row %d", y+1)
				}
				left, fresh, top = d.restart, true, y
			}
			left--
			for i, c := range d.components {
				diff, ok := c.table.difference(&bits)
				if !ok {
					return nil, jpegError("entropy-coded data ends or breaks in row %d", y+1)
				}
				at := x*n + i
				row[at] = uint16(d.predict(above, row, at, n, y == top, fresh) + diff)
			}
		}
		out = d.appendSamples(out, row)
		above, row = row, above
	}
	return out, nil
}

// predict returns the prediction of a sample (Table H.1, and H.1.2.1 for edges)
// from the row above and what is left of it in its own; n is the number of
// components.
func (d *jpegDecoder) predict(above, row []uint16, at, n int, first, fresh bool) int {
	switch {
	case fresh:
		return 1 << (d.precision - d.transform - 1)
	case first && at >= n:
		return int(row[at-n])
	case at < n:
		return int(above[at])
	}
	a, b, c := int(row[at-n]), int(above[at]), int(above[at-n])
	switch d.predictor {
	case 1:
		return a
	case 2:
		return b
	case 3:
		return c
	case 4:
		return a + b - c
	case 5:
		return a + (b-c)>>1
	case 6:
		return b + (a-c)>>1
	}
	return (a + b) >> 1
}

// appendSamples widens decoded values to the image's bits allocated; signed ones
// get their sign from Bits Stored, as encoders know nothing of it.
func (d *jpegDecoder) appendSamples(out []byte, row []uint16) []byte {
	width := d.image.Allocated / 8
	extend := d.image.Signed && d.image.Stored > 0 && d.image.Stored < d.image.Allocated && d.precision <= d.image.Stored
	for _, v := range row {
		v := uint64(v) << d.transform
		if extend && v>>(d.image.Stored-1)&1 == 1 {
			v |= ^uint64(0) << d.image.Stored
		}
		for b := range width {
			out = append(out, byte(v>>(8*b)))
		}
	}
	return out
}

// huffman is a Huffman table for the categories 0 to 16.
type huffman struct {
	fast   [256]uint16 // by the next 8 bits: length<<8 | category, 0 where longer
	counts [17]int
	values []byte
}

// huffmanTables reads DHT.
func (d *jpegDecoder) huffmanTables(s []byte) error {
	for len(s) > 0 {
		if len(s) < 17 || s[0]&15 > 3 {
			return jpegError("short Huffman table, or an unknown destination")
		}
		h := &huffman{}
		total, code := 0, 0
		for l := 1; l <= 16; l++ {
			h.counts[l] = int(s[l])
			total += h.counts[l]
			code = code<<1 + h.counts[l]
			if code > 1<<l {
				return jpegError("a Huffman table with too many codes")
			}
		}
		if total > 17 || len(s) < 17+total {
			return jpegError("a Huffman table of %d values", total)
		}
		h.values = s[17 : 17+total]
		for _, v := range h.values {
			if v > 16 {
				return jpegError("difference category %d", v)
			}
		}
		h.accelerate()
		if s[0]>>4 == 0 {
			d.tables[s[0]&15] = h
		}
		s = s[17+total:]
	}
	return nil
}

func (h *huffman) accelerate() {
	code, k := 0, 0
	for l := 1; l <= 8; l++ {
		for range h.counts[l] {
			first := code << (8 - l)
			for i := range 1 << (8 - l) {
				h.fast[first+i] = uint16(l)<<8 | uint16(h.values[k])
			}
			code++
			k++
		}
		code <<= 1
	}
}

// difference decodes one difference (H.1.2.2).
func (h *huffman) difference(b *bitReader) (int, bool) {
	category, ok := h.category(b)
	switch {
	case !ok:
		return 0, false
	case category == 0:
		return 0, true
	case category == 16:
		return 32768, true
	}
	v, ok := b.take(category)
	if v < 1<<(category-1) {
		v -= 1<<category - 1
	}
	return v, ok
}

func (h *huffman) category(b *bitReader) (int, bool) {
	b.fill()
	if e := h.fast[b.bits>>56]; e != 0 {
		return int(e & 255), b.drop(int(e >> 8))
	}
	first, k := 0, 0
	for l := 1; l <= 16; l++ {
		code := int(b.bits >> (64 - l))
		if i := code - first; i < h.counts[l] {
			return int(h.values[k+i]), b.drop(l)
		}
		k += h.counts[l]
		first = (first + h.counts[l]) << 1
	}
	return 0, false
}

// bitReader reads entropy-coded bits, most significant first, and stops at
// markers.
type bitReader struct {
	data []byte
	at   int
	bits uint64 // left aligned
	n    int
}

func (b *bitReader) fill() {
	for b.n <= 56 && b.at < len(b.data) {
		v := b.data[b.at]
		if v == 0xFF {
			if b.at+1 >= len(b.data) || b.data[b.at+1] != 0 {
				return
			}
			b.at++
		}
		b.at++
		b.bits |= uint64(v) << (56 - b.n)
		b.n += 8
	}
}

func (b *bitReader) drop(n int) bool {
	if n > b.n {
		return false
	}
	b.bits <<= n
	b.n -= n
	return true
}

func (b *bitReader) take(n int) (int, bool) {
	b.fill()
	v := int(b.bits >> (64 - n))
	return v, b.drop(n)
}

// restart skips to behind the next restart marker.
func (b *bitReader) restart() bool {
	b.bits, b.n = 0, 0
	for b.at+1 < len(b.data) {
		if b.data[b.at] == 0xFF && b.data[b.at+1] >= 0xD0 && b.data[b.at+1] <= 0xD7 {
			b.at += 2
			return true
		}
		b.at++
	}
	return false
}
