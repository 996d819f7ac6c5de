package dicom

import (
	"encoding/binary"
	"errors"
	"io"

	"pelago/dimse/dict"
)

// level is what the encoding of an element depends on.
type level struct {
	syntax   dict.TransferSyntax
	implicit bool
	big      bool
	guess    bool // inside UN: items may be explicit after all
	depth    int
	signed   bool     // Pixel Representation of this or an enclosing data set
	charset  *Charset // of this or an enclosing data set
}

// undefined is the length of what ends with a delimiter.
const undefined = 0xFFFFFFFF

// head is an element's tag, VR and length as they stand in the bytes.
type head struct {
	tag    dict.Tag
	vr     dict.VR
	length uint32
	size   int // bytes of the head: 8 or 12
}

func order(big bool) binary.ByteOrder {
	if big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (lv *level) u16(b []byte) uint16 {
	if lv.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (lv *level) u32(b []byte) uint32 {
	if lv.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (lv *level) tag(b []byte) dict.Tag {
	return dict.Tag(lv.u16(b))<<16 | dict.Tag(lv.u16(b[2:]))
}

// head peeks at the next element.
func (g *grammar) head(lv *level) (head, error) {
	b, err := g.src.peek(8)
	if err != nil {
		return head{}, err
	}
	h := head{tag: lv.tag(b), size: 8}
	if h.tag>>16 == 0xFFFE {
		h.length = lv.u32(b[4:])
		return h, nil
	}
	if lv.implicit {
		h.vr, h.length = dict.ImplicitVR(h.tag, lv.signed), lv.u32(b[4:])
		return h, nil
	}
	h.vr = dict.VR(b[4])<<8 | dict.VR(b[5])
	switch {
	case h.vr.Long():
		b, err = g.src.peek(12)
		if err != nil {
			return head{}, short(err)
		}
		h.length, h.size = lv.u32(b[8:]), 12
	case h.vr.Known():
		h.length = uint32(lv.u16(b[6:]))
	default:
		return g.oddHead(lv, h, b)
	}
	return h, nil
}

// oddHead reads a head whose VR is none of PS3.5 §6.2. Two capital letters are
// taken for a VR yet to come, which has the long form (PS3.5 §6.2 note) unless
// the reserved bytes say otherwise; other signs that people put there have the
// short one; what is left are elements in implicit VR amid explicit ones. The
// VR is then the dictionary's.
func (g *grammar) oddHead(lv *level, h head, b []byte) (head, error) {
	c0, c1 := b[4], b[5]
	upper := dict.VR(c0&^0x20)<<8 | dict.VR(c1&^0x20)
	long := false
	h.vr = dict.ImplicitVR(h.tag, lv.signed)
	switch {
	case isUpper(c0) && isUpper(c1):
		long = b[6] == 0 && b[7] == 0
	case upper.Known():
		h.vr = upper
		long = upper.Long()
	case c0 >= ' ' && c0 <= '~' && c1 >= ' ' && c1 <= '~', c0 == 0 && c1 == 0:
	default:
		h.length = lv.u32(b[4:])
		return h, nil
	}
	h.length = uint32(lv.u16(b[6:]))
	if long {
		b, err := g.src.peek(12)
		if err != nil {
			return head{}, short(err)
		}
		h.length, h.size = lv.u32(b[8:]), 12
	}
	return h, nil
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }

// short turns the end of the bytes into errShort: it came where more was due.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return errShort
	}
	return err
}

// recognize corrects the level by the first element where the syntax that was
// named cannot be true: real files name the wrong one.
func (lv *level) recognize(b []byte) {
	vr := dict.VR(b[4])<<8 | dict.VR(b[5])
	swapped := lv.tag([]byte{b[1], b[0], b[3], b[2]})
	if g := swapped.Group(); vr.Known() && lv.tag(b).Group() == g<<8 && g != 0 && g < 0x100 && matches(swapped, vr) {
		lv.big = !lv.big
		lv.setImplicit(false)
		return
	}
	switch {
	case lv.implicit && matches(lv.tag(b), vr):
		lv.setImplicit(false)
	case !lv.implicit && !lv.big && !isUpper(b[4]) && (b[4] < ' ' || b[5] < ' ') && (b[4] != 0 || b[5] != 0):
		if length := lv.u32(b[4:]); length <= 1<<16 && lv.tag(b).Group() < 0x100 {
			lv.setImplicit(true)
		}
	}
}

// setImplicit changes how elements are read and the syntax that says so.
func (lv *level) setImplicit(implicit bool) {
	uid := dict.ExplicitLittleEndian
	switch {
	case implicit:
		uid = dict.ImplicitLittleEndian
	case lv.big:
		uid = dict.ExplicitBigEndian
	}
	lv.implicit = implicit
	if !lv.syntax.Encapsulated {
		lv.syntax, _ = dict.Syntax(uid)
	}
	lv.syntax.Implicit, lv.syntax.BigEndian = lv.implicit, lv.big
}

// matches reports whether the VR is what the dictionary gives the tag, so that
// the two letters are hardly a length by accident.
func matches(t dict.Tag, vr dict.VR) bool {
	e, ok := dict.Lookup(t)
	return ok && vr.Known() && e.VR == vr
}
