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

// direct reports whether samples are the common kind: 16 bits in little endian,
// neighbours side by side.
func (s Samples) direct() bool { return s.Bytes == 2 && s.Stride == 1 && !s.BigEndian }

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
		for i := range d {
			v := binary.LittleEndian.Uint16(src[i*step*2:])
			if bigEndian {
				v = v<<8 | v>>8
			}
			d[i] = v ^ uint16(bias)
		}
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

// store is the reverse of load.
func store[T sample](dst []byte, src []T, step int, bigEndian bool, bias T) {
	switch s := any(src).(type) {
	case []uint8:
		b := uint8(bias)
		for i, v := range s {
			dst[i*step] = v ^ b
		}
	case []uint16:
		for i, v := range s {
			v ^= uint16(bias)
			if bigEndian {
				v = v<<8 | v>>8
			}
			binary.LittleEndian.PutUint16(dst[i*step*2:], v)
		}
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
