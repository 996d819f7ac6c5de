package web

import (
	"net/http"
	"sort"
	"strconv"
	"strings"
)

// Limits of what is read of an Accept or Content-Type value: a browser's list
// has about ten ranges, and the rest of a longer one is not looked at.
const (
	maxMediaRanges = 64
	maxMediaParams = 16
)

// param is a parameter of a media type; the name is in lower case.
type param struct{ name, value string }

// media is a media type or range with its parameters (RFC 9110 §8.3.1, §12.5.1).
type media struct {
	kind   string // "type/subtype" in lower case
	params []param
	q      float64 // weight; 1 when not given
}

// get returns a parameter's value, or "".
func (m media) get(name string) string {
	for _, p := range m.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// root is the media type of a multipart/related's parts, "" if not stated.
func (m media) root() string { return strings.ToLower(m.get("type")) }

// matches reports whether a concrete media type is in the range.
func (m media) matches(kind string) bool {
	if m.kind == kind || m.kind == "*/*" {
		return true
	}
	major, ok := strings.CutSuffix(m.kind, "/*")
	return ok && strings.HasPrefix(kind, major+"/")
}

// parseMedia reads a list of media types as leniently as it can be told apart:
// values with slashes or stars need no quotes (as OHIF sends them), a quoted type
// may carry parameters of its own, blanks stand anywhere, and what is malformed
// is dropped. It never fails; an empty list is the sign that nothing was usable.
func parseMedia(s string) []media {
	var list []media
	p := mediaParser{s: s}
	for !p.done() && len(list) < maxMediaRanges {
		if m, ok := p.next(); ok {
			list = append(list, m)
		}
	}
	return list
}

// parseContentType reads a single media type; ok is false when there is none.
func parseContentType(s string) (media, bool) {
	p := mediaParser{s: s}
	return p.next()
}

// mediaParser walks a media type list by bytes.
type mediaParser struct {
	s  string
	at int
}

func (p *mediaParser) done() bool { return p.at >= len(p.s) }

// until returns the text up to one of the stop bytes, outside of quotes, and
// leaves the parser on the stop byte.
func (p *mediaParser) until(stops string) string {
	from := p.at
	for p.at < len(p.s) && strings.IndexByte(stops, p.s[p.at]) < 0 {
		p.at++
	}
	return strings.TrimSpace(p.s[from:p.at])
}

// next reads one element of the list and the comma after it.
func (p *mediaParser) next() (media, bool) {
	m := media{kind: normalKind(p.until(";,")), q: 1}
	for p.at < len(p.s) && p.s[p.at] == ';' {
		p.at++
		name := strings.ToLower(p.until("=;,"))
		value := ""
		if p.at < len(p.s) && p.s[p.at] == '=' {
			p.at++
			value = p.value()
		}
		m.set(name, value)
	}
	if p.at < len(p.s) {
		p.at++ // the comma
	}
	return m, strings.Contains(m.kind, "/")
}

// value reads a parameter's value, quoted or not.
func (p *mediaParser) value() string {
	for p.at < len(p.s) && (p.s[p.at] == ' ' || p.s[p.at] == '\t') {
		p.at++
	}
	if p.at == len(p.s) || p.s[p.at] != '"' {
		return p.until(";,")
	}
	p.at++
	var b strings.Builder
	for p.at < len(p.s) && p.s[p.at] != '"' {
		if p.s[p.at] == '\\' && p.at+1 < len(p.s) {
			p.at++
		}
		b.WriteByte(p.s[p.at])
		p.at++
	}
	if p.at < len(p.s) {
		p.at++ // the closing quote
	}
	p.until(";,") // whatever stands between the quote and the next separator
	return strings.TrimSpace(b.String())
}

// set puts a parameter. The first of a name counts; q becomes the weight; a type
// with parameters inside its quotes gives them to the range.
func (m *media) set(name, value string) {
	switch {
	case name == "":
		return
	case name == "q":
		if q, err := strconv.ParseFloat(value, 64); err == nil && q >= 0 && q <= 1 {
			m.q = q
		}
		return
	case len(m.params) == maxMediaParams || m.get(name) != "":
		return
	case name == "type" && strings.Contains(value, ";"):
		inner, ok := parseContentType(value)
		if !ok {
			return
		}
		m.params = append(m.params, param{name, inner.kind})
		for _, p := range inner.params {
			if p.name != "type" {
				m.set(p.name, p.value)
			}
		}
		return
	case name == "type":
		value = normalKind(value)
	}
	m.params = append(m.params, param{name, value})
}

// normalKind lowers a media type and restores the plus sign that a query string
// turned into a blank (accept=application/dicom+json, sent unescaped).
func normalKind(s string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), " ", "+")
}

