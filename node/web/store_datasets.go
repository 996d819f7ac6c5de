package web

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/url"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dicomxml"
	"pelago/dimse/dict"
)

// maxNestedBulk bounds the bulk data of one data set that belongs into items of
// sequences: it is put together in memory, as what stands at the top is not.
const maxNestedBulk = 64 << 20

// received is a data set of a store request with what it refers to.
type received struct {
	ds   *dicom.Dataset
	refs []dicomjson.BulkRef
}

// dataSets stores data sets that come as JSON or XML, their bulk data in parts of
// its own, joined by Content-Location (PS3.18 §10.5.1.2).
func (s *storing) dataSets(parts *multipartReader, asJSON bool) (err error) {
	waiting, err := openSpool(s.options.TempDir, s.limits.Spool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, waiting.close()) }()
	var all []received
	for {
		p, err := parts.next()
		if errors.Is(err, errNoPart) {
			break
		}
		if err != nil {
			return err
		}
		kind, ok := parseContentType(p.fields["content-type"])
		if isMetadata := kind.kind == typeJSON || kind.kind == typePlainJSON || kind.kind == typeXML ||
			kind.kind == "application/xml" || kind.kind == "text/xml"; !ok && len(all) == 0 || isMetadata && p.fields["content-location"] == "" {
			if all, err = s.parse(all, p, asJSON); err != nil {
				return err
			}
			continue
		}
		if err := waiting.put(p.fields["content-location"], kind, p); err != nil {
			return err
		}
	}
	for i := range all {
		s.dataSet(&all[i], waiting)
	}
	return s.nothing()
}

// parse reads a metadata part. Broken metadata ends the request: what it means
// to hold is unknown.
func (s *storing) parse(all []received, r io.Reader, asJSON bool) ([]received, error) {
	limits := dicomjson.DefaultLimits
	limits.Bytes = s.limits.Metadata
	sets, refs, err := readMetadata(r, limits, asJSON)
	if err != nil {
		return nil, err
	}
	if len(all)+len(sets) > s.limits.Parts {
		return nil, fault.New(fault.Invalid, "over %d data sets", s.limits.Parts)
	}
	first := len(all)
	for _, ds := range sets {
		all = append(all, received{ds: ds})
	}
	for _, ref := range refs {
		rec := &all[first+ref.Dataset]
		rec.refs = append(rec.refs, ref)
	}
	return all, nil
}

// readMetadata reads an array of data sets as JSON, or one as XML.
func readMetadata(r io.Reader, limits dicomjson.Limits, asJSON bool) ([]*dicom.Dataset, []dicomjson.BulkRef, error) {
	if asJSON {
		return dicomjson.Parse(r, limits)
	}
	ds, refs, err := dicomxml.Parse(r, limits)
	if err != nil {
		return nil, nil, err
	}
	return []*dicom.Dataset{ds}, refs, nil
}

// dataSet stores one data set.
func (s *storing) dataSet(rec *received, waiting *spool) {
	meta := dicom.Meta{
		Class: rec.ds.String(tagSOPClass), Instance: rec.ds.String(tagSOPInstance),
		Syntax: dict.ExplicitLittleEndian,
	}
	body, syntax, err := s.compose(rec, waiting)
	if err != nil {
		s.fail(meta, err)
		return
	}
	meta.Syntax = syntax
	s.put(meta, body)
}

// The attributes that tell a data set's class, and how metadata was encoded.
const tagSOPClass = dict.Tag(0x00080016)

