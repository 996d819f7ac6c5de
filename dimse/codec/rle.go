package codec

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// decodeRLE undoes RLE Lossless (PS3.5 Annex G): one PackBits segment for each
// byte of each sample, most significant byte first.
func decodeRLE(frame []byte, m Image) ([]byte, error) {
	const header = 64
	width := m.Allocated / 8
	segments := m.Samples * width
	if len(frame) < header {
		return nil, fault.New(fault.Invalid, "RLE: a frame of %d bytes", len(frame))
	}
	if n := binary.LittleEndian.Uint32(frame); width == 0 || segments > 15 || n != uint32(segments) {
		return nil, fault.New(fault.Invalid, "RLE: %d segments where the image has %d", n, segments)
	}
	// Two bytes stand for 128 at most: a frame cannot claim more than it holds.
	if m.Bytes() > 64*int64(len(frame)-header) {
		return nil, fault.New(fault.Invalid, "RLE: a frame of %d bytes for %d × %d pixels", len(frame), m.Columns, m.Rows)
	}
	pixels := m.Rows * m.Columns
	out := make([]byte, m.Bytes())
	for s := range segments {
		start := int(binary.LittleEndian.Uint32(frame[4+4*s:]))
		end := len(frame)
		if s+1 < segments {
			end = int(binary.LittleEndian.Uint32(frame[8+4*s:]))
		}
		if start < header || start > end || end > len(frame) {
			return nil, fault.New(fault.Invalid, "RLE: segment %d lies outside the frame", s+1)
		}
		sample, high := s/width, s%width
		if !unpackBits(frame[start:end], out, sample*width+width-1-high, m.Samples*width, pixels) {
			return nil, fault.New(fault.Invalid, "RLE: segment %d ends early", s+1)
		}
	}
	return out, nil
}

// unpackBits writes n bytes to out[at], out[at+step]…; it reports whether the
// segment held that many. Bytes beyond are padding.
func unpackBits(segment, out []byte, at, step, n int) bool {
	for n > 0 {
		if len(segment) == 0 {
			return false
		}
		control := int8(segment[0])
		segment = segment[1:]
		switch {
		case control >= 0:
			run := min(int(control)+1, n)
			if len(segment) < run {
				return false
			}
			for _, b := range segment[:run] {
				out[at] = b
				at += step
			}
			segment = segment[min(int(control)+1, len(segment)):]
			n -= run
		case control != -128:
			if len(segment) == 0 {
				return false
			}
			run := min(1-int(control), n)
			for range run {
				out[at] = segment[0]
				at += step
			}
			segment = segment[1:]
			n -= run
		}
	}
	return true
}
