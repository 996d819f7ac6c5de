package web

import (
	"io"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// The pixel data elements (PS3.3 C.7.6.3, C.7.6.24).
const (
	tagFloatPixels  = dict.Tag(0x7FE00008)
	tagDoublePixels = dict.Tag(0x7FE00009)
	tagPixels       = dict.Tag(0x7FE00010)
)

// frameTable is what is needed of an instance to send its frames.
type frameTable struct {
	frames *dicom.Frames
	unit   int // bytes that big endian swaps together; 1: none
}

// numbered names an instance by its local number at the node that stores it.
type numbered struct {
	origin string
	number uint64
}

// frameTable returns the frame table of an opened instance, kept for the next
// request when the archive numbers it.
func (h *Handler) frameTable(inst archive.Instance) (*frameTable, error) {
	ref := inst.Ref()
	name := numbered{ref.Origin, ref.Number}
	if name.number != 0 {
		if t, ok := h.tables.get(name); ok {
			return t, nil
		}
	}
	header := inst.Header()
	frames, err := header.Frames()
	if err != nil {
		return nil, err
	}
	t := &frameTable{frames: frames, unit: 1}
	if header.Syntax.BigEndian && frames.Native {
		for _, tag := range []dict.Tag{tagPixels, tagFloatPixels, tagDoublePixels} {
			if e := header.Dataset.Get(tag); e != nil {
				t.unit = e.VR.Size()
				break
			}
		}
	}
	if name.number != 0 {
		bytes := int64(256)
		for _, runs := range frames.Extents {
			bytes += 24 + 16*int64(len(runs))
		}
		h.tables.put(name, t, bytes)
	}
	return t, nil
}

// size returns the bytes of frame n, from 1; fault.NotFound outside the table.
func (t *frameTable) size(n int) (int64, error) {
	f := t.frames
	if n < 1 || n > f.Count {
		return 0, fault.New(fault.NotFound, "there is no frame %d; the instance has %d", n, f.Count)
	}
	if f.Native {
		return (f.Bits + 7) / 8, nil
	}
	var size int64
	for _, run := range f.Extents[n-1] {
		size += run.Length
	}
	return size, nil
}

// runs returns where frame n lies, or nil when it starts or ends inside a byte.
func (t *frameTable) runs(n int) []dicom.Extent {
	if t.frames.Native && t.frames.Bits%8 != 0 {
		return nil
	}
	runs, err := t.frames.Runs(n)
	if err != nil {
		return nil // and ReadFrame says why
	}
	return runs
}

// send writes frame n. swap asks for the other byte order than the stored one.
func (t *frameTable) send(w io.Writer, src io.ReaderAt, n int, swap bool, buffers *copyBuffers) error {
	if swap && t.unit > 1 {
		src = &swappedReader{src: src, from: t.frames.Offset, length: t.frames.Length, unit: t.unit}
	}
	runs := t.runs(n)
	if runs == nil {
		b, err := t.frames.ReadFrame(nil, src, n)
		if err != nil {
			return err
		}
		return writeAll(w, b)
	}
	for _, run := range runs {
		if err := buffers.copyAt(w, src, run.Offset, run.Length); err != nil {
			return err
		}
	}
	return nil
}

// swappedReader reads a value in the other byte order.
type swappedReader struct {
	src          io.ReaderAt
	from, length int64 // the value in src
	unit         int   // 2, 4 or 8
}

// ReadAt reads whole units around what is asked for and gives that part of them.
func (s *swappedReader) ReadAt(p []byte, off int64) (int, error) {
	unit := int64(s.unit)
	rel := off - s.from
	lead := rel % unit
	if lead < 0 || rel < 0 {
		return 0, io.EOF // before the value: nobody asks
	}
	if lead == 0 && int64(len(p))%unit == 0 {
		n, err := s.src.ReadAt(p, off)
		swapBytes(p[:n-n%s.unit], s.unit)
		return n, err
	}
	whole := (lead + int64(len(p)) + unit - 1) / unit * unit
	if rest := s.length - (rel - lead); whole > rest {
		whole = rest
	}
	if whole <= lead {
		return 0, io.EOF
	}
	b := make([]byte, whole)
	n, err := s.src.ReadAt(b, off-lead)
	swapBytes(b[:n-n%s.unit], s.unit)
	if int64(n) <= lead {
		return 0, err
	}
	n = copy(p, b[lead:n])
	if n == len(p) {
		err = nil
	} else if err == nil {
		err = io.EOF
	}
	return n, err
}

// swapBytes reverses each unit in place.
func swapBytes(b []byte, unit int) {
	for ; len(b) >= unit; b = b[unit:] {
		for i, j := 0, unit-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
	}
}
