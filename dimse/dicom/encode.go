package dicom

import (
	"encoding/binary"
	"io"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// Encode appends the data set in a syntax that is not deflated or
// encapsulated. No group lengths; sequences and items of undefined length.
// An element with a Cut is an error, and so is encapsulated pixel data. The
// byte order is changed, odd lengths are padded and VRs chosen as
// [Header.Convert] does.
func (d *Dataset) Encode(b []byte, syntax dict.TransferSyntax) ([]byte, error) {
	if syntax.Deflated || !syntax.Uncompressed() {
		return b, fault.New(fault.Unsupported, "dicom: encode in %s", syntax.UID)
	}
	e := encoder{b: b, to: syntax}
	if err := e.dataset(d, false); err != nil {
		return b, err
	}
	return e.b, nil
}

// encoder writes data sets in one uncompressed syntax.
type encoder struct {
	b         []byte
	w         io.Writer // nil: everything stays in b
	src       Source    // of cut values
	to        dict.TransferSyntax
	canonical bool
	dry       bool // cut values are passed over
	piece     []byte
}

// flushSize is how much is gathered before it is written.
const flushSize = 32 << 10

func (e *encoder) flush(atLeast int) error {
	if e.w == nil || len(e.b) < atLeast {
		return nil
	}
	_, err := e.w.Write(e.b)
	e.b = e.b[:0]
	return err
}

func (e *encoder) order() binary.AppendByteOrder {
	if e.to.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// dataset writes the elements of a data set. signed is Pixel Representation of
// the enclosing one.
func (e *encoder) dataset(d *Dataset, signed bool) error {
	if d.Has(dict.PixelRepresentation) {
		signed = d.signed()
	}
	for i := range d.Elements {
		el := &d.Elements[i]
		if el.Tag.IsGroupLength() || el.Tag == dict.DataSetTrailingPadding {
			continue
		}
		if err := e.element(el, d.Syntax.BigEndian, signed); err != nil {
			return err
		}
		if err := e.flush(flushSize); err != nil {
			return err
		}
	}
	return nil
}

// element writes one element whose value is big endian or not.
func (e *encoder) element(el *Element, big, signed bool) error {
	from := el.VR // by which bytes are swapped
	if from == 0 {
		from = dict.ImplicitVR(el.Tag, signed)
	}
	vr := from // as which it is written
	if e.canonical {
		vr = canonicalVR(el, signed)
	}
	if len(el.Items) > 0 {
		return e.sequence(el, signed)
	}
	if el.Undefined && from != dict.SQ {
		return fault.New(fault.Unsupported, "dicom: %v is encapsulated", el.Tag)
	}
	length := int64(len(el.Value))
	if el.Cut != nil {
		if length = el.Cut.Length; e.src == nil && !e.dry {
			return fault.New(fault.Other, "dicom: encode %v, whose value was cut", el.Tag)
		}
	}
	padded := length + length&1
	if padded >= undefined {
		return fault.New(fault.Unsupported, "dicom: %v has %d bytes", el.Tag, length)
	}
	if e.to.Implicit && length > 0 && el.Cut == nil && dict.ImplicitVR(el.Tag, signed) == dict.SQ && !holdsItems(el) {
		return fault.New(fault.Unsupported, "dicom: %v holds no items and cannot be told from a sequence in implicit VR", el.Tag)
	}
	e.head(el.Tag, vr, uint32(padded))
	swap := 1
	if big != e.to.BigEndian {
		swap = from.Size()
	}
	if el.Cut != nil {
		if e.dry {
			return nil
		}
		if err := e.cut(el.Cut, swap); err != nil {
			return err
		}
	} else {
		at := len(e.b)
		e.b = append(e.b, el.Value...)
		swapBytes(e.b[at:], swap)
	}
	if length&1 == 1 {
		e.b = append(e.b, padding(vr))
	}
	return nil
}

// holdsItems reports whether the value of a sequence's tag, which came with
// another VR, will be read as items where no VR says otherwise.
func holdsItems(el *Element) bool {
	implicit, _ := dict.Syntax(dict.ImplicitLittleEndian)
	e := encoder{to: implicit}
	e.head(el.Tag, dict.UN, uint32(len(el.Value)))
	_, err := ParseDataset(append(e.b, el.Value...), implicit, Limits{})
	return err == nil
}

// canonicalVR is the VR that an element has in the canonical form. It cannot be
// the one that was received, since implicit VR has none: it is the dictionary's.
func canonicalVR(el *Element, signed bool) dict.VR { return dict.ImplicitVR(el.Tag, signed) }

// head writes tag, VR and length. Values too long for a VR with a 16-bit length
// become UN (PS3.5 §6.2.2 note).
func (e *encoder) head(t dict.Tag, vr dict.VR, length uint32) {
	o := e.order()
	e.tag(t)
	if e.to.Implicit {
		e.b = o.AppendUint32(e.b, length)
		return
	}
	if !vr.Known() || !vr.Long() && length > 0xFFFE {
		vr = dict.UN
	}
	e.b = append(e.b, byte(vr>>8), byte(vr))
	if vr.Long() {
		e.b = append(e.b, 0, 0)
		e.b = o.AppendUint32(e.b, length)
		return
	}
	e.b = o.AppendUint16(e.b, uint16(length))
}

func (e *encoder) tag(t dict.Tag) {
	o := e.order()
	e.b = o.AppendUint16(o.AppendUint16(e.b, t.Group()), t.Element())
}

// sequence writes a sequence and its items of undefined length. (Without items
// it is an empty value.)
func (e *encoder) sequence(el *Element, signed bool) error {
	o := e.order()
	e.head(el.Tag, dict.SQ, undefined)
	for _, item := range el.Items {
		e.tag(dict.Item)
		e.b = o.AppendUint32(e.b, undefined)
		if err := e.dataset(item, signed); err != nil {
			return err
		}
		e.tag(dict.ItemDelimitationItem)
		e.b = o.AppendUint32(e.b, 0)
	}
	e.tag(dict.SequenceDelimitationItem)
	e.b = o.AppendUint32(e.b, 0)
	return nil
}

// pieceSize is how much of a cut value is in memory at once: a multiple of
// every number's size, so that no number straddles two pieces.
const pieceSize = 256 << 10

// cut copies a value from the source in pieces.
func (e *encoder) cut(c *Cut, swap int) error {
	if e.piece == nil {
		e.piece = make([]byte, min(pieceSize, max(c.Length, 4<<10)))
	}
	for done := int64(0); done < c.Length; {
		n := min(c.Length-done, int64(len(e.piece)&^7))
		b := e.piece[:n]
		if err := readAt(e.src, b, c.Offset+done); err != nil {
			return err
		}
		swapBytes(b, swap)
		if err := e.flush(1); err != nil {
			return err
		}
		if e.w == nil {
			e.b = append(e.b, b...)
		} else if _, err := e.w.Write(b); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// swapBytes reverses the bytes of each number of the given size in place; a
// remainder shorter than a number stays.
func swapBytes(b []byte, size int) {
	switch size {
	case 2:
		const even = 0x00FF00FF00FF00FF
		for ; len(b) >= 8; b = b[8:] {
			v := binary.LittleEndian.Uint64(b)
			binary.LittleEndian.PutUint64(b, v&even<<8|v>>8&even)
		}
		for ; len(b) >= 2; b = b[2:] {
			b[0], b[1] = b[1], b[0]
		}
	case 4:
		for ; len(b) >= 4; b = b[4:] {
			binary.LittleEndian.PutUint32(b, binary.BigEndian.Uint32(b))
		}
	case 8:
		for ; len(b) >= 8; b = b[8:] {
			binary.LittleEndian.PutUint64(b, binary.BigEndian.Uint64(b))
		}
	}
}
