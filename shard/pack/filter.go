package pack

// A chunk's filter, as it stands in the manifest. The numbers are part of the
// format.
const (
	filterStored    = 0 // the bytes themselves
	filterBytes     = 1 // zstd of the bytes
	filterLeft      = 2 // zstd of the planes of left residuals
	filterMED       = 3 // zstd of the planes of MED residuals
	filterMEDSigned = 4 // the same with every sample's top bit turned
	filters         = 5
)

// sampled reports whether a filter works on samples.
func sampled(filter byte) bool { return filter >= filterLeft && filter < filters }

// rows is the scratch memory of one direction: the row before and two rows.
type rows[T sample] struct{ prev, first, second, folded []T }

func (r *rows[T]) reset(width int) {
	if cap(r.prev) < width {
		r.prev, r.first, r.second, r.folded = make([]T, width), make([]T, width), make([]T, width), make([]T, width)
	}
	r.prev, r.first, r.second, r.folded = r.prev[:width], r.first[:width], r.second[:width], r.folded[:width]
	clear(r.prev)
}

// filterer splits samples into planes of residual bytes and joins them again.
// Not for concurrent use.
type filterer struct {
	r8  rows[uint8]
	r16 rows[uint16]
	r32 rows[uint32]
}

// split writes src's residuals to planes, of the same length: for each colour,
// for each byte of a sample from the lowest, the bytes of all rows. len(src) is
// whole rows of s.
func (f *filterer) split(planes, src []byte, s Samples, filter byte) {
	switch s.Bytes {
	case 1:
		split(&f.r8, planes, src, s, filter)
	case 2:
		split16(&f.r16, planes, src, s, filter)
	case 4:
		split(&f.r32, planes, src, s, filter)
	}
}

// join is the reverse of split.
func (f *filterer) join(dst, planes []byte, s Samples, filter byte) {
	switch s.Bytes {
	case 1:
		join(&f.r8, dst, planes, s, filter)
	case 2:
		join16(&f.r16, dst, planes, s, filter)
	case 4:
		join(&f.r32, dst, planes, s, filter)
	}
}

func split16(r *rows[uint16], planes, src []byte, s Samples, filter byte) {
	width, size := s.Width/s.Stride, s.rowBytes()
	height := len(src) / size
	plane := width * height
	bias := uint16(0)
	if filter == filterMEDSigned {
		bias = 1 << 15
	}
	for colour := range s.Stride {
		r.reset(width)
		lo := planes[2*colour*plane:][:plane]
		hi := planes[(2*colour+1)*plane:][:plane]
		for y := range height {
			load16(r.first, src[y*size+2*colour:], s.Stride, s.BigEndian, bias)
			at := y * width
			if filter == filterLeft {
				leftResidual16(lo[at:], hi[at:], r.first, r.prev)
			} else {
				medResidual16(lo[at:], hi[at:], r.first, r.prev)
			}
			r.prev, r.first = r.first, r.prev
		}
	}
}

func join16(r *rows[uint16], dst, planes []byte, s Samples, filter byte) {
	width, size := s.Width/s.Stride, s.rowBytes()
	height := len(dst) / size
	plane := width * height
	bias := uint16(0)
	if filter == filterMEDSigned {
		bias = 1 << 15
	}
	for colour := range s.Stride {
		r.reset(width)
		lo := planes[2*colour*plane:][:plane]
		hi := planes[(2*colour+1)*plane:][:plane]
		row := func(y int) []byte { return dst[y*size+2*colour:] }
		y := 0
		for ; filter != filterLeft && y+1 < height; y += 2 {
			at := y * width
			medRestorePair16(r.first, r.second, r.prev, lo[at:], hi[at:])
			store16(row(y), r.first, s.Stride, s.BigEndian, bias)
			store16(row(y+1), r.second, s.Stride, s.BigEndian, bias)
			r.prev, r.second = r.second, r.prev
		}
		for ; y < height; y++ {
			at := y * width
			if filter == filterLeft {
				leftRestore16(r.first, r.prev, lo[at:], hi[at:])
			} else {
				medRestore16(r.first, r.prev, lo[at:], hi[at:])
			}
			store16(row(y), r.first, s.Stride, s.BigEndian, bias)
			r.prev, r.first = r.first, r.prev
		}
	}
}

func split[T sample](r *rows[T], planes, src []byte, s Samples, filter byte) {
	width, size := s.Width/s.Stride, s.rowBytes()
	height := len(src) / size
	plane := width * height
	bits := 8 * s.Bytes
	bias := T(0)
	if filter == filterMEDSigned {
		bias = 1 << (bits - 1)
	}
	for colour := range s.Stride {
		r.reset(width)
		for y := range height {
			load(r.first, src[y*size+colour*s.Bytes:], s.Stride, s.BigEndian, bias)
			if filter == filterLeft {
				leftResidual(r.folded, r.first, r.prev, bits)
			} else {
				medResidual(r.folded, r.first, r.prev, bits)
			}
			for j := range s.Bytes {
				out := planes[(colour*s.Bytes+j)*plane+y*width:][:width]
				for i, v := range r.folded {
					out[i] = byte(v >> (8 * j))
				}
			}
			r.prev, r.first = r.first, r.prev
		}
	}
}

func join[T sample](r *rows[T], dst, planes []byte, s Samples, filter byte) {
	width, size := s.Width/s.Stride, s.rowBytes()
	height := len(dst) / size
	plane := width * height
	bits := 8 * s.Bytes
	bias := T(0)
	if filter == filterMEDSigned {
		bias = 1 << (bits - 1)
	}
	for colour := range s.Stride {
		r.reset(width)
		for y := range height {
			clear(r.folded)
			for j := range s.Bytes {
				in := planes[(colour*s.Bytes+j)*plane+y*width:][:width]
				for i, v := range in {
					r.folded[i] |= T(v) << (8 * j)
				}
			}
			if filter == filterLeft {
				leftRestore(r.first, r.prev, r.folded)
			} else {
				medRestore(r.first, r.prev, r.folded)
			}
			store(dst[y*size+colour*s.Bytes:], r.first, s.Stride, s.BigEndian, bias)
			r.prev, r.first = r.first, r.prev
		}
	}
}
