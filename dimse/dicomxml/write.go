package dicomxml

import (
	"cmp"
	"encoding/base64"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
)

// Namespace is the XML name space of the model (PS3.19 A.1.6).
const Namespace = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

const (
	head = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<NativeDicomModel xmlns="` + Namespace + `" xml:space="preserve">`
	foot = "</NativeDicomModel>\n"
)

// Write writes one data set as a document. Nothing is written if the data set
// cannot be.
func Write(w io.Writer, ds *dicom.Dataset, o dicomjson.Options) error {
	b, err := AppendDataset(nil, ds, o)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// AppendDataset appends one data set as a document. fault.Unsupported if a cut
// has no URI.
func AppendDataset(b []byte, ds *dicom.Dataset, o dicomjson.Options) ([]byte, error) {
	e := encoder{b: append(b, head...), o: &o}
	err := e.dataset(ds, o.AvailableSyntax)
	return append(e.b, foot...), err
}

// encoder appends one data set.
type encoder struct {
	b    []byte
	o    *dicomjson.Options
	path string // of the data set being written, with a final slash
}

func (e *encoder) dataset(ds *dicom.Dataset, available string) error {
	blocks := creators(ds)
	for _, el := range ordered(ds) {
		if available != "" && el.Tag >= dict.AvailableTransferSyntaxUID {
			e.available(available)
			available = ""
			if el.Tag == dict.AvailableTransferSyntaxUID {
				continue
			}
		}
		if err := e.element(ds, el, blocks); err != nil {
			return err
		}
	}
	if available != "" {
		e.available(available)
	}
	return nil
}

// ordered returns the elements that are part of the model in tag order, of each
// tag the first.
func ordered(ds *dicom.Dataset) []*dicom.Element {
	elements := make([]*dicom.Element, 0, len(ds.Elements))
	for i := range ds.Elements {
		if isWritten(ds.Elements[i].Tag) {
			elements = append(elements, &ds.Elements[i])
		}
	}
	slices.SortStableFunc(elements, func(a, b *dicom.Element) int { return cmp.Compare(a.Tag, b.Tag) })
	return slices.CompactFunc(elements, func(a, b *dicom.Element) bool { return a.Tag == b.Tag })
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
	e.open(dict.AvailableTransferSyntaxUID, dict.UI, nil)
	e.b = append(e.b, `<Value number="1">`...)
	e.b = appendEscaped(e.b, uid)
	e.b = append(e.b, "</Value></DicomAttribute>"...)
}

// open appends the start of an attribute.
func (e *encoder) open(t dict.Tag, vr dict.VR, blocks map[dict.Tag]string) {
	creator := ""
	if t.IsPrivate() && t.Element() >= 0x1000 {
		creator = blocks[t&0xFFFF0000|dict.Tag(t.Element()>>8)]
	}
	e.b = append(e.b, `<DicomAttribute tag="`...)
	if creator != "" {
		e.b = append(e.b, formatTag(t&0xFFFF00FF)...)
	} else {
		e.b = append(e.b, formatTag(t)...)
	}
	e.b = append(e.b, `" vr="`...)
	e.b = append(e.b, byte(vr>>8), byte(vr), '"')
	switch entry, ok := dict.Lookup(t); {
	case creator != "":
		e.b = append(e.b, ` privateCreator="`...)
		e.b = appendEscaped(e.b, creator)
		e.b = append(e.b, '"')
	case ok && !t.IsPrivate():
		e.b = append(e.b, ` keyword="`...)
		e.b = append(e.b, entry.Keyword...)
		e.b = append(e.b, '"')
	}
	e.b = append(e.b, '>')
}

func formatTag(t dict.Tag) string {
	s := strings.ToUpper(strconv.FormatUint(uint64(t), 16))
	return "00000000"[len(s):] + s
}

func (e *encoder) element(ds *dicom.Dataset, el *dicom.Element, blocks map[dict.Tag]string) error {
	vr, bigEndian := dicomjson.Meaning(ds, el)
	e.open(el.Tag, vr, blocks)
	if err := e.value(ds, el, vr, bigEndian); err != nil {
		return err
	}
	e.b = append(e.b, "</DicomAttribute>"...)
	return nil
}

