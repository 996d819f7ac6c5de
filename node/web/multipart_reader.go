package web

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"pelago/cluster/fault"
)

// Limits of a multipart body's frame that no sender has reason to reach.
const (
	maxPreamble    = 64 << 10 // text before the first boundary
	maxBoundary    = 200      // characters; RFC 2046 §5.1.1 says 70
	maxPartFields  = 64
	multipartChunk = 128 << 10
)

// errNoPart is the end of a well-formed multipart body.
var errNoPart = errors.New("web: no further part")

// multipartReader reads the parts of a multipart body in one pass (RFC 2046
// §5.1). It takes lines that end in LF alone if the first boundary line does, a
// part without header fields, and a preamble. A part ends only at its delimiter:
// where the body ends before it, the part's reader fails with
// io.ErrUnexpectedEOF, so that what was cut short cannot be taken for whole.
type multipartReader struct {
	src    io.Reader
	limits Limits

	buf  []byte // read and not yet given away: buf[r:w]
	r, w int
	err  error // of src, once met

	delim   []byte // line end + "--" + boundary
	started bool
	closed  bool // the closing delimiter was seen
	part    *part
	parts   int
}

// part is one part of a multipart body.
type part struct {
	reader *multipartReader
	fields map[string]string // header fields by name in lower case, the first of each
	fresh  bool              // nothing read: a delimiter may stand without a line end before it
	ended  bool
}

// newMultipartReader reads the body of a type's boundary parameter; an unusable
// boundary is fault.Invalid.
func newMultipartReader(src io.Reader, boundary string, limits Limits) (*multipartReader, error) {
	if boundary == "" || len(boundary) > maxBoundary || strings.ContainsAny(boundary, "\r\n\x00") {
		return nil, fault.New(fault.Invalid, "the multipart body has no usable boundary")
	}
	limits.PartHeader = min(limits.PartHeader, multipartChunk/2) // a line must fit the buffer
	return &multipartReader{
		src: src, limits: limits, buf: make([]byte, multipartChunk),
		delim: []byte("\r\n--" + boundary),
	}, nil
}

// fill reads more; false when there is no room or nothing to come.
func (m *multipartReader) fill() bool {
	if m.r > 0 {
		m.w = copy(m.buf, m.buf[m.r:m.w])
		m.r = 0
	}
	if m.err != nil || m.w == len(m.buf) {
		return false
	}
	n, err := m.src.Read(m.buf[m.w:])
	m.w += n
	m.err = err
	return n > 0 || err == nil
}

// cutShort is the error of a body that ended where it should not.
func (m *multipartReader) cutShort() error {
	if m.err != nil && !errors.Is(m.err, io.EOF) {
		return m.err
	}
	return fault.New(fault.Protocol, "the multipart body is cut short: %w", io.ErrUnexpectedEOF)
}

// line reads a line of at most limit bytes, without its end.
func (m *multipartReader) line(limit int) (line []byte, crlf bool, err error) {
	for from := 0; ; {
		if i := bytes.IndexByte(m.buf[m.r+from:m.w], '\n'); i >= 0 {
			line = m.buf[m.r : m.r+from+i]
			m.r += from + i + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				return line[:n-1], true, nil
			}
			return line, false, nil
		}
		if from = m.w - m.r; from > limit {
			return nil, false, fault.New(fault.Invalid, "a line of the multipart body is over %d bytes", limit)
		}
		if !m.fill() && m.w-m.r == from {
			return nil, false, m.cutShort()
		}
	}
}

// next returns the next part, having passed over what is left of the one
// before; errNoPart after the closing delimiter.
func (m *multipartReader) next() (*part, error) {
	if m.closed {
		return nil, errNoPart
	}
	if !m.started {
		if err := m.start(); err != nil {
			return nil, err
		}
	} else if m.part != nil {
		if _, err := io.Copy(io.Discard, m.part); err != nil {
			return nil, err
		}
	}
	if m.closed {
		return nil, errNoPart
	}
	if m.parts++; m.parts > m.limits.Parts {
		return nil, fault.New(fault.Invalid, "over %d parts", m.limits.Parts)
	}
	fields, err := m.fields()
	if err != nil {
		return nil, err
	}
	m.part = &part{reader: m, fields: fields, fresh: true}
	return m.part, nil
}

// start passes over the preamble to the first boundary line, which tells how
// lines end.
func (m *multipartReader) start() error {
	dash := m.delim[2:]
	for passed := 0; ; {
		line, crlf, err := m.line(maxPreamble)
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				// Without a line end behind it, the whole rest may be the closing one.
				if rest := m.buf[m.r:m.w]; bytes.HasPrefix(rest, dash) && bytes.HasPrefix(rest[len(dash):], []byte("--")) {
					m.started, m.closed = true, true
					return nil
				}
				return fault.New(fault.Invalid, "the multipart body does not hold its boundary: %w", err)
			}
			return err
		}
		if rest, ok := bytes.CutPrefix(line, dash); ok {
			if bytes.HasPrefix(rest, []byte("--")) {
				m.started, m.closed = true, true
				return nil
			}
			if len(bytes.Trim(rest, " \t")) == 0 {
				if !crlf {
					m.delim = m.delim[1:] // lines end in LF alone
				}
				m.started = true
				return nil
			}
		}
		if passed += len(line) + 2; passed > maxPreamble {
			return fault.New(fault.Invalid, "no boundary in the first %d bytes", maxPreamble)
		}
	}
}

