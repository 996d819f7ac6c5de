package pack

import "encoding/binary"

// Samples tells the compressor how native pixel data lies in an instance.
// The zero value means none: everything is general bytes. What does not fit the
// instance is ignored, for a hint must never keep an instance from being stored.
type Samples struct {
	Offset    int64 // first byte of the pixel data in the stored data set
	Length    int64 // its bytes
	Width     int   // samples per row and plane: columns (× samples when interleaved)
	Bytes     int   // per sample: 1, 2 or 4
	Stride    int   // samples between neighbours of one colour: 1, or 3 for colour-by-pixel
	BigEndian bool
}

// maxStride is the most colours of a pixel; PS3.3 C.7.6.3.1.1 knows up to 4.
const maxStride = 4

// usable reports whether the samples lie within an instance of size bytes and
// rows fit a chunk.
func (s Samples) usable(size int64) bool {
	switch s.Bytes {
	case 1, 2, 4:
	default:
		return false
	}
	return s.Width > 0 && s.Width <= maxRowBytes/s.Bytes &&
		s.Stride > 0 && s.Stride <= maxStride && s.Width%s.Stride == 0 &&
		s.Offset >= 0 && s.Offset <= size && s.Length > 0 && s.Length <= size-s.Offset
}

// rowBytes is the length of a row.
func (s Samples) rowBytes() int { return s.Width * s.Bytes }

// sample is the unsigned integer that holds a sample.
type sample interface{ ~uint8 | ~uint16 | ~uint32 }

// load reads every step-th sample of a row of bytes, with its top bit turned by
// bias.
func load[T sample](dst []T, src []byte, step int, bigEndian bool, bias T) {
	switch d := any(dst).(type) {
	case []uint8:
		b := uint8(bias)
		for i := range d {
			d[i] = src[i*step] ^ b
		}
	case []uint16:
		load16(d, src, step, bigEndian, uint16(bias))
	case []uint32:
		for i := range d {
			v := binary.LittleEndian.Uint32(src[i*step*4:])
			if bigEndian {
				v = binary.BigEndian.Uint32(src[i*step*4:])
			}
			d[i] = v ^ uint32(bias)
		}
	}
}

// load16 is the common case: one loop for neighbours in little endian.
func load16(dst []uint16, src []byte, step int, bigEndian bool, bias uint16) {
	if step == 1 && !bigEndian {
		src = src[:2*len(dst)]
		for i := range dst {
			dst[i] = binary.LittleEndian.Uint16(src[2*i:2*i+2]) ^ bias
		}
		return
	}
	for i := range dst {
		v := binary.LittleEndian.Uint16(src[i*step*2:])
		if bigEndian {
			v = v<<8 | v>>8
		}
		dst[i] = v ^ bias
	}
}

// store is the reverse of load.
func store[T sample](dst []byte, src []T, step int, bigEndian bool, bias T) {
	switch s := any(src).(type) {
	case []uint8:
		b := uint8(bias)
		for i, v := range s {
			dst[i*step] = v ^ b
		}
	case []uint16:
		store16(dst, s, step, bigEndian, uint16(bias))
	case []uint32:
		for i, v := range s {
			v ^= uint32(bias)
			if bigEndian {
				binary.BigEndian.PutUint32(dst[i*step*4:], v)
			} else {
				binary.LittleEndian.PutUint32(dst[i*step*4:], v)
			}
		}
	}
}

func store16(dst []byte, src []uint16, step int, bigEndian bool, bias uint16) {
	if step == 1 && !bigEndian {
		dst = dst[:2*len(src)]
		whole := len(src) &^ 3 // four at a time: most of what is read comes through here
		for i := 0; i < whole; i += 4 {
			four := src[i : i+4 : i+4]
			binary.LittleEndian.PutUint64(dst[2*i:2*i+8], uint64(four[0]^bias)|uint64(four[1]^bias)<<16|uint64(four[2]^bias)<<32|uint64(four[3]^bias)<<48)
		}
		dst, src = dst[2*whole:], src[whole:]
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:2*i+2], v^bias)
		}
		return
	}
	for i, v := range src {
		v ^= bias
		if bigEndian {
			v = v<<8 | v>>8
		}
		binary.LittleEndian.PutUint16(dst[i*step*2:], v)
	}
}