// compose returns the data set in a transfer syntax: its attributes encoded,
// and its bulk data read from the spool as it goes.
func (s *storing) compose(rec *received, waiting *spool) (io.Reader, string, error) {
	ds := rec.ds
	ds.Remove(dict.AvailableTransferSyntaxUID) // speaks of the metadata, and is no part of the instance
	top := make(map[dict.Tag][]spooled)
	nested := int64(0)
	for _, ref := range rec.refs {
		found := s.find(waiting, ref.URI)
		if len(found) == 0 {
			return nil, "", fault.New(fault.Invalid, "no part has the bulk data of %s", trimText(ref.Path, 64))
		}
		e, in, err := dicomjson.Resolve(ds, ref.Path)
		if err != nil {
			return nil, "", err
		}
		if in == ds {
			top[e.Tag] = found
			continue
		}
		for _, p := range found {
			if nested += p.length; nested > maxNestedBulk {
				return nil, "", fault.New(fault.Unsupported, "over %d bytes of bulk data in sequences", maxNestedBulk)
			}
			value, err := io.ReadAll(waiting.reader(p))
			if err != nil {
				return nil, "", err
			}
			e.Value = append(e.Value, value...)
		}
		if len(e.Value)%2 == 1 {
			e.Value = append(e.Value, 0)
		}
	}
	return composed(ds, top, waiting)
}

// find returns the parts that a BulkDataURI means: by its text, or both made
// absolute against the request.
func (s *storing) find(waiting *spool, uri string) []spooled {
	if found := waiting.parts[uri]; len(found) > 0 {
		return found
	}
	base, err := url.Parse(baseURL(s.r) + s.r.URL.EscapedPath())
	if err != nil {
		return nil
	}
	absolute := func(s string) string {
		if u, err := base.Parse(s); err == nil {
			return u.String()
		}
		return s
	}
	wanted := absolute(uri)
	for location, found := range waiting.parts {
		if location != "" && absolute(location) == wanted {
			return found
		}
	}
	return nil
}

// composed joins the encoded attributes and the bulk values between them.
func composed(ds *dicom.Dataset, top map[dict.Tag][]spooled, waiting *spool) (io.Reader, string, error) {
	little, _ := dict.Syntax(dict.ExplicitLittleEndian)
	syntax := dict.ExplicitLittleEndian
	var pieces []io.Reader
	from := 0
	flush := func(to int) error {
		if from == to {
			return nil
		}
		part := *ds
		part.Elements = ds.Elements[from:to]
		b, err := part.Encode(nil, little)
		if err != nil {
			return err
		}
		pieces = append(pieces, bytes.NewReader(b))
		return nil
	}
	for i := range ds.Elements {
		e := &ds.Elements[i]
		found, ok := top[e.Tag]
		if !ok {
			continue
		}
		if err := flush(i); err != nil {
			return nil, "", err
		}
		from = i + 1
		if e.Tag == tagPixels {
			uid, err := encapsulation(found[0], waiting)
			if err != nil {
				return nil, "", err
			}
			if uid != "" {
				syntax = uid
				if pieces, err = encapsulated(pieces, found, waiting); err != nil {
					return nil, "", err
				}
				continue
			}
		}
		var err error
		if pieces, err = native(pieces, e, found, waiting); err != nil {
			return nil, "", err
		}
	}
	if err := flush(len(ds.Elements)); err != nil {
		return nil, "", err
	}
	return io.MultiReader(pieces...), syntax, nil
}

// native adds an element with a value of defined length (PS3.5 §7.1.2).
func native(pieces []io.Reader, e *dicom.Element, found []spooled, waiting *spool) ([]io.Reader, error) {
	var size int64
	for _, p := range found {
		size += p.length
	}
	padded := size + size%2
	if padded >= 1<<32-1 {
		return nil, fault.New(fault.Invalid, "the value of %s is longer than an element can be", e.Tag)
	}
	vr := e.VR
	if !vr.Known() || !vr.Long() && padded > 1<<16-2 {
		vr = dict.UN
	}
	head := elementHead(e.Tag, vr)
	if vr.Long() {
		head = binary.LittleEndian.AppendUint32(append(head, 0, 0), uint32(padded))
	} else {
		head = binary.LittleEndian.AppendUint16(head, uint16(padded))
	}
	pieces = append(pieces, bytes.NewReader(head))
	for _, p := range found {
		pieces = append(pieces, waiting.reader(p))
	}
	if padded > size {
		pad := byte(0)
		if vr.Text() && vr != dict.UI {
			pad = ' '
		}
		pieces = append(pieces, bytes.NewReader([]byte{pad}))
	}
	return pieces, nil
}

