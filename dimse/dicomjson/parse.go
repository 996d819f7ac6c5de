package dicomjson

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Limits bounds what is read.
type Limits struct {
	Bytes    int64 // of the text; it may take about six times as much memory while it is read
	Depth    int   // nested sequences
	Elements int   // attributes, items and values of all data sets together
	Datasets int   // data sets of an array
}

// DefaultLimits are for one request: metadata of a large multi-frame study.
var DefaultLimits = Limits{Bytes: 64 << 20, Depth: 64, Elements: 2 << 20, Datasets: 10000}

// BulkRef is a value that the text refers to. The element is in the data set,
// empty; Resolve finds it by Path, and the caller puts the value there, which is
// little endian.
type BulkRef struct {
	Dataset int // index of the data set
	Path    string
	VR      dict.VR
	URI     string // as written: absolute, or relative to the request; matches a part's Content-Location
}

// Parse reads a JSON array of data sets, or one data set alone, to the end of r.
// The data sets are in explicit little endian and UTF-8 whatever their (0008,0005)
// says, since JSON is UTF-8; group 0002 and group lengths are dropped.
// fault.Invalid for anything that is not the DICOM JSON Model or beyond limits;
// errors name attributes, never values.
func Parse(r io.Reader, limits Limits) ([]*dicom.Dataset, []BulkRef, error) {
	bounded := &boundedReader{r: r, left: limits.Bytes}
	p := &parser{dec: json.NewDecoder(bounded), limits: limits}
	p.dec.UseNumber()
	sets, err := p.document()
	switch {
	case errors.Is(err, errBytes):
		return nil, nil, fault.New(fault.Invalid, "dicomjson: longer than %d bytes", limits.Bytes)
	case bounded.err != nil:
		return nil, nil, bounded.err // what the source said, with its own kind
	case err != nil:
		return nil, nil, err
	}
	return sets, p.refs, nil
}

var errBytes = errors.New("dicomjson: too long")

// boundedReader fails where io.LimitReader would pretend an end.
type boundedReader struct {
	r    io.Reader
	left int64
	err  error // of r
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := io.ReadFull(b.r, one[:]); n == 0 && err == io.EOF {
			return 0, io.EOF
		}
		return 0, errBytes
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// parser reads one text.
type parser struct {
	dec      *json.Decoder
	limits   Limits
	elements int
	dataset  int
	path     []byte
	refs     []BulkRef
}

// invalid is a fault of the text itself.
func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "dicomjson: "+format, args...)
}

func (p *parser) token() (json.Token, error) {
	t, err := p.dec.Token()
	switch {
	case err == nil, errors.Is(err, errBytes):
		return t, err
	case err == io.EOF:
		return nil, invalid("ends early")
	}
	return nil, invalid("no JSON at byte %d", p.dec.InputOffset()) // the decoder's own text may quote values
}

func (p *parser) count() error {
	if p.elements++; p.elements > p.limits.Elements {
		return invalid("more than %d attributes, items and values", p.limits.Elements)
	}
	return nil
}

func (p *parser) document() ([]*dicom.Dataset, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	var sets []*dicom.Dataset
	switch t {
	case json.Delim('{'):
		ds, err := p.readDataset()
		if err != nil {
			return nil, err
		}
		sets = []*dicom.Dataset{ds}
	case json.Delim('['):
		if sets, err = p.array(); err != nil {
			return nil, err
		}
	default:
		return nil, invalid("neither an array nor an object")
	}
	switch _, err := p.dec.Token(); {
	case err == io.EOF:
		return sets, nil
	case errors.Is(err, errBytes):
		return nil, err
	}
	return nil, invalid("more than one JSON value")
}

func (p *parser) array() ([]*dicom.Dataset, error) {
	var sets []*dicom.Dataset
	for p.dec.More() {
		if len(sets) == p.limits.Datasets {
			return nil, invalid("more than %d data sets", p.limits.Datasets)
		}
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		if t != json.Delim('{') {
			return nil, invalid("data set %d is no object", len(sets)+1)
		}
		p.dataset = len(sets)
		ds, err := p.readDataset()
		if err != nil {
			return nil, err
		}
		sets = append(sets, ds)
	}
	_, err := p.token()
	return sets, err
}

// readDataset reads a data set after its opening brace.
func (p *parser) readDataset() (*dicom.Dataset, error) {
	ds := dicom.NewDataset()
	elements, err := p.members(ds, "", 0)
	if err != nil {
		return nil, err
	}
	ds.Elements = append(elements, dicom.Element{Tag: dict.SpecificCharacterSet, VR: dict.CS, Value: []byte(utf8Term)})
	return ds, sortElements(ds)
}

