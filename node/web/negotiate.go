package web

import (
	"slices"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// form is one way in which a client takes bytes.
type form struct {
	multipart bool
	anything  bool   // */*: we choose the container
	kind      string // media type or range of a part, or of the whole
	syntax    string // transfer syntax: a UID, "*", or "" when none was named
}

// takes reports whether a media type is within the form.
func (f form) takes(kind string) bool { return media{kind: f.kind}.matches(kind) }

// forms lists what the client takes, the most wanted first. A multipart without
// a type takes every part.
func (a acceptable) forms() []form {
	forms := make([]form, 0, len(a.wanted))
	for _, m := range a.wanted {
		f := form{kind: m.kind, syntax: m.get("transfer-syntax")}
		switch {
		case m.kind == typeMultipart || m.kind == "multipart/*":
			f.multipart = true
			if f.kind = m.root(); f.kind == "" {
				f.kind = "*/*"
			}
		case m.kind == "*/*":
			f.anything = true
		}
		forms = append(forms, f)
	}
	return forms
}

// target picks the transfer syntax in which a stored data set is sent when the
// client names want (DESIGN §9, Web): `*` or the stored one gives the stored
// bytes; none named, explicit little endian where we can make it and the stored
// form where we cannot; another uncompressed one is converted or decoded to.
func target(stored, want string) (string, bool) {
	from, _ := dict.Syntax(stored)
	plain := from.Uncompressed() || decodable(stored)
	switch {
	case want == "*" || want == stored:
		return stored, true
	case want == "" && plain:
		return dict.ExplicitLittleEndian, true
	case want == "":
		return stored, true
	}
	to, known := dict.Syntax(want)
	return want, known && plain && to.Uncompressed()
}

// container says how the instances of a retrieve are packed, and in which
// transfer syntaxes each of them may be, the most wanted first.
type container struct {
	multipart bool
	syntaxes  []string // as named by the client: UIDs, "*" or ""
}

// instanceContainer picks the container for a number of instances: multipart by
// default, bare application/dicom when it is asked for and there is one.
func (a acceptable) instanceContainer(single bool) (container, error) {
	var c container
	chosen := false
	for _, f := range a.forms() {
		multipart := f.multipart || f.anything
		switch {
		case !f.takes(typeDICOM), !multipart && !single, chosen && multipart != c.multipart:
			continue
		}
		chosen, c.multipart = true, multipart
		c.syntaxes = append(c.syntaxes, f.syntax)
	}
	if !chosen {
		return c, fault.New(fault.Unsupported, "instances are sent as multipart/related; type=\"application/dicom\", one alone also as application/dicom")
	}
	return c, nil
}

// pick returns the transfer syntax for one stored instance. orStored says that
// the stored one is taken too, should decoding fail.
func (c container) pick(stored string) (syntax string, orStored bool, err error) {
	orStored = slices.ContainsFunc(c.syntaxes, func(want string) bool { return want == "" || want == "*" || want == stored })
	for _, want := range c.syntaxes {
		if to, ok := target(stored, want); ok {
			return to, orStored, nil
		}
	}
	return "", false, fault.New(fault.Unsupported, "an instance is stored in transfer syntax %s and cannot be made in the one asked for", stored)
}

// pixelTypes are the media types of encapsulated transfer syntaxes (PS3.18
// tables 8.7.3-2 to 8.7.3-5), by UID or by a UID's beginning that ends in a dot.
var pixelTypes = []struct{ uid, kind string }{
	{"1.2.840.10008.1.2.5", "image/dicom-rle"},
	{"1.2.840.10008.1.2.4.80", "image/jls"},
	{"1.2.840.10008.1.2.4.81", "image/jls"},
	{"1.2.840.10008.1.2.4.90", "image/jp2"},
	{"1.2.840.10008.1.2.4.91", "image/jp2"},
	{"1.2.840.10008.1.2.4.92", "image/jpx"},
	{"1.2.840.10008.1.2.4.93", "image/jpx"},
	{"1.2.840.10008.1.2.4.100", "video/mpeg"},
	{"1.2.840.10008.1.2.4.101", "video/mpeg"},
	{"1.2.840.10008.1.2.4.100.1", "video/mpeg"},
	{"1.2.840.10008.1.2.4.101.1", "video/mpeg"},
	{"1.2.840.10008.1.2.4.102", "video/mp4"},
	{"1.2.840.10008.1.2.4.103", "video/mp4"},
	{"1.2.840.10008.1.2.4.104", "video/mp4"},
	{"1.2.840.10008.1.2.4.105", "video/mp4"},
	{"1.2.840.10008.1.2.4.106", "video/mp4"},
	{"1.2.840.10008.1.2.4.102.1", "video/mp4"},
	{"1.2.840.10008.1.2.4.103.1", "video/mp4"},
	{"1.2.840.10008.1.2.4.104.1", "video/mp4"},
	{"1.2.840.10008.1.2.4.105.1", "video/mp4"},
	{"1.2.840.10008.1.2.4.106.1", "video/mp4"},
	{"1.2.840.10008.1.2.4.107", "video/H265"},
	{"1.2.840.10008.1.2.4.108", "video/H265"},
	{"1.2.840.10008.1.2.4.110", "image/jxl"},
	{"1.2.840.10008.1.2.4.111", "image/jxl"},
	{"1.2.840.10008.1.2.4.112", "image/jxl"},
	{"1.2.840.10008.1.2.4.201", "image/jphc"},
	{"1.2.840.10008.1.2.4.202", "image/jphc"},
	{"1.2.840.10008.1.2.4.203", "image/jphc"},
	{"1.2.840.10008.1.2.4.", "image/jpeg"}, // .50 to .70: all processes of JPEG
}

// pixelAliases are other names under which clients ask for the same.
var pixelAliases = map[string]string{
	"image/x-dicom-rle": "image/dicom-rle",
	"image/rle":         "image/dicom-rle",
	"image/x-jls":       "image/jls",
	"image/j2k":         "image/jp2",
	"image/jpg":         "image/jpeg",
	"image/x-jpeg":      "image/jpeg",
	"image/jph":         "image/jphc",
	"video/mpeg2":       "video/mpeg",
	"video/mp2":         "video/mpeg",
}

// pixelType returns the media type of a transfer syntax's pixel data;
// application/octet-stream for native and for unknown ones.
func pixelType(uid string) string {
	for _, t := range pixelTypes {
		if uid == t.uid || strings.HasSuffix(t.uid, ".") && strings.HasPrefix(uid, t.uid) {
			return t.kind
		}
	}
	return typeOctets
}

// pixelForm is how frames are sent.
type pixelForm struct {
	multipart bool
	kind      string // media type of each frame
	syntax    string // transfer syntax of each frame
}

// pixelForm picks the form for frames stored in a transfer syntax. single says
// that one frame is asked for, so that it may go without multipart; bare says
// that it does so even when the client takes anything; plain, that encapsulated
// frames can be decoded: they are where octets are taken and no transfer syntax,
// or explicit little endian, is named.
func (a acceptable) pixelForm(stored string, single, bare, plain bool) (pixelForm, error) {
	syntax, _ := dict.Syntax(stored)
	own := pixelType(stored)
	for _, f := range a.forms() {
		multipart := f.multipart || f.anything && !(single && bare)
		if !multipart && !single {
			continue
		}
		kind := f.kind
		if alias, ok := pixelAliases[kind]; ok {
			kind = alias
		}
		asked := media{kind: kind}
		if plain && asked.matches(typeOctets) && (f.syntax == "" || f.syntax == dict.ExplicitLittleEndian) {
			return pixelForm{multipart: multipart, kind: typeOctets, syntax: dict.ExplicitLittleEndian}, nil
		}
		var sent string
		switch {
		case asked.matches(strings.ToLower(own)):
			sent = own
		case asked.matches(typeOctets), syntax.Video && kind == "video/mp4":
			sent = kind
		default:
			continue
		}
		if to, ok := frameSyntax(syntax, f.syntax); ok {
			return pixelForm{multipart: multipart, kind: sent, syntax: to}, nil
		}
	}
	return pixelForm{}, fault.New(fault.Unsupported, "pixel data is stored in transfer syntax %s (%s) and cannot be made in the form asked for", stored, own)
}

// frameSyntax picks the transfer syntax of single frames. Implicit, explicit and
// deflated little endian hold the same bytes in a native frame; it is named
// explicit, the one that the standard gives for application/octet-stream.
func frameSyntax(stored dict.TransferSyntax, want string) (string, bool) {
	if stored.Encapsulated {
		return stored.UID, want == "" || want == "*" || want == stored.UID
	}
	switch want {
	case "", dict.ExplicitLittleEndian, dict.ImplicitLittleEndian, dict.DeflatedExplicitLittleEndian:
		return dict.ExplicitLittleEndian, true
	case dict.ExplicitBigEndian:
		// Only what came in big endian says in which units it swaps.
		return dict.ExplicitBigEndian, stored.BigEndian
	case "*":
		if stored.BigEndian {
			return dict.ExplicitBigEndian, true
		}
		return dict.ExplicitLittleEndian, true
	}
	return dict.ExplicitLittleEndian, want == stored.UID
}
