package dicom

import (
	"errors"
	"io"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// grammar walks a data set (PS3.5 §7). It runs in one of three ways:
//
//   - over a stream (src.r is set): delimits elements, keeps and cuts;
//   - over a header's bytes with known cuts (cuts is set): indexes;
//   - over a whole data set in memory: indexes, cutting nothing.
type grammar struct {
	src      source
	limits   Limits
	elements int
	index    bool // build elements
	cuts     []Cut
	nextCut  int // the first of cuts that was not met yet, when indexing

	fragments []Fragment // of the top-level pixel data, when streaming
	offsets   []uint32

	// Elements and items of data sets that are still open; complete ones are
	// moved to exact slices cut from slabs, so that small items cost nothing.
	open     []Element
	openSets []*Dataset
	slab     []Element
	setSlab  []Dataset
	ptrSlab  []*Dataset
}

// top reads the whole data set and expects the bytes to end there.
func (g *grammar) top(d *Dataset, syntax dict.TransferSyntax) error {
	lv := level{syntax: syntax, implicit: syntax.Implicit, big: syntax.BigEndian, charset: defaultCharset}
	if b, err := g.src.peek(8); err == nil {
		lv.recognize(b)
	}
	err := g.dataset(d, &lv, -1, false)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errShort):
		return fault.New(fault.Invalid, "dicom: data set is cut short at byte %d", g.src.off)
	}
	return err
}

// dataset reads elements up to the offset end, or up to an item delimiter where
// closed, or at the top level to the end of the bytes.
func (g *grammar) dataset(d *Dataset, lv *level, end int64, closed bool) error {
	base := len(g.open)
	last := int64(-1)
	for end < 0 || g.src.off < end {
		h, err := g.head(lv)
		if err != nil {
			switch {
			case lv.depth > 0:
				return short(err)
			case !errors.Is(err, io.EOF):
				if err := g.padding(err); err != nil {
					return err
				}
			}
			break
		}
		if h.tag>>16 == 0xFFFE {
			if h.tag != dict.ItemDelimitationItem && h.tag != dict.SequenceDelimitationItem || h.length != 0 {
				return fault.New(fault.Invalid, "dicom: unexpected %v at byte %d", h.tag, g.src.off)
			}
			ends := closed && h.tag == dict.ItemDelimitationItem
			if closed && !ends {
				// The sequence ends without closing its item; it reads the
				// delimiter itself.
				break
			}
			if err := g.src.take(8); err != nil {
				return err
			}
			if ends {
				break
			}
			continue // delimiters that close nothing are met in the field
		}
		if h.tag == 0 && lv.depth == 0 && last >= 0 {
			if err := g.padding(errShort); err != nil {
				return err
			}
			break
		}
		if g.elements++; g.elements > g.limits.Elements {
			return fault.New(fault.Invalid, "dicom: more than %d elements", g.limits.Elements)
		}
		if int64(h.tag) <= last {
			d.unordered = true
		}
		last = int64(h.tag)
		if err := g.element(h, lv, end); err != nil {
			return err
		}
	}
	if end >= 0 && g.src.off > end {
		return fault.New(fault.Invalid, "dicom: an element runs past the end of its item at byte %d", g.src.off)
	}
	if g.index {
		g.close(d, lv, base)
	}
	return nil
}

// padding takes bytes at the end of the data set that are no element (fewer
// than a head, or a tag (0000,0000)) if all of them are zero. cause is why they
// are none.
func (g *grammar) padding(cause error) error {
	for errors.Is(cause, errShort) {
		n, err := g.src.some(readSize)
		if errors.Is(err, errShort) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, c := range g.src.buf[g.src.pos : g.src.pos+n] {
			if c != 0 {
				return fault.New(fault.Invalid, "dicom: bytes that are no element at byte %d", g.src.off)
			}
		}
		if err := g.src.take(n); err != nil {
			return err
		}
	}
	return cause
}