// acceptable is what a client takes, the most wanted first.
type acceptable struct {
	wanted  []media
	refused []media // q=0
}

// acceptOf reads the accept query parameter and the Accept header fields; the
// parameter comes first (PS3.18 §8.7.5). Nothing sent means everything.
func acceptOf(r *http.Request) acceptable {
	var a acceptable
	a.add(queryList(r, "accept"))
	a.add(r.Header.Values("Accept"))
	if len(a.wanted) == 0 && len(a.refused) == 0 {
		a.wanted = []media{{kind: "*/*", q: 1}}
	}
	return a
}

// add sorts the ranges of one source by weight and appends them.
func (a *acceptable) add(lines []string) {
	from := len(a.wanted)
	for _, line := range lines {
		for _, m := range parseMedia(line) {
			switch {
			case m.q == 0:
				a.refused = append(a.refused, m)
			case len(a.wanted)-from < maxMediaRanges:
				a.wanted = append(a.wanted, m)
			}
		}
	}
	added := a.wanted[from:]
	sort.SliceStable(added, func(i, j int) bool { return added[i].q > added[j].q })
}

// refuses reports whether a type was given weight zero by name.
func (a acceptable) refuses(kind string) bool {
	for _, m := range a.refused {
		if m.kind == kind {
			return true
		}
	}
	return false
}

// document is the form of an answer made of data sets.
type document struct {
	xml  bool
	gzip bool   // compressed, JSON only
	kind string // media type of a data set
}

// The media types of this face (PS3.18 §8.7.3).
const (
	typeDICOM     = "application/dicom"
	typeJSON      = "application/dicom+json"
	typePlainJSON = "application/json"
	typeXML       = "application/dicom+xml"
	typeOctets    = "application/octet-stream"
	typeMultipart = "multipart/related"
)

// document picks the form for search results, metadata and store responses; JSON
// is the default. XML is told by its own type, in a multipart or bare; plain XML
// counts only where nothing else does, since every browser takes it.
func (a acceptable) document() (document, bool) {
	for _, m := range a.wanted {
		kind := m.kind
		if kind == typeMultipart {
			kind = m.root()
		}
		switch {
		case kind == typeXML:
			return document{xml: true, kind: typeXML}, true
		case kind == typePlainJSON:
			return document{kind: typePlainJSON}, true
		case kind == typeJSON, m.kind != typeMultipart && m.matches(typeJSON) && !a.refuses(typeJSON):
			return document{kind: typeJSON}, true
		case m.matches(typeXML) && !a.refuses(typeXML):
			return document{xml: true, kind: typeXML}, true
		}
	}
	for _, m := range a.wanted {
		if m.kind == "application/xml" || m.kind == "text/xml" {
			return document{xml: true, kind: typeXML}, true
		}
	}
	return document{}, false
}

// acceptsGzip reports whether a compressed answer may be sent (RFC 9110 §12.5.3).
func acceptsGzip(r *http.Request) bool {
	star := false
	for _, line := range r.Header.Values("Accept-Encoding") {
		for _, item := range strings.Split(line, ",") {
			name, weight, _ := strings.Cut(item, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			zero := zeroWeight(weight)
			switch name {
			case "gzip", "x-gzip":
				return !zero
			case "*":
				star = !zero
			}
		}
	}
	return star
}

// zeroWeight reports whether the parameters of a coding say q=0.
func zeroWeight(params string) bool {
	for _, p := range strings.Split(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return err == nil && q == 0
		}
	}
	return false
}
