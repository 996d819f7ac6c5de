package dicom

import (
	"slices"

	"pelago/dimse/dict"
)

// Dataset is an ordered list of elements, either read (values alias the bytes
// read) or built. Values are in the byte order of Syntax.
type Dataset struct {
	Syntax   dict.TransferSyntax
	Elements []Element
	Charset  *Charset // effective (0008,0005), inherited by items

	// unordered tells that the elements are not in strictly ascending order,
	// as PS3.5 §7.1 wants them, so that they cannot be searched by halving.
	unordered bool
}

// Element is one attribute.
type Element struct {
	Tag       dict.Tag
	VR        dict.VR // from the dictionary where the syntax is implicit; UN if unknown; SQ for whatever has items
	Undefined bool    // undefined length on the wire
	Value     []byte  // raw bytes, padding included; nil when Cut is set or for sequences
	Cut       *Cut    // the value was left out of the header
	Items     []*Dataset
}

// find returns the place of the tag's first element, or where it would stand,
// and whether it is there.
func (d *Dataset) find(t dict.Tag) (int, bool) {
	if d.unordered {
		for i := range d.Elements {
			if d.Elements[i].Tag == t {
				return i, true
			}
		}
	}
	lo, hi := 0, len(d.Elements)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if d.Elements[mid].Tag < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, !d.unordered && lo < len(d.Elements) && d.Elements[lo].Tag == t
}

// Get returns the element of a tag, or nil; of several the first. Data sets are
// searched by halving where they are in order. The element may be read only.
func (d *Dataset) Get(t dict.Tag) *Element {
	if d == nil {
		return nil
	}
	if i, ok := d.find(t); ok {
		return &d.Elements[i]
	}
	return nil
}

// Has reports whether the tag is present, empty or not.
func (d *Dataset) Has(t dict.Tag) bool { return d.Get(t) != nil }

// Put inserts or replaces an element, whose value is in d.Syntax's byte order.
func (d *Dataset) Put(e Element) {
	i, ok := d.find(e.Tag)
	if ok {
		d.Elements[i] = e
	} else {
		d.Elements = slices.Insert(d.Elements, i, e)
	}
	if e.Tag == dict.SpecificCharacterSet {
		d.Charset = charsetOf(e.Value)
	}
}

// Remove drops an element if it is there.
func (d *Dataset) Remove(t dict.Tag) {
	if i, ok := d.find(t); ok {
		d.Elements = slices.Delete(d.Elements, i, i+1)
	}
}
