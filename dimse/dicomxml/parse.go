package dicomxml

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
)

// Parse reads one data set to the end of r. The data set is in explicit little
// endian and UTF-8; group 0002 and group lengths are dropped; private attributes
// get a block of their creator. References have Dataset 0; the UUID of a
// BulkData without URI is given as urn:uuid:…. fault.Invalid for anything that
// is not the Native DICOM Model or beyond limits; errors name attributes, never
// values.
func Parse(r io.Reader, limits dicomjson.Limits) (*dicom.Dataset, []dicomjson.BulkRef, error) {
	bounded := &boundedReader{r: r, left: limits.Bytes}
	p := &parser{dec: xml.NewDecoder(bounded), limits: limits}
	ds, err := p.document()
	switch {
	case bounded.over:
		return nil, nil, invalid("longer than %d bytes", limits.Bytes)
	case bounded.err != nil:
		return nil, nil, bounded.err
	case err != nil:
		return nil, nil, err
	}
	return ds, p.collect(ds, "", nil), nil
}

// boundedReader tells an end from a limit.
type boundedReader struct {
	r    io.Reader
	left int64
	over bool
	err  error // of r
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := io.ReadFull(b.r, one[:]); n == 0 && err == io.EOF {
			return 0, io.EOF
		}
		b.over = true
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// parser reads one document.
type parser struct {
	dec      *xml.Decoder
	limits   dicomjson.Limits
	elements int
	uris     map[*dicom.Dataset]map[dict.Tag]string
}

func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "dicomxml: "+format, args...)
}

func (p *parser) count(n int) error {
	if p.elements += n; p.elements > p.limits.Elements {
		return invalid("more than %d attributes, items and values", p.limits.Elements)
	}
	return nil
}

// token returns the next token that means something.
func (p *parser) token() (xml.Token, error) {
	for {
		t, err := p.dec.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, invalid("no XML in UTF-8 at byte %d", p.dec.InputOffset()) // the decoder's own text may quote values
		}
		switch t.(type) {
		case xml.Comment, xml.ProcInst:
		case xml.Directive:
			return nil, invalid("a document type declaration")
		default:
			return t, nil
		}
	}
}

func (p *parser) document() (*dicom.Dataset, error) {
	var ds *dicom.Dataset
	for {
		t, err := p.token()
		if errors.Is(err, io.EOF) {
			if ds == nil {
				return nil, invalid("no NativeDicomModel")
			}
			return ds, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if t.Name.Local != "NativeDicomModel" || ds != nil {
				return nil, invalid("other than one NativeDicomModel")
			}
			ds = dicom.NewDataset()
			if err := p.dataset(ds, 0); err != nil {
				return nil, err
			}
		case xml.CharData:
			if strings.TrimSpace(strings.TrimPrefix(string(t), "\uFEFF")) != "" {
				return nil, invalid("text outside NativeDicomModel")
			}
		}
	}
}

// child returns the next child element, or nil at the end of its parent.
func (p *parser) child() (*xml.StartElement, error) {
	for {
		t, err := p.token()
		if errors.Is(err, io.EOF) {
			return nil, invalid("ends early")
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			return &t, nil
		case xml.EndElement:
			return nil, nil
		}
	}
}

// text returns the character data of an element to its end.
func (p *parser) text() (string, error) {
	var b strings.Builder
	for {
		t, err := p.token()
		if errors.Is(err, io.EOF) {
			return "", invalid("ends early")
		}
		if err != nil {
			return "", err
		}
		switch t := t.(type) {
		case xml.CharData:
			b.Write(t)
		case xml.EndElement:
			return b.String(), nil
		default:
			return "", invalid("an element where text is due")
		}
	}
}