func (e *encoder) value(ds *dicom.Dataset, el *dicom.Element, vr dict.VR, bigEndian bool) error {
	if dicomjson.ByReference(el) {
		uri := ""
		if e.o.BulkURI != nil {
			uri = e.o.BulkURI(e.path+formatTag(el.Tag), el)
		}
		if uri != "" {
			e.b = append(e.b, `<BulkData uri="`...)
			e.b = appendEscaped(e.b, uri)
			e.b = append(e.b, `"/>`...)
			return nil
		}
		if el.Cut != nil {
			return fault.New(fault.Unsupported, "dicomxml: value of %v was left out and has no URI", el.Tag)
		}
	}
	switch {
	case vr == dict.SQ:
		return e.items(el)
	case len(el.Value) == 0 && el.Tag != dict.SpecificCharacterSet:
	case vr.Bulk():
		value := el.Value
		if bigEndian && vr.Size() > 1 {
			value = dicomjson.AppendLittleEndian(nil, value, vr, ds.Syntax)
		}
		e.b = append(e.b, "<InlineBinary>"...)
		e.b = base64.StdEncoding.AppendEncode(e.b, value)
		e.b = append(e.b, "</InlineBinary>"...)
	default:
		e.values(dicomjson.Values(ds, el), el.Tag, vr)
	}
	return nil
}

func (e *encoder) items(el *dicom.Element) error {
	outer := e.path
	for i, item := range el.Items {
		number := strconv.Itoa(i + 1)
		e.b = append(e.b, `<Item number="`...)
		e.b = append(e.b, number...)
		e.b = append(e.b, `">`...)
		e.path = outer + formatTag(el.Tag) + "/" + number + "/"
		if err := e.dataset(item, ""); err != nil {
			return err
		}
		e.b = append(e.b, "</Item>"...)
	}
	e.path = outer
	return nil
}

func (e *encoder) values(values []string, t dict.Tag, vr dict.VR) {
	for i, v := range values {
		if vr == dict.PN {
			e.name(v, i+1)
			continue
		}
		e.b = append(e.b, `<Value number="`...)
		e.b = strconv.AppendInt(e.b, int64(i+1), 10)
		e.b = append(e.b, `">`...)
		e.b = appendEscaped(e.b, v)
		e.b = append(e.b, "</Value>"...)
	}
}

// nameGroups and nameComponents are the elements of a PersonName (PS3.19 A.1.5).
var (
	nameGroups     = [...]string{"Alphabetic", "Ideographic", "Phonetic"}
	nameComponents = [...]string{"FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"}
)

func (e *encoder) name(v string, number int) {
	e.b = append(e.b, `<PersonName number="`...)
	e.b = strconv.AppendInt(e.b, int64(number), 10)
	e.b = append(e.b, `">`...)
	for i, group := range strings.SplitN(v, "=", len(nameGroups)) {
		if strings.Trim(group, "^ ") == "" {
			continue
		}
		e.tag(nameGroups[i], "<")
		for j, component := range strings.SplitN(group, "^", len(nameComponents)) {
			if component = strings.TrimRight(component, " "); component != "" {
				e.tag(nameComponents[j], "<")
				e.b = appendEscaped(e.b, component)
				e.tag(nameComponents[j], "</")
			}
		}
		e.tag(nameGroups[i], "</")
	}
	e.b = append(e.b, "</PersonName>"...)
}

func (e *encoder) tag(name, open string) {
	e.b = append(append(append(e.b, open...), name...), '>')
}

// appendEscaped appends character data or an attribute's value.
func appendEscaped(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		escape := ""
		switch {
		case r == '&':
			escape = "&amp;"
		case r == '<':
			escape = "&lt;"
		case r == '>':
			escape = "&gt;"
		case r == '"':
			escape = "&#34;"
		case r == '\t':
			escape = "&#9;"
		case r == '\n':
			escape = "&#10;"
		case r == '\r':
			escape = "&#13;"
		case r < ' ', r == 0xFFFE, r == 0xFFFF, r == utf8.RuneError:
			escape = "\uFFFD"
		}
		if escape != "" {
			b = append(append(b, s[start:i]...), escape...)
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}
