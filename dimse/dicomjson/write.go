package dicomjson

import (
	"cmp"
	"encoding/base64"
	"io"
	"slices"
	"strconv"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// InlineBytes is the longest value of a bulk VR or UN that is written inline
// when it could go by reference.
const InlineBytes = 1024

// Options say what goes into the model besides the attributes.
type Options struct {
	// BulkURI returns the URI of a value that goes by reference: pixel data, a
	// cut, or a bulk value over InlineBytes. path is the value's bulk data path.
	// With nil, or "" returned, the value is written inline, which fails for a cut.
	BulkURI func(path string, e *dicom.Element) string
	// AvailableSyntax is written as (0008,3002) Available Transfer Syntax UID;
	// none if empty.
	AvailableSyntax string
}

// ByReference reports whether a value goes by BulkDataURI where it can: it was
// cut, is pixel data, or is of a bulk VR and longer than InlineBytes.
func ByReference(e *dicom.Element) bool {
	switch {
	case e.Cut != nil:
		return e.Cut.Length > 0
	case len(e.Items) > 0 || !e.VR.Bulk() && e.VR.Known():
		return false
	case len(e.Value) > InlineBytes:
		return true
	}
	return len(e.Value) > 0 && (e.Tag == dict.PixelData || e.Tag == dict.FloatPixelData || e.Tag == dict.DoubleFloatPixelData)
}

// Write writes one data set as a JSON object. Nothing is written if the data
// set cannot be.
func Write(w io.Writer, ds *dicom.Dataset, o Options) error {
	b, err := AppendDataset(nil, ds, o)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// AppendDataset appends one data set as a JSON object. fault.Unsupported if a
// cut has no URI.
func AppendDataset(b []byte, ds *dicom.Dataset, o Options) ([]byte, error) {
	e := encoder{b: b, o: &o}
	var room [96]byte
	e.path = room[:0]
	err := e.dataset(ds, o.AvailableSyntax)
	return e.b, err
}

// Array writes a JSON array of data sets, one at a time, so that only one is in
// memory. It is not for use by several goroutines.
type Array struct {
	w     io.Writer
	b     []byte
	begun bool
}

// flushBytes is how much an Array gathers before it writes.
const flushBytes = 64 << 10

// NewArray returns an array that goes to w.
func NewArray(w io.Writer) *Array { return &Array{w: w} }

// Add appends a data set. On an error of [AppendDataset] nothing of the data set
// is in the array, which can go on.
func (a *Array) Add(ds *dicom.Dataset, o Options) error {
	before := len(a.b)
	if a.begun {
		a.b = append(a.b, ',')
	} else {
		a.b = append(a.b, '[')
	}
	b, err := AppendDataset(a.b, ds, o)
	if err != nil {
		a.b = b[:before]
		return err
	}
	a.b, a.begun = b, true
	if len(a.b) < flushBytes {
		return nil
	}
	return a.flush()
}

// Close writes the end of the array; it does not close the writer.
func (a *Array) Close() error {
	if !a.begun {
		a.b = append(a.b, '[')
	}
	a.b = append(a.b, ']')
	return a.flush()
}

func (a *Array) flush() error {
	_, err := a.w.Write(a.b)
	a.b = a.b[:0]
	return err
}

// encoder appends one data set.
type encoder struct {
	b    []byte
	o    *Options
	path []byte // of the data set being written, with a final slash
}

// dataset appends an object; available is the value of (0008,3002), if any.
func (e *encoder) dataset(ds *dicom.Dataset, available string) error {
	e.b = append(e.b, '{')
	start := len(e.b)
	var last dict.Tag
	seen, unwritten := false, available
	for i := range ds.Elements {
		el := &ds.Elements[i]
		if !isWritten(el.Tag) {
			continue
		}
		if seen && el.Tag <= last { // out of order: rare, and then all of it again
			e.b = e.b[:start]
			return e.unordered(ds, unwritten)
		}
		last, seen = el.Tag, true
		if available != "" && el.Tag >= dict.AvailableTransferSyntaxUID {
			e.available(available)
			available = ""
			if el.Tag == dict.AvailableTransferSyntaxUID {
				continue
			}
		}
		if err := e.element(ds, el); err != nil {
			return err
		}
	}
	if available != "" {
		e.available(available)
	}
	e.end()
	return nil
}

// unordered writes a data set whose tags do not ascend: sorted, and of each tag
// the first element, as [dicom.Dataset.Get] finds it.
func (e *encoder) unordered(ds *dicom.Dataset, available string) error {
	e.b = e.b[:len(e.b)-1]
	sorted := *ds
	sorted.Elements = slices.Clone(ds.Elements)
	slices.SortStableFunc(sorted.Elements, func(a, b dicom.Element) int { return cmp.Compare(a.Tag, b.Tag) })
	sorted.Elements = slices.CompactFunc(sorted.Elements, func(a, b dicom.Element) bool { return a.Tag == b.Tag })
	return e.dataset(&sorted, available)
}

// end closes an object after its last member's comma.
func (e *encoder) end() {
	if e.b[len(e.b)-1] == ',' {
		e.b[len(e.b)-1] = '}'
		return
	}
	e.b = append(e.b, '}')
}

// isWritten reports whether an attribute is part of the model.
func isWritten(t dict.Tag) bool {
	switch t.Group() {
	case 0x0000, 0x0002, 0xFFFC, 0xFFFE:
		return false
	}
	return !t.IsGroupLength()
}

func (e *encoder) available(uid string) {
	e.open(dict.AvailableTransferSyntaxUID, dict.UI)
	e.b = append(e.b, `,"Value":[`...)
	e.b = appendString(e.b, []byte(uid))
	e.b = append(e.b, "]},"...)
}

// open appends the name of an attribute and its VR.
func (e *encoder) open(t dict.Tag, vr dict.VR) {
	e.b = append(e.b, '"')
	e.b = appendTag(e.b, t)
	e.b = append(e.b, `":{"vr":"`...)
	e.b = append(e.b, byte(vr>>8), byte(vr), '"')
}

// element appends one attribute and a comma.
func (e *encoder) element(ds *dicom.Dataset, el *dicom.Element) error {
	vr, bigEndian := Meaning(ds, el)
	e.open(el.Tag, vr)
	if err := e.value(ds, el, vr, bigEndian); err != nil {
		return err
	}
	e.b = append(e.b, "},"...)
	return nil
}

// Meaning returns the VR that an element has in the model and whether its value
// is big endian. UN of a public attribute in the dictionary is what the
// dictionary says, since viewers look no further than the VR (PS3.5 §6.2.2: such
// values are little endian); bulk values, sequences in bytes and cuts stay UN.
func Meaning(ds *dicom.Dataset, el *dicom.Element) (vr dict.VR, bigEndian bool) {
	switch {
	case len(el.Items) > 0:
		return dict.SQ, ds.Syntax.BigEndian // UN of undefined length too
	case !el.VR.Known():
		return dict.UN, false
	case el.Tag == dict.PixelData && el.Undefined:
		return dict.OB, false // fragments (PS3.5 §A.4), which some writers call OW
	case el.VR != dict.UN:
		return el.VR, ds.Syntax.BigEndian
	case el.Cut != nil || len(el.Value) > InlineBytes:
		return dict.UN, false
	}
	signed, _ := ds.Int(dict.PixelRepresentation)
	vr = dict.ImplicitVR(el.Tag, signed == 1)
	if size := numberSize(vr); vr.Bulk() || vr == dict.SQ && len(el.Value) > 0 || size > 0 && len(el.Value)%size != 0 {
		return dict.UN, false
	}
	return vr, false
}

func (e *encoder) value(ds *dicom.Dataset, el *dicom.Element, vr dict.VR, bigEndian bool) error {
	if ByReference(el) {
		if uri := e.uri(el); uri != "" {
			e.b = append(e.b, `,"BulkDataURI":`...)
			e.b = appendString(e.b, []byte(uri))
			return nil
		}
		if el.Cut != nil {
			return fault.New(fault.Unsupported, "dicomjson: value of %v was left out and has no URI", el.Tag)
		}
	}
	switch {
	case vr == dict.SQ:
		return e.items(el)
	case len(el.Value) == 0 && el.Tag != dict.SpecificCharacterSet:
	case vr.Bulk():
		e.b = append(e.b, `,"InlineBinary":"`...)
		value := el.Value
		if bigEndian && vr.Size() > 1 {
			value = AppendLittleEndian(nil, value, vr, ds.Syntax)
		}
		e.b = base64.StdEncoding.AppendEncode(e.b, value)
		e.b = append(e.b, '"')
	case vr.Text():
		e.text(ds, el, vr)
	default:
		e.numbers(el.Value, vr, bigEndian)
	}
	return nil
}

func (e *encoder) uri(el *dicom.Element) string {
	if e.o.BulkURI == nil {
		return ""
	}
	return e.o.BulkURI(string(appendTag(e.path, el.Tag)), el)
}

func (e *encoder) items(el *dicom.Element) error {
	if len(el.Items) == 0 {
		return nil
	}
	outer := len(e.path)
	e.path = append(appendTag(e.path, el.Tag), '/')
	inner := len(e.path)
	e.b = append(e.b, `,"Value":[`...)
	for i, item := range el.Items {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.path = append(strconv.AppendInt(e.path[:inner], int64(i+1), 10), '/')
		if err := e.dataset(item, ""); err != nil {
			return err
		}
	}
	e.path = e.path[:outer]
	e.b = append(e.b, ']')
	return nil
}
