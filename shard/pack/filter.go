package pack

import "encoding/binary"

// A chunk's filter, as it stands in the manifest. The numbers are part of the
// format.
const (
	filterStored           = 0 // the bytes themselves
	filterBytes            = 1 // zstd of the bytes
	filterGradient         = 2 // Huffman codes of the planes of residuals from a+b-c
	filterMED              = 3 // … from MED
	filterMEDSigned        = 4 // … from MED, every sample's top bit turned
	filterMEDRepeats       = 5 // zstd of the planes of filterMED
	filterMEDSignedRepeats = 6 // zstd of the planes of filterMEDSigned
	filters                = 7
)

// sampled reports whether a filter works on samples.
func sampled(filter byte) bool { return filter >= filterGradient && filter < filters }

// repeats reports whether a filter of samples is for planes that repeat.
func repeats(filter byte) bool { return filter >= filterMEDRepeats }

// predictor is the filter whose planes a filter of samples compresses.
func predictor(filter byte) byte {
	if repeats(filter) {
		return filter - (filterMEDRepeats - filterMED)
	}
	return filter
}

// rows is the scratch memory of one width of samples.
type rows[T sample] struct{ prev, cur, residual []T }

func (r *rows[T]) reset(width int) {
	if cap(r.prev) < width {
		r.prev, r.cur, r.residual = make([]T, width), make([]T, width), make([]T, width)
	}
	r.prev, r.cur, r.residual = r.prev[:width], r.cur[:width], r.residual[:width]
	clear(r.prev)
}

// filterer splits samples into planes of digits of residuals and joins them
// again. Not for concurrent use.
type filterer struct {
	r8    rows[uint8]
	r16   rows[uint16]
	r32   rows[uint32]
	above []byte // of the first row
}

// split writes src's residuals to planes, of the same length: for each colour,
// for each digit of a residual from the lowest, the digits of all rows. len(src)
// is whole rows of s.
func (f *filterer) split(planes, src []byte, s Samples, filter byte) {
	filter = predictor(filter)
	switch {
	case s.direct():
		f.split16(planes, src, s, filter)
	case s.Bytes == 1:
		split(&f.r8, planes, src, s, filter)
	case s.Bytes == 2:
		split(&f.r16, planes, src, s, filter)
	case s.Bytes == 4:
		split(&f.r32, planes, src, s, filter)
	}
}

// join is the reverse of split.
func (f *filterer) join(dst, planes []byte, s Samples, filter byte) {
	filter = predictor(filter)
	switch {
	case s.direct():
		f.join16(dst, planes, s, filter)
	case s.Bytes == 1:
		join(&f.r8, dst, planes, s, filter)
	case s.Bytes == 2:
		join(&f.r16, dst, planes, s, filter)
	case s.Bytes == 4:
		join(&f.r32, dst, planes, s, filter)
	}
}

// firstAbove is what stands above the first row of samples of 16 bits: zeros,
// after the top bit was turned where the filter says so.
func (f *filterer) firstAbove(size int, filter byte) []byte {
	f.above = grow(f.above, edge+size+edge)
	clear(f.above)
	row := f.above[edge : edge+size]
	if filter == filterMEDSigned {
		for i := 0; i < size; i += 2 {
			binary.LittleEndian.PutUint16(row[i:], 1<<15)
		}
	}
	return row
}

func (f *filterer) split16(planes, src []byte, s Samples, filter byte) {
	width, size := s.Width, s.rowBytes()
	lo, hi := planes[:len(src)/2], planes[len(src)/2:]
	above := f.firstAbove(size, filter)
	for len(src) > 0 {
		row := src[:size]
		switch filter {
		case filterGradient:
			gradientSplit16(lo[:width], hi[:width], row, above)
		case filterMED:
			medSplit16[uint16](lo[:width], hi[:width], row, above)
		case filterMEDSigned:
			medSplit16[int16](lo[:width], hi[:width], row, above)
		}
		above, src, lo, hi = row, src[size:], lo[width:], hi[width:]
	}
}

func (f *filterer) join16(dst, planes []byte, s Samples, filter byte) {
	width, size := s.Width, s.rowBytes()
	lo, hi := planes[:len(dst)/2], planes[len(dst)/2:]
	above := f.firstAbove(size, filter)
	if filter != filterGradient {
		more := hi[:min(len(hi)+1, cap(hi))]
		if done := medJoinEights(dst, planes, more, f.above, width, topBit[uint16](s, filter)); done > 0 {
			above, dst, lo, hi = dst[done-size:done], dst[done:], lo[done/2:], hi[done/2:]
		}
	}
	for len(dst) > 0 {
		row := dst[:size]
		switch {
		case filter == filterGradient:
			gradientJoin16(row, above, lo[:width], hi[:width])
		case len(dst) == size: // the last of an odd number
			residuals16(row, lo, hi)
			medJoin(filter, row, above)
		default:
			first := row
			row = dst[size : 2*size]
			residuals16(dst[:2*size], lo[:2*width], hi[:2*width])
			medJoinPair(filter, first, row, above)
			dst, lo, hi = dst[size:], lo[width:], hi[width:]
		}
		above, dst, lo, hi = row, dst[size:], lo[width:], hi[width:]
	}
}

func medJoin(filter byte, row, above []byte) {
	if filter == filterMEDSigned {
		medJoin16[int16](row, above)
	} else {
		medJoin16[uint16](row, above)
	}
}

func medJoinPair(filter byte, row1, row2, above []byte) {
	if filter == filterMEDSigned {
		medJoinPair16[int16](row1, row2, above)
	} else {
		medJoinPair16[uint16](row1, row2, above)
	}
}

// topBit is what turns the top bit of a sample where a filter says so.
func topBit[T sample](s Samples, filter byte) T {
	if filter == filterMEDSigned {
		return 1 << (8*s.Bytes - 1)
	}
	return 0
}

func split[T sample](r *rows[T], planes, src []byte, s Samples, filter byte) {
	width, size := s.Width/s.Stride, s.rowBytes()
	height := len(src) / size
	plane := width * height
	turn, bias := topBit[T](s, filter), digitBias(s.Bytes)
	for colour := range s.Stride {
		r.reset(width)
		for y := range height {
			load(r.cur, src[y*size+colour*s.Bytes:], s.Stride, s.BigEndian, turn)
			if filter == filterGradient {
				gradientResidual(r.residual, r.cur, r.prev)
			} else {
				medResidual(r.residual, r.cur, r.prev)
			}
			for j := range s.Bytes {
				writeDigit(planes[(colour*s.Bytes+j)*plane+y*width:], r.residual, j, bias)
			}
			r.prev, r.cur = r.cur, r.prev
		}
	}
}

func join[T sample](r *rows[T], dst, planes []byte, s Samples, filter byte) {
	width, size := s.Width/s.Stride, s.rowBytes()
	height := len(dst) / size
	plane := width * height
	turn := topBit[T](s, filter)
	for colour := range s.Stride {
		r.reset(width)
		for y := range height {
			clear(r.residual)
			for j := range s.Bytes {
				addDigit(r.residual, planes[(colour*s.Bytes+j)*plane+y*width:], j)
			}
			if filter == filterGradient {
				gradientRestore(r.cur, r.prev, r.residual)
			} else {
				medRestore(r.cur, r.prev, r.residual)
			}
			store(dst[y*size+colour*s.Bytes:], r.cur, s.Stride, s.BigEndian, turn)
			r.prev, r.cur = r.cur, r.prev
		}
	}
}