// close moves the elements that are open since base into the data set.
func (g *grammar) close(d *Dataset, lv *level, base int) {
	d.Syntax = lv.syntax
	d.Charset = lv.charset
	n := len(g.open) - base
	if lv.depth == 0 {
		d.Elements = g.open[base:len(g.open):len(g.open)]
	} else {
		if len(g.slab) < n {
			g.slab = make([]Element, max(64, n))
		}
		d.Elements = g.slab[:n:n]
		g.slab = g.slab[n:]
		copy(d.Elements, g.open[base:])
		g.open = g.open[:base]
	}
	if lv.signed && lv.implicit {
		d.sign()
	}
}

// sign corrects the elements that came before Pixel Representation.
func (d *Dataset) sign() {
	for i := range d.Elements {
		e := &d.Elements[i]
		if e.Tag >= dict.PixelRepresentation {
			return
		}
		if e.VR == dict.US {
			e.VR = dict.ImplicitVR(e.Tag, true)
		}
		for _, item := range e.Items {
			if item.Syntax.Implicit && !item.Has(dict.PixelRepresentation) {
				item.sign()
			}
		}
	}
}

// element reads one element. end is where the enclosing item ends, or -1.
func (g *grammar) element(h head, lv *level, end int64) error {
	if err := g.src.take(h.size); err != nil {
		return err
	}
	e := Element{Tag: h.tag, VR: h.vr, Undefined: h.length == undefined}
	switch {
	case e.Undefined && (isPixelData(h.tag) || !lv.implicit && h.vr.Bulk() && h.vr != dict.UN):
		if err := g.encapsulated(&e, lv, end); err != nil {
			return err
		}
	case e.Undefined && (h.vr == dict.SQ || h.vr == dict.UN || lv.implicit):
		inner := *lv
		if h.vr != dict.SQ {
			inner.guess = true
			if !lv.implicit {
				inner.syntax, _ = dict.Syntax(dict.ImplicitLittleEndian)
				inner.implicit, inner.big = true, false
			}
		}
		e.VR = dict.SQ
		if err := g.items(&e, inner, -1, end); err != nil {
			return err
		}
	case e.Undefined:
		return fault.New(fault.Invalid, "dicom: %v %v of undefined length at byte %d", h.tag, h.vr, g.src.off)
	default:
		stop := g.src.off + int64(h.length)
		if end >= 0 && stop > end {
			return fault.New(fault.Invalid, "dicom: %v runs past the end of its item at byte %d", h.tag, g.src.off)
		}
		if h.vr == dict.SQ && h.length > 0 {
			if g.startsItem(lv, h.length) {
				if err := g.items(&e, *lv, stop, end); err != nil {
					return err
				}
				break
			}
			e.VR = dict.UN
		}
		if err := g.value(&e, h.length); err != nil {
			return err
		}
	}
	if g.index {
		g.note(&e, lv)
		g.open = append(g.open, e)
	}
	return nil
}

// note takes from an element what the ones after it depend on.
func (g *grammar) note(e *Element, lv *level) {
	switch e.Tag {
	case dict.SpecificCharacterSet:
		lv.charset = charsetOf(e.Value)
	case dict.PixelRepresentation:
		if len(e.Value) >= 2 {
			lv.signed = lv.u16(e.Value) == 1
		}
	}
}

// startsItem reports whether a sequence of defined length holds items. What
// does not is delimited all the same, and kept as a value of unknown VR.
func (g *grammar) startsItem(lv *level, length uint32) bool {
	if length < 8 {
		return false
	}
	b, err := g.src.peek(8)
	return err != nil || lv.tag(b)>>16 == 0xFFFE
}

// value reads or cuts a value of defined length.
func (g *grammar) value(e *Element, length uint32) error {
	n := int64(length)
	switch {
	case g.src.r != nil && g.limits.cuts(e.Tag, e.VR, length):
		g.cuts = append(g.cuts, Cut{Tag: e.Tag, VR: e.VR, At: int64(len(g.src.raw)), Offset: g.src.off, Length: n})
		return g.src.skip(n)
	case g.takeCut(e):
		if e.Cut.Length != n {
			return fault.New(fault.Invalid, "dicom: cut of %v has another length than the element", e.Tag)
		}
		g.src.off += n
		return nil
	}
	var err error
	e.Value, err = g.src.value(n)
	return err
}

