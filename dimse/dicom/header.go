package dicom

import (
	"errors"
	"io"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// Cut is a value that a header leaves out.
type Cut struct {
	Tag    dict.Tag
	VR     dict.VR
	At     int64 // offset in Header.Raw where the value would stand
	Offset int64 // offset of the value's first byte in the (inflated) data set
	Length int64 // bytes left out; for encapsulated pixel data all items and the sequence delimiter
}

// Fragment is one item of encapsulated pixel data (PS3.5 §A.4), the basic
// offset table not included.
type Fragment struct {
	Offset int64  // of the item's value in the data set
	Length int64  // of the item's value
	Lead   uint32 // its first four bytes, big endian, zero padded: tells a codestream's start
}

// Header is a data set with its bulk values cut out: everything that metadata,
// queries and frame look-ups need, in the bytes as received.
type Header struct {
	Syntax       dict.TransferSyntax // as received; Raw itself is never deflated
	Raw          []byte              // the data set's bytes less the cuts
	Cuts         []Cut               // ascending
	Fragments    []Fragment          // of the top-level (7FE0,0010), when encapsulated
	BasicOffsets []uint32            // its basic offset table, possibly empty
	Size         int64               // bytes of the whole (inflated) data set
	Dataset      *Dataset            // index over Raw

	elements int // elements and items of all levels
}

// ReadHeader reads one data set to the end of r and returns its header. r
// yields the bytes as received (still deflated for a deflated syntax); whoever
// needs them tees r. It tolerates what real files hold (odd lengths, group
// lengths, trailing padding (FFFC,FFFC), undefined-length UN, wrong-syntax
// nesting of UN) and refuses with fault.Invalid what cannot be delimited: a
// value, item or sequence that is cut short. An error of r itself is passed on.
//
// Values of bulk VRs over 1 KiB, other values over 64 KiB and pixel data of any
// length are cut, in items too (see [Limits]).
func ReadHeader(r io.Reader, syntax dict.TransferSyntax, limits Limits) (*Header, error) {
	limits = limits.filled()
	h := &Header{Syntax: syntax}
	in := r
	if syntax.Deflated {
		in = NewInflater(r, limits)
	}
	buf := scratch.Get().(*[readSize]byte)
	defer scratch.Put(buf)
	g := grammar{limits: limits, src: source{
		r: in, buf: buf[:], raw: make([]byte, 0, 4<<10), maxRaw: limits.HeaderBytes,
	}}
	if err := g.top(new(Dataset), inflated(syntax)); err != nil {
		return nil, err
	}
	if err := atEnd(&g.src); err != nil {
		return nil, err
	}
	h.Raw, h.Cuts, h.Fragments, h.BasicOffsets, h.Size = g.src.raw, g.cuts, g.fragments, g.offsets, g.src.off
	if err := h.indexRaw(limits, g.elements); err != nil {
		return nil, err
	}
	return h, nil
}

// atEnd fails unless the stream has ended.
func atEnd(s *source) error {
	switch _, err := s.peek(1); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return fault.New(fault.Invalid, "dicom: bytes after the data set")
}

// inflated is the syntax of a data set after inflating.
func inflated(s dict.TransferSyntax) dict.TransferSyntax {
	if s.Deflated {
		s, _ = dict.Syntax(dict.ExplicitLittleEndian)
	}
	return s
}

// maxRoom bounds how many elements room is made for before they are seen.
const maxRoom = 512

// indexRaw builds the data set over Raw and Cuts, of so many elements.
func (h *Header) indexRaw(limits Limits, elements int) error {
	g := grammar{
		limits: limits, index: true, cuts: h.Cuts,
		src:  source{buf: h.Raw, end: len(h.Raw)},
		open: make([]Element, 0, min(elements, maxRoom)),
	}
	d := new(Dataset)
	if err := g.top(d, inflated(h.Syntax)); err != nil {
		return err
	}
	if g.nextCut != len(h.Cuts) || g.src.off != h.Size {
		return fault.New(fault.Invalid, "dicom: cuts do not fit the header")
	}
	h.Dataset, h.elements = d, g.elements
	return nil
}

// ParseDataset indexes a whole data set in memory (an identifier, a command
// set, a file's group 2). The data set keeps b. Nothing is cut; encapsulated
// pixel data is a value that holds the items and their delimiter. A deflated
// syntax is an error: inflate first ([NewInflater]).
func ParseDataset(b []byte, syntax dict.TransferSyntax, limits Limits) (*Dataset, error) {
	if syntax.Deflated {
		return nil, fault.New(fault.Unsupported, "dicom: data set in memory is deflated")
	}
	g := grammar{
		limits: limits.filled(), index: true,
		src:  source{buf: b, end: len(b)},
		open: make([]Element, 0, min(len(b)/16, maxRoom/4)),
	}
	if int64(len(b)) > g.limits.HeaderBytes {
		return nil, errHeaderBytes
	}
	d := new(Dataset)
	if err := g.top(d, syntax); err != nil {
		return nil, err
	}
	return d, nil
}

// errIsEnd reports whether the error is the end of the bytes, in any form.
func errIsEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errShort)
}