// elementHead returns tag and VR in explicit little endian.
func elementHead(tag dict.Tag, vr dict.VR) []byte {
	b := binary.LittleEndian.AppendUint16(nil, tag.Group())
	b = binary.LittleEndian.AppendUint16(b, tag.Element())
	return append(b, byte(vr>>8), byte(vr))
}

// encapsulated adds pixel data of one fragment a frame, with an empty basic
// offset table (PS3.5 §A.4).
func encapsulated(pieces []io.Reader, found []spooled, waiting *spool) ([]io.Reader, error) {
	item := func(element uint16, length uint32) []byte {
		b := binary.LittleEndian.AppendUint16(nil, 0xFFFE)
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(b, element), length)
	}
	head := append(elementHead(tagPixels, dict.OB), 0, 0, 0xFF, 0xFF, 0xFF, 0xFF)
	pieces = append(pieces, bytes.NewReader(append(head, item(0xE000, 0)...)))
	for _, p := range found {
		padded := p.length + p.length%2
		if padded >= 1<<32-1 {
			return nil, fault.New(fault.Invalid, "a frame is longer than a fragment can be")
		}
		pieces = append(pieces, bytes.NewReader(item(0xE000, uint32(padded))), waiting.reader(p))
		if padded > p.length {
			pieces = append(pieces, bytes.NewReader([]byte{0}))
		}
	}
	return append(pieces, bytes.NewReader(item(0xE0DD, 0))), nil
}

// encapsulation returns the transfer syntax of a pixel data part, "" if its
// bytes are native (PS3.18 table 8.7.3-5: the defaults of each media type).
func encapsulation(p spooled, waiting *spool) (string, error) {
	if uid := p.kind.get("transfer-syntax"); uid != "" {
		syntax, known := dict.Syntax(uid)
		if !known || syntax.Refused || syntax.Deflated || syntax.BigEndian {
			return "", fault.New(fault.Unsupported, "pixel data in that transfer syntax is not taken")
		}
		if syntax.Encapsulated {
			return uid, nil
		}
		return "", nil
	}
	kind := p.kind.kind
	if alias, ok := pixelAliases[kind]; ok {
		kind = alias
	}
	if kind == "image/jpeg" {
		return jpegSyntax(waiting.reader(p))
	}
	if uid, ok := map[string]string{
		"image/dicom-rle": "1.2.840.10008.1.2.5",
		"image/jls":       "1.2.840.10008.1.2.4.80",
		"image/jp2":       "1.2.840.10008.1.2.4.90",
		"image/jpx":       "1.2.840.10008.1.2.4.92",
		"image/jphc":      "1.2.840.10008.1.2.4.201",
		"image/jxl":       "1.2.840.10008.1.2.4.110",
		"video/mpeg":      "1.2.840.10008.1.2.4.100",
		"video/mp4":       "1.2.840.10008.1.2.4.102",
		"video/h265":      "1.2.840.10008.1.2.4.107",
	}[kind]; ok {
		return uid, nil
	}
	if strings.HasPrefix(kind, "image/") || strings.HasPrefix(kind, "video/") {
		return "", fault.New(fault.Unsupported, "pixel data of type %s is not taken", trimText(printable(kind), 64))
	}
	return "", nil
}

// jpegSyntax tells the process of a JPEG codestream from its frame header.
func jpegSyntax(r io.Reader) (string, error) {
	bad := fault.New(fault.Unsupported, "the pixel data is no JPEG of a process that DICOM knows")
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", bad
	}
	b := head[:n]
	if len(b) < 4 || b[0] != 0xFF || b[1] != 0xD8 {
		return "", bad
	}
	for b = b[2:]; len(b) >= 4 && b[0] == 0xFF; {
		switch b[1] {
		case 0xFF:
			b = b[1:]
			continue
		case 0xC0:
			return "1.2.840.10008.1.2.4.50", nil
		case 0xC1:
			return "1.2.840.10008.1.2.4.51", nil
		case 0xC3:
			return "1.2.840.10008.1.2.4.70", nil
		}
		length := 2 + int(binary.BigEndian.Uint16(b[2:]))
		if length > len(b) {
			break
		}
		b = b[length:]
	}
	return "", bad
}