func attr(e *xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// dataset reads the attributes of ds to the end of its element.
func (p *parser) dataset(ds *dicom.Dataset, depth int) error {
	var elements []dicom.Element
	var privates []private
	uris := map[int]string{}
	for {
		c, err := p.child()
		if err != nil {
			return err
		}
		if c == nil {
			break
		}
		if c.Name.Local != "DicomAttribute" {
			return invalid("an element %s among attributes", known(c.Name.Local))
		}
		if err := p.count(1); err != nil {
			return err
		}
		tag, err := tagOf(c)
		if err != nil {
			return err
		}
		e, uri, err := p.attribute(ds, c, tag, depth)
		if err != nil {
			return err
		}
		if !isWritten(tag) || tag == dict.SpecificCharacterSet {
			continue
		}
		if creator := strings.TrimSpace(attr(c, "privateCreator")); creator != "" && tag.IsPrivate() {
			privates = append(privates, private{len(elements), creator})
		}
		if uri != "" {
			uris[len(elements)] = uri
		}
		elements = append(elements, e)
	}
	elements, err := placePrivates(elements, privates)
	if err != nil {
		return err
	}
	p.keepURIs(ds, elements, uris)
	if depth == 0 {
		elements = append(elements, dicom.Element{Tag: dict.SpecificCharacterSet, VR: dict.CS, Value: []byte("ISO_IR 192")})
	}
	slices.SortFunc(elements, func(a, b dicom.Element) int { return int(int64(a.Tag) - int64(b.Tag)) })
	for i := 1; i < len(elements); i++ {
		if elements[i].Tag == elements[i-1].Tag {
			return invalid("%v stands twice", elements[i].Tag)
		}
	}
	ds.Elements = elements
	return nil
}

// known keeps text of the peer's own out of errors.
func known(name string) string {
	switch name {
	case "Value", "PersonName", "Item", "InlineBinary", "BulkData", "NativeDicomModel":
		return name
	}
	return "of another name"
}

func (p *parser) keepURIs(ds *dicom.Dataset, elements []dicom.Element, uris map[int]string) {
	if len(uris) == 0 {
		return
	}
	if p.uris == nil {
		p.uris = map[*dicom.Dataset]map[dict.Tag]string{}
	}
	p.uris[ds] = map[dict.Tag]string{}
	for i, uri := range uris {
		p.uris[ds][elements[i].Tag] = uri
	}
}

// collect returns the references in the order of the data set, by their paths.
func (p *parser) collect(ds *dicom.Dataset, path string, refs []dicomjson.BulkRef) []dicomjson.BulkRef {
	if len(p.uris) == 0 {
		return refs
	}
	for i := range ds.Elements {
		e := &ds.Elements[i]
		if uri := p.uris[ds][e.Tag]; uri != "" {
			refs = append(refs, dicomjson.BulkRef{Path: path + formatTag(e.Tag), VR: e.VR, URI: uri})
		}
		for j, item := range e.Items {
			refs = p.collect(item, path+formatTag(e.Tag)+"/"+strconv.Itoa(j+1)+"/", refs)
		}
	}
	return refs
}

// tagOf returns the tag of a DicomAttribute, by its keyword if it has none.
func tagOf(c *xml.StartElement) (dict.Tag, error) {
	if s := attr(c, "tag"); s != "" {
		if t, ok := dicomjson.ParseTag(s); ok {
			return t, nil
		}
	} else if e, ok := dict.ByKeyword(attr(c, "keyword")); ok {
		return e.Tag, nil
	}
	return 0, invalid("an attribute without a tag")
}

// content is what an attribute holds.
type content struct {
	values []string
	items  []*dicom.Dataset
	set    []bool // which places of values or items were written
	inline string
	uri    string
	kind   string // element name of its children
}

func (p *parser) attribute(ds *dicom.Dataset, start *xml.StartElement, tag dict.Tag, depth int) (dicom.Element, string, error) {
	e := dicom.Element{Tag: tag, VR: dict.ImplicitVR(tag, false)}
	if s := attr(start, "vr"); s != "" {
		if len(s) != 2 {
			return e, "", invalid("%v: unknown VR", tag)
		}
		if e.VR = dict.VR(s[0])<<8 | dict.VR(s[1]); !e.VR.Known() {
			return e, "", invalid("%v: unknown VR", tag)
		}
	}
	var c content
	for {
		child, err := p.child()
		if err != nil {
			return e, "", err
		}
		if child == nil {
			break
		}
		if c.kind != "" && c.kind != child.Name.Local {
			return e, "", invalid("%v: children of several kinds", tag)
		}
		if c.kind == child.Name.Local && (c.kind == "InlineBinary" || c.kind == "BulkData") {
			return e, "", invalid("%v: more than one %s", tag, c.kind)
		}
		c.kind = child.Name.Local
		if err := p.part(ds, &c, child, tag, depth); err != nil {
			return e, "", err
		}
	}
	err := c.into(&e)
	return e, c.uri, err
}

// part reads one child of an attribute.
func (p *parser) part(ds *dicom.Dataset, c *content, child *xml.StartElement, tag dict.Tag, depth int) (err error) {
	switch child.Name.Local {
	case "InlineBinary":
		c.inline, err = p.text()
		return err
	case "BulkData":
		if c.uri = attr(child, "uri"); c.uri == "" {
			if id := attr(child, "uuid"); id != "" {
				c.uri = "urn:uuid:" + id
			}
		}
		if c.uri == "" {
			return invalid("%v: BulkData without uri", tag)
		}
		_, err = p.text()
		return err
	case "Value", "PersonName", "Item":
	default:
		return invalid("%v: a child %s", tag, known(child.Name.Local))
	}
	n, err := p.place(c, child, tag)
	if err != nil {
		return err
	}
	switch child.Name.Local {
	case "Value":
		c.values[n], err = p.text()
	case "PersonName":
		c.values[n], err = p.name(tag)
	default:
		if depth >= p.limits.Depth {
			return invalid("%v: sequences nested deeper than %d", tag, p.limits.Depth)
		}
		err = p.dataset(c.items[n], depth+1)
	}
	return err
}

// place makes room for the child by its number and returns its index.
func (p *parser) place(c *content, child *xml.StartElement, tag dict.Tag) (int, error) {
	number := len(c.set) + 1
	if s := attr(child, "number"); s != "" {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 {
			return 0, invalid("%v: a number that is none", tag)
		}
		number = n
	}
	if grow := number - len(c.set); grow > 0 {
		if grow > p.limits.Elements {
			return 0, invalid("more than %d attributes, items and values", p.limits.Elements)
		}
		if err := p.count(grow); err != nil {
			return 0, err
		}
		for range grow {
			c.set = append(c.set, false)
			if child.Name.Local == "Item" {
				c.items = append(c.items, dicom.NewDataset()) // without a character set of its own
			} else {
				c.values = append(c.values, "")
			}
		}
	}
	if c.set[number-1] {
		return 0, invalid("%v: number %d stands twice", tag, number)
	}
	c.set[number-1] = true
	return number - 1, nil
}

// name reads a PersonName to its end.
func (p *parser) name(tag dict.Tag) (string, error) {
	var groups [len(nameGroups)]string
	for {
		g, err := p.child()
		if err != nil {
			return "", err
		}
		if g == nil {
			return strings.TrimRight(strings.Join(groups[:], "="), "="), nil
		}
		i := slices.Index(nameGroups[:], g.Name.Local)
		if i < 0 {
			return "", invalid("%v: unknown component group", tag)
		}
		var components [len(nameComponents)]string
		for {
			c, err := p.child()
			if err != nil {
				return "", err
			}
			if c == nil {
				break
			}
			j := slices.Index(nameComponents[:], c.Name.Local)
			if j < 0 {
				return "", invalid("%v: unknown name component", tag)
			}
			s, err := p.text()
			if err != nil {
				return "", err
			}
			if strings.ContainsRune(s, '=') || j < len(components)-1 && strings.ContainsRune(s, '^') {
				return "", invalid("%v: delimiter in a name component", tag)
			}
			components[j] = s
		}
		groups[i] = strings.TrimRight(strings.Join(components[:], "^"), "^")
	}
}

// into puts what was read into the element.
func (c *content) into(e *dicom.Element) (err error) {
	switch c.kind {
	case "":
		return nil
	case "InlineBinary":
		if !e.VR.Bulk() {
			return invalid("%v: InlineBinary for VR %v", e.Tag, e.VR)
		}
		// White space between digits is not ours to mind.
		if e.Value, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(c.inline), "")); err != nil {
			return invalid("%v: InlineBinary is no base64", e.Tag)
		}
		if len(e.Value)%2 == 1 {
			e.Value = append(e.Value, 0)
		}
		return nil
	case "BulkData":
		if e.VR == dict.SQ {
			return invalid("%v: a sequence by reference", e.Tag)
		}
		return nil
	case "Item":
		if e.VR != dict.SQ {
			return invalid("%v: items in VR %v", e.Tag, e.VR)
		}
		e.Items = c.items
		return nil
	case "PersonName":
		if e.VR != dict.PN {
			return invalid("%v: a person name in VR %v", e.Tag, e.VR)
		}
	default:
		if e.VR == dict.PN {
			return invalid("%v: a Value in VR PN", e.Tag)
		}
	}
	*e, err = dicomjson.NewElement(e.Tag, e.VR, c.values)
	return err
}
