package dicom

import (
	"encoding/binary"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// encapsulated reads fragments up to the sequence delimiter (PS3.5 §A.4). A
// header cuts them out as a whole.
func (g *grammar) encapsulated(e *Element, lv *level, end int64) error {
	if g.takeCut(e) {
		g.src.off += e.Cut.Length
		if end >= 0 && g.src.off > end {
			return errShort
		}
		return nil
	}
	start, from, at := g.src.off, g.src.pos, int64(len(g.src.raw))
	noted := g.src.r != nil && lv.depth == 0 && e.Tag == dict.PixelData && g.fragments == nil && g.offsets == nil
	for n := 0; ; n++ {
		b, err := g.src.peek(8)
		if err != nil {
			return short(err)
		}
		tag, length := lv.tag(b), lv.u32(b[4:])
		if err := g.src.skip(8); err != nil {
			return err
		}
		if tag == dict.SequenceDelimitationItem {
			break
		}
		if tag != dict.Item || length == undefined {
			return fault.New(fault.Invalid, "dicom: %v where a fragment is due at byte %d", tag, g.src.off)
		}
		if n > g.limits.Fragments {
			return fault.New(fault.Invalid, "dicom: more than %d fragments", g.limits.Fragments)
		}
		if noted {
			if err := g.fragment(n, length, lv); err != nil {
				return err
			}
		} else if err := g.src.skip(int64(length)); err != nil {
			return err
		}
	}
	if end >= 0 && g.src.off > end {
		return fault.New(fault.Invalid, "dicom: %v runs past the end of its item at byte %d", e.Tag, g.src.off)
	}
	if g.src.r != nil {
		g.cuts = append(g.cuts, Cut{Tag: e.Tag, VR: e.VR, At: at, Offset: start, Length: g.src.off - start})
	} else {
		e.Value = g.src.buf[from:g.src.pos:g.src.pos]
	}
	return nil
}

// fragment notes item n of the top-level pixel data: the basic offset table
// first, then fragments.
func (g *grammar) fragment(n int, length uint32, lv *level) error {
	if n == 0 {
		return g.offsetTable(length, lv)
	}
	f := Fragment{Offset: g.src.off, Length: int64(length)}
	if length > 0 {
		b, err := g.src.peek(int(min(length, 4)))
		if err != nil {
			return short(err)
		}
		var lead [4]byte
		copy(lead[:], b)
		f.Lead = binary.BigEndian.Uint32(lead[:])
	}
	g.fragments = append(g.fragments, f)
	return g.src.skip(int64(length))
}

func (g *grammar) offsetTable(length uint32, lv *level) error {
	if int64(length) > 4*int64(g.limits.Fragments) {
		return fault.New(fault.Invalid, "dicom: basic offset table of %d bytes", length)
	}
	for ; length >= 4; length -= 4 {
		b, err := g.src.peek(4)
		if err != nil {
			return short(err)
		}
		g.offsets = append(g.offsets, lv.u32(b))
		if err := g.src.skip(4); err != nil {
			return err
		}
	}
	return g.src.skip(int64(length))
}
