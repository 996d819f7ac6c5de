package dicom

import (
	"math/bits"
	"sort"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// Frames tells where the frames of a multi-frame (or single-frame) image lie.
type Frames struct {
	Count   int
	Native  bool
	Bits    int64      // bits per frame, native only; frames may start inside a byte
	Offset  int64      // of the pixel data's value in the data set, native only
	Length  int64      // of the pixel data's value, native only
	Extents [][]Extent // per frame the runs of bytes, encapsulated only
}

// Extent is a run of bytes of a data set.
type Extent struct{ Offset, Length int64 }

// maxFrames bounds Number of Frames: a native 1-bit frame of one pixel cannot
// be told from nonsense, and nobody asks for frame 2³¹.
const maxFrames = 1<<31 - 1

// Frames returns the frame table by the rules of DESIGN §9; fault.NotFound when
// there are no pixels or the frames cannot be told apart.
func (h *Header) Frames() (*Frames, error) {
	pixels := h.pixels()
	if pixels == nil {
		return nil, fault.New(fault.NotFound, "dicom: no pixel data")
	}
	count := int64(1)
	if e := h.Dataset.Get(dict.NumberOfFrames); e != nil && len(e.Value) > 0 {
		n, ok := h.Dataset.Int(dict.NumberOfFrames)
		if !ok || n < 1 || n > maxFrames {
			return nil, fault.New(fault.NotFound, "dicom: number of frames is not a number")
		}
		count = n
	}
	if pixels.Undefined {
		return h.encapsulatedFrames(int(count))
	}
	return h.nativeFrames(pixels, count)
}

// pixels returns the top-level pixel data, cut as it always is.
func (h *Header) pixels() *Element {
	for _, t := range [...]dict.Tag{dict.PixelData, dict.FloatPixelData, dict.DoubleFloatPixelData} {
		if e := h.Dataset.Get(t); e != nil && e.Cut != nil {
			return e
		}
	}
	return nil
}

// nativeFrames divides a value of defined length (PS3.5 §8.1.1, §8.2).
func (h *Header) nativeFrames(pixels *Element, count int64) (*Frames, error) {
	size, ok := h.frameBits(pixels.Tag)
	if !ok {
		return nil, fault.New(fault.NotFound, "dicom: pixel description is missing or senseless")
	}
	hi, total := bits.Mul64(uint64(size), uint64(count))
	if hi != 0 || total > uint64(pixels.Cut.Length)*8 {
		return nil, fault.New(fault.NotFound, "dicom: pixel data is shorter than its description says")
	}
	return &Frames{Count: int(count), Native: true, Bits: size, Offset: pixels.Cut.Offset, Length: pixels.Cut.Length}, nil
}

// frameBits returns rows × columns × samples × bits allocated; two thirds of it
// for YBR_FULL_422, whose chrominance is shared by two pixels.
func (h *Header) frameBits(pixels dict.Tag) (int64, bool) {
	allocated, ok := h.Dataset.Int(dict.BitsAllocated)
	switch pixels {
	case dict.FloatPixelData:
		allocated, ok = 32, true
	case dict.DoubleFloatPixelData:
		allocated, ok = 64, true
	}
	samples := int64(1)
	if n, has := h.Dataset.Int(dict.SamplesPerPixel); has {
		samples = n
	}
	rows, hasRows := h.Dataset.Int(dict.Rows)
	columns, hasColumns := h.Dataset.Int(dict.Columns)
	ok = ok && hasRows && hasColumns
	// Each is at most 16 bits on the wire; the bounds keep the product in 63.
	if !ok || rows < 1 || columns < 1 || samples < 1 || allocated < 1 ||
		rows > 0xFFFF || columns > 0xFFFF || samples > 0xFFFF || allocated > 1<<10 {
		return 0, false
	}
	size := rows * columns * samples * allocated
	switch h.Dataset.String(dict.PhotometricInterpretation) {
	case "YBR_FULL_422", "YBR_PARTIAL_422":
		if samples == 3 {
			size = size / 3 * 2
		}
	}
	return size, true
}

// encapsulatedFrames finds the frames among the fragments.
func (h *Header) encapsulatedFrames(count int) (*Frames, error) {
	starts, lengths, ok := h.frameStarts(count)
	if !ok {
		return nil, fault.New(fault.NotFound, "dicom: %d fragments do not tell %d frames apart", len(h.Fragments), count)
	}
	f := &Frames{Count: count, Extents: make([][]Extent, count)}
	runs := make([]Extent, 0, len(h.Fragments))
	for i := range f.Extents {
		last := len(h.Fragments)
		if i+1 < count {
			last = starts[i+1]
		}
		from := len(runs)
		for _, fragment := range h.Fragments[starts[i]:last] {
			runs = append(runs, Extent{fragment.Offset, fragment.Length})
		}
		f.Extents[i] = runs[from:len(runs):len(runs)]
		if lengths != nil {
			f.Extents[i][0].Length = int64(lengths[i])
		}
	}
	return f, nil
}

// frameStarts returns the first fragment of each frame by the first rule that
// holds: extended offset table, basic offset table, one fragment a frame, one
// frame of all fragments, codestreams. lengths are the extended offset table's.
func (h *Header) frameStarts(count int) (starts []int, lengths []uint64, ok bool) {
	n := len(h.Fragments)
	if count > n || n == 0 {
		return nil, nil, false
	}
	if starts, lengths, ok := h.extendedOffsets(count); ok {
		return starts, lengths, true
	}
	if len(h.BasicOffsets) == count {
		offsets := make([]uint64, count)
		for i, o := range h.BasicOffsets {
			offsets[i] = uint64(o)
		}
		if starts, ok := h.itemsAt(offsets); ok {
			return starts, nil, true
		}
	}
	switch {
	case count == 1:
		return []int{0}, nil, true
	case h.Syntax.Video:
		return nil, nil, false // one stream: its fragments are no frames
	case n == count:
		starts = make([]int, n)
		for i := range starts {
			starts[i] = i
		}
		return starts, nil, true
	}
	for i, f := range h.Fragments {
		if startsCodestream(f.Lead) {
			starts = append(starts, i)
		}
	}
	return starts, nil, len(starts) == count && starts[0] == 0
}

// extendedOffsets reads (7FE0,0001) and (7FE0,0002) (PS3.5 §A.4, PS3.3
// C.7.6.3.1.8): each frame is one fragment of a length given without padding.
func (h *Header) extendedOffsets(count int) (starts []int, lengths []uint64, ok bool) {
	offsets := h.longs(dict.ExtendedOffsetTable)
	lengths = h.longs(dict.ExtendedOffsetTableLengths)
	if len(offsets) != count || len(lengths) != count || count != len(h.Fragments) {
		return nil, nil, false
	}
	if starts, ok = h.itemsAt(offsets); !ok {
		return nil, nil, false
	}
	for i, l := range lengths {
		if l == 0 || l > uint64(h.Fragments[starts[i]].Length) {
			return nil, nil, false
		}
	}
	return starts, lengths, true
}

func (h *Header) longs(t dict.Tag) []uint64 {
	e := h.Dataset.Get(t)
	if e == nil || len(e.Value)&7 != 0 {
		return nil
	}
	o := order(h.Dataset.Syntax.BigEndian)
	v := make([]uint64, len(e.Value)/8)
	for i := range v {
		v[i] = o.Uint64(e.Value[8*i:])
	}
	return v
}

// itemsAt returns the fragments whose items start at the offsets, counted from
// the first fragment's item; false if one does not, if they do not ascend, or
// if the first is not the first fragment.
func (h *Header) itemsAt(offsets []uint64) ([]int, bool) {
	first := h.Fragments[0].Offset
	starts := make([]int, len(offsets))
	for i, o := range offsets {
		n := sort.Search(len(h.Fragments), func(n int) bool { return uint64(h.Fragments[n].Offset-first) >= o })
		if n == len(h.Fragments) || uint64(h.Fragments[n].Offset-first) != o {
			return nil, false
		}
		if i == 0 && n != 0 || i > 0 && n <= starts[i-1] {
			return nil, false
		}
		starts[i] = n
	}
	return starts, true
}

// startsCodestream reports whether a fragment's first bytes begin an image:
// JPEG and JPEG-LS SOI + marker, JPEG 2000 SOC + SIZ, JP2 or JPEG XL signature
// box, JPEG XL codestream. (An RLE frame is always one fragment.)
func startsCodestream(lead uint32) bool {
	return lead>>8 == 0xFFD8FF || lead == 0xFF4FFF51 || lead == 0x0000000C || lead>>16 == 0xFF0A
}

// Runs returns the bytes of the data set in which frame n (from 1) lies, in
// order: also those that it shares with its neighbours where frames begin inside
// a byte. fault.NotFound if there is no such frame.
func (f *Frames) Runs(n int) ([]Extent, error) {
	if n < 1 || n > f.Count {
		return nil, fault.New(fault.NotFound, "dicom: frame %d of %d", n, f.Count)
	}
	if !f.Native {
		return f.Extents[n-1], nil
	}
	from := f.Bits * int64(n-1)
	first, last := from/8, (from+f.Bits+7)/8
	return []Extent{{Offset: f.Offset + first, Length: last - first}}, nil
}

// ReadFrame appends the bytes of frame n (from 1) to b: shifted to a byte
// boundary for frames that straddle bytes (PS3.5 §8.1.1), fragments joined when
// encapsulated. fault.NotFound if there is no such frame.
func (f *Frames) ReadFrame(b []byte, src Source, n int) ([]byte, error) {
	if n < 1 || n > f.Count {
		return b, fault.New(fault.NotFound, "dicom: frame %d of %d", n, f.Count)
	}
	if f.Native {
		return f.readNative(b, src, n)
	}
	for _, x := range f.Extents[n-1] {
		var err error
		if b, err = appendAt(b, src, x.Offset, x.Length); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (f *Frames) readNative(b []byte, src Source, n int) ([]byte, error) {
	shift := uint(f.Bits * int64(n-1) % 8)
	runs, err := f.Runs(n)
	if err != nil {
		return b, err
	}
	at := len(b)
	b, err = appendAt(b, src, runs[0].Offset, runs[0].Length)
	if err != nil {
		return b, err
	}
	frame := b[at:]
	if shift != 0 {
		// Pixels fill bytes from the least significant bit.
		for i := range frame {
			next := byte(0)
			if i+1 < len(frame) {
				next = frame[i+1]
			}
			frame[i] = frame[i]>>shift | next<<(8-shift)
		}
		frame = frame[:(f.Bits+7)/8]
	}
	if extra := uint(f.Bits % 8); extra != 0 {
		frame[len(frame)-1] &= 1<<extra - 1 // the rest belongs to the next frame
	}
	return b[:at+len(frame)], nil
}

// readStep bounds what is allocated before bytes are there.
const readStep = 1 << 20

// appendAt appends length bytes of the source.
func appendAt(b []byte, src Source, offset, length int64) ([]byte, error) {
	for length > 0 {
		n := min(length, readStep)
		at := len(b)
		b = append(b, make([]byte, n)...)
		if err := readAt(src, b[at:], offset); err != nil {
			return b[:at], err
		}
		offset, length = offset+n, length-n
	}
	return b, nil
}