// members reads the attributes of ds to its closing brace; first is the first
// name if it was read already.
func (p *parser) members(ds *dicom.Dataset, first string, depth int) ([]dicom.Element, error) {
	var elements []dicom.Element
	for first != "" || p.dec.More() {
		name := first
		if first = ""; name == "" {
			t, err := p.token()
			if err != nil {
				return nil, err
			}
			name = t.(string) // the decoder lets nothing else stand here
		}
		tag, ok := ParseTag(name)
		if !ok {
			return nil, invalid("the name of an attribute is no tag")
		}
		if err := p.count(); err != nil {
			return nil, err
		}
		e, err := p.attribute(ds, tag, depth)
		if err != nil {
			return nil, err
		}
		if isWritten(tag) && tag != dict.SpecificCharacterSet {
			elements = append(elements, e)
		}
	}
	_, err := p.token()
	return elements, err
}

// sortElements puts a data set in tag order; two of a tag are an error.
func sortElements(ds *dicom.Dataset) error {
	slices.SortFunc(ds.Elements, func(a, b dicom.Element) int { return cmp.Compare(a.Tag, b.Tag) })
	for i := 1; i < len(ds.Elements); i++ {
		if ds.Elements[i].Tag == ds.Elements[i-1].Tag {
			return invalid("%v stands twice", ds.Elements[i].Tag)
		}
	}
	return nil
}

// body is an attribute as written, before its VR is known to all its parts:
// members come in any order.
type body struct {
	vr     dict.VR
	hasVR  bool
	values []string
	items  []*dicom.Dataset
	empty  int // objects without members: items or names
	inline string
	uri    string
	forms  int // of Value, InlineBinary, BulkDataURI
}

func (p *parser) attribute(ds *dicom.Dataset, tag dict.Tag, depth int) (dicom.Element, error) {
	var none dicom.Element
	if err := p.delim('{', tag); err != nil {
		return none, err
	}
	outer := len(p.path)
	p.path = appendTag(p.path, tag)
	b := body{}
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return none, err
		}
		switch t.(string) {
		case "vr":
			err = p.vr(&b, tag)
		case "Value":
			b.forms++
			err = p.values(ds, &b, tag, depth)
		case "InlineBinary":
			b.forms++
			b.inline, err = p.str(tag)
		case "BulkDataURI":
			b.forms++
			b.uri, err = p.str(tag)
		default: // extensions, such as privateCreator
			err = p.skip(0)
		}
		if err != nil {
			return none, err
		}
	}
	if _, err := p.token(); err != nil {
		return none, err
	}
	e, err := p.element(tag, &b)
	p.path = p.path[:outer]
	return e, err
}

func (p *parser) delim(want json.Delim, tag dict.Tag) error {
	t, err := p.token()
	if err == nil && t != want {
		err = invalid("%v: no %v where one is due", tag, want)
	}
	return err
}

func (p *parser) str(tag dict.Tag) (string, error) {
	t, err := p.token()
	s, ok := t.(string)
	if err == nil && !ok {
		err = invalid("%v: no string where one is due", tag)
	}
	return s, err
}

func (p *parser) vr(b *body, tag dict.Tag) error {
	s, err := p.str(tag)
	if err != nil {
		return err
	}
	if len(s) != 2 {
		return invalid("%v: unknown VR", tag)
	}
	if b.vr = dict.VR(s[0])<<8 | dict.VR(s[1]); !b.vr.Known() {
		return invalid("%v: unknown VR", tag)
	}
	b.hasVR = true
	return nil
}

// values reads the array of a Value.
func (p *parser) values(ds *dicom.Dataset, b *body, tag dict.Tag, depth int) error {
	if err := p.delim('[', tag); err != nil {
		return err
	}
	for p.dec.More() {
		if err := p.count(); err != nil {
			return err
		}
		t, err := p.token()
		if err != nil {
			return err
		}
		switch v := t.(type) {
		case nil:
			b.values = append(b.values, "")
		case string:
			b.values = append(b.values, v)
		case json.Number:
			b.values = append(b.values, v.String())
		case json.Delim:
			if v != '{' {
				return invalid("%v: an array in a Value", tag)
			}
			if err := p.object(ds, b, tag, depth); err != nil {
				return err
			}
		default:
			return invalid("%v: neither string, number, object nor null in a Value", tag)
		}
	}
	_, err := p.token()
	return err
}