// fields reads a part's header. A line that begins with a blank goes on the one
// before; what is no field is passed over.
func (m *multipartReader) fields() (map[string]string, error) {
	fields := make(map[string]string, 4)
	last, size := "", 0
	for {
		line, _, err := m.line(m.limits.PartHeader)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			return fields, nil
		}
		if size += len(line) + 2; size > m.limits.PartHeader || len(fields) > maxPartFields {
			return nil, fault.New(fault.Invalid, "a part's header is over %d bytes or %d fields", m.limits.PartHeader, maxPartFields)
		}
		if (line[0] == ' ' || line[0] == '\t') && last != "" {
			fields[last] += " " + strings.TrimSpace(string(line))
			continue
		}
		name, value, ok := strings.Cut(string(line), ":")
		if name = strings.ToLower(strings.TrimSpace(name)); !ok || name == "" {
			last = ""
			continue
		}
		if _, again := fields[name]; again {
			last = ""
			continue
		}
		fields[name], last = strings.TrimSpace(value), name
	}
}

// Read reads the part's bytes up to its delimiter.
func (p *part) Read(b []byte) (int, error) {
	m := p.reader
	if p.ended {
		return 0, io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, found := m.scan(p.fresh)
		switch {
		case n > 0:
			n = copy(b, m.buf[m.r:m.r+n])
			m.r += n
			p.fresh = false
			return n, nil
		case found:
			p.ended = true
			return 0, io.EOF
		}
		before := m.w - m.r
		if !m.fill() && m.w-m.r == before {
			return 0, m.cutShort()
		}
	}
}

// scan returns how many bytes of the buffer surely belong to the part; if none,
// found says that its delimiter stood next and was passed over.
func (m *multipartReader) scan(fresh bool) (n int, found bool) {
	buf := m.buf[m.r:m.w]
	if fresh {
		// An empty part may be ended by the boundary right after its header.
		bare := m.delim[bytes.IndexByte(m.delim, '\n')+1:]
		switch m.boundaryLine(buf, bare) {
		case isDelimiter:
			return 0, true
		case maybeDelimiter:
			return 0, false
		}
	}
	for at := 0; ; {
		i := bytes.Index(buf[at:], m.delim)
		if i < 0 {
			return m.safe(buf), false
		}
		at += i
		if at > 0 {
			// What stands before is the part's whatever follows; look at the rest then.
			return at, false
		}
		switch m.boundaryLine(buf, m.delim) {
		case isDelimiter:
			return 0, true
		case maybeDelimiter:
			return 0, false
		}
		at = len(m.delim) // a longer line that only begins like the boundary
	}
}

// safe returns how many bytes cannot be the beginning of a delimiter.
func (m *multipartReader) safe(buf []byte) int {
	from := max(0, len(buf)-len(m.delim)+1)
	for i := from; i < len(buf); i++ {
		if buf[i] == m.delim[0] && bytes.HasPrefix(m.delim, buf[i:]) {
			return i
		}
	}
	return len(buf)
}

type delimiter uint8

const (
	noDelimiter delimiter = iota
	maybeDelimiter
	isDelimiter
)

// maxPadding is the blanks that a transport may put behind a boundary.
const maxPadding = 256

// boundaryLine looks whether buf begins with a delimiter line and, if so, passes
// over it. maybeDelimiter asks for more bytes.
func (m *multipartReader) boundaryLine(buf, delim []byte) delimiter {
	if len(buf) < len(delim) {
		if bytes.HasPrefix(delim, buf) && m.err == nil {
			return maybeDelimiter
		}
		return noDelimiter
	}
	rest, ok := bytes.CutPrefix(buf, delim)
	if !ok {
		return noDelimiter
	}
	if bytes.HasPrefix(rest, []byte("--")) {
		m.r += len(delim) + 2
		m.closed = true
		return isDelimiter
	}
	for i, c := range rest {
		switch {
		case c == '\n':
			m.r += len(delim) + i + 1
			return isDelimiter
		case c == '\r' && i+1 < len(rest) && rest[i+1] == '\n':
			m.r += len(delim) + i + 2
			return isDelimiter
		case c == '\r' && i+1 == len(rest), (c == ' ' || c == '\t') && i < maxPadding, c == '-' && i == 0 && len(rest) == 1:
			continue
		}
		return noDelimiter
	}
	if m.err != nil {
		// The body ends right behind the boundary's name: not a closing delimiter.
		return noDelimiter
	}
	return maybeDelimiter
}