// takeCut gives the element the next cut if that stands here.
func (g *grammar) takeCut(e *Element) bool {
	if g.src.r != nil || g.nextCut == len(g.cuts) || g.cuts[g.nextCut].At != int64(g.src.pos) || g.cuts[g.nextCut].Tag != e.Tag {
		return false
	}
	e.Cut = &g.cuts[g.nextCut]
	g.nextCut++
	return true
}

// items reads the items of a sequence up to stop, or up to its delimiter where
// stop is -1. limit is where the enclosing item ends, or -1. A last item that
// runs past stop ends the sequence: items delimit themselves, and writers of
// directories count them wrongly.
func (g *grammar) items(e *Element, lv level, stop, limit int64) error {
	if lv.depth++; lv.depth > g.limits.Depth {
		return fault.New(fault.Invalid, "dicom: sequences nested deeper than %d", g.limits.Depth)
	}
	base := len(g.openSets)
	for stop < 0 || g.src.off < stop {
		b, err := g.src.peek(8)
		if err != nil {
			return short(err)
		}
		tag, length := lv.tag(b), lv.u32(b[4:])
		if err := g.src.take(8); err != nil {
			return err
		}
		if tag == dict.SequenceDelimitationItem && stop < 0 {
			break
		}
		switch {
		case tag == dict.Item:
			if err := g.item(lv, length, limit); err != nil {
				return err
			}
		case (tag == dict.ItemDelimitationItem || tag == dict.SequenceDelimitationItem) && length == 0:
			// Delimiters after parts of defined length are met in the field.
		default:
			return fault.New(fault.Invalid, "dicom: %v where an item of %v is due at byte %d", tag, e.Tag, g.src.off)
		}
	}
	if limit >= 0 && g.src.off > limit {
		return fault.New(fault.Invalid, "dicom: %v runs past the end of its item at byte %d", e.Tag, g.src.off)
	}
	if g.index {
		e.Items = g.closeItems(base)
	}
	return nil
}

func (g *grammar) closeItems(base int) []*Dataset {
	n := len(g.openSets) - base
	if len(g.ptrSlab) < n {
		g.ptrSlab = make([]*Dataset, max(32, n))
	}
	items := g.ptrSlab[:n:n]
	g.ptrSlab = g.ptrSlab[n:]
	copy(items, g.openSets[base:])
	g.openSets = g.openSets[:base]
	return items
}

// item reads one item's data set. limit is where the item that encloses the
// sequence ends, or -1.
func (g *grammar) item(lv level, length uint32, limit int64) error {
	end := int64(-1)
	if length != undefined {
		end = g.src.off + int64(length)
		if limit >= 0 && end > limit {
			return fault.New(fault.Invalid, "dicom: an item runs past the end of the one around it at byte %d", g.src.off)
		}
	}
	// Items count as elements, so that empty ones are bounded too.
	if g.elements++; g.elements > g.limits.Elements {
		return fault.New(fault.Invalid, "dicom: more than %d elements", g.limits.Elements)
	}
	if lv.guess && length != 0 {
		if b, err := g.src.peek(8); err == nil && lv.implicit && matches(lv.tag(b), dict.VR(b[4])<<8|dict.VR(b[5])) {
			lv.setImplicit(false)
			lv.guess = false
		}
	}
	if !g.index {
		var d Dataset
		return g.dataset(&d, &lv, end, length == undefined)
	}
	if len(g.setSlab) == 0 {
		g.setSlab = make([]Dataset, 16)
	}
	d := &g.setSlab[0]
	g.setSlab = g.setSlab[1:]
	g.openSets = append(g.openSets, d)
	return g.dataset(d, &lv, end, length == undefined)
}