// object reads a person name or an item after its opening brace.
func (p *parser) object(ds *dicom.Dataset, b *body, tag dict.Tag, depth int) error {
	if !p.dec.More() {
		b.empty++
		b.items = append(b.items, newItem(ds))
		b.values = append(b.values, "")
		_, err := p.token()
		return err
	}
	t, err := p.token()
	if err != nil {
		return err
	}
	first := t.(string)
	if _, ok := ParseTag(first); !ok {
		name, err := p.name(first, tag)
		b.values = append(b.values, name)
		return err
	}
	if depth >= p.limits.Depth {
		return invalid("%v: sequences nested deeper than %d", tag, p.limits.Depth)
	}
	item := newItem(ds)
	b.items = append(b.items, item)
	outer := len(p.path)
	p.path = append(strconv.AppendInt(append(p.path, '/'), int64(len(b.items)), 10), '/')
	item.Elements, err = p.members(item, first, depth+1)
	p.path = p.path[:outer]
	if err != nil {
		return err
	}
	return sortElements(item)
}

func newItem(ds *dicom.Dataset) *dicom.Dataset {
	return &dicom.Dataset{Syntax: ds.Syntax, Charset: ds.Charset}
}

// name reads a person name to its closing brace; member is its first member.
func (p *parser) name(member string, tag dict.Tag) (string, error) {
	var groups [3]string
	for {
		s := ""
		t, err := p.token()
		if err != nil {
			return "", err
		}
		switch v := t.(type) {
		case string:
			s = v
		case nil:
		default:
			return "", invalid("%v: a component group is no string", tag)
		}
		if strings.ContainsRune(s, '=') {
			return "", invalid("%v: delimiter in a component group", tag)
		}
		switch member {
		case "Alphabetic":
			groups[0] = s
		case "Ideographic":
			groups[1] = s
		case "Phonetic":
			groups[2] = s
		default:
			return "", invalid("%v: neither item nor person name in a Value", tag)
		}
		if !p.dec.More() {
			break
		}
		if t, err = p.token(); err != nil {
			return "", err
		}
		member = t.(string)
	}
	_, err := p.token()
	return strings.TrimRight(strings.Join(groups[:], "="), "="), err
}

// skip reads over one JSON value.
func (p *parser) skip(depth int) error {
	if depth > p.limits.Depth {
		return invalid("nested deeper than %d", p.limits.Depth)
	}
	if err := p.count(); err != nil {
		return err
	}
	t, err := p.token()
	if err != nil {
		return err
	}
	if d, ok := t.(json.Delim); ok && (d == '{' || d == '[') {
		for p.dec.More() {
			if d == '{' {
				if _, err := p.token(); err != nil {
					return err
				}
			}
			if err := p.skip(depth + 1); err != nil {
				return err
			}
		}
		_, err = p.token()
	}
	return err
}

// element makes the element that an attribute's members say.
func (p *parser) element(tag dict.Tag, b *body) (dicom.Element, error) {
	if !b.hasVR {
		if b.vr = dict.ImplicitVR(tag, false); len(b.items) > b.empty {
			b.vr = dict.SQ
		}
	}
	e := dicom.Element{Tag: tag, VR: b.vr}
	switch {
	case b.forms > 1:
		return e, invalid("%v: more than one of Value, InlineBinary and BulkDataURI", tag)
	case b.uri != "":
		if b.vr == dict.SQ {
			return e, invalid("%v: a sequence by reference", tag)
		}
		if isWritten(tag) {
			p.refs = append(p.refs, BulkRef{Dataset: p.dataset, Path: string(p.path), VR: b.vr, URI: b.uri})
		}
		return e, nil
	case b.inline != "":
		if !b.vr.Bulk() {
			return e, invalid("%v: InlineBinary for VR %v", tag, b.vr)
		}
		value, err := decodeBase64(b.inline)
		if err != nil {
			return e, invalid("%v: InlineBinary is no base64", tag)
		}
		e.Value = pad(value, b.vr)
		return e, nil
	case b.vr == dict.SQ:
		if len(b.values) != b.empty {
			return e, invalid("%v: an item is no object", tag)
		}
		e.Items = b.items
		return e, nil
	case len(b.items) > b.empty:
		return e, invalid("%v: items in VR %v", tag, b.vr)
	}
	return NewElement(tag, b.vr, b.values)
}

// decodeBase64 takes base64 with and without padding.
func decodeBase64(s string) ([]byte, error) {
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		return b, nil
	}
	return base64.RawStdEncoding.DecodeString(s)
}
