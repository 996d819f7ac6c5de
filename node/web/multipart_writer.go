package web

import (
	"crypto/rand"
	"encoding/hex"
	"io"
)

// multipartWriter writes the parts of a multipart/related body (RFC 2387).
type multipartWriter struct {
	boundary string
	parts    int
}

// newMultipartWriter takes a boundary of 128 random bits, which no content can
// hold but by an accident that never happens.
func newMultipartWriter() *multipartWriter {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return &multipartWriter{boundary: "pelago-" + hex.EncodeToString(b[:])}
}

// contentType returns the type of the whole for parts of a media type.
func (m *multipartWriter) contentType(part string) string {
	return `multipart/related; type="` + part + `"; boundary=` + m.boundary
}

// head returns what stands before a part's bytes.
func (m *multipartWriter) head(contentType, location string) []byte {
	b := make([]byte, 0, 256)
	if m.parts > 0 {
		b = append(b, "\r\n"...)
	}
	m.parts++
	b = append(append(append(b, "--"...), m.boundary...), "\r\n"...)
	b = append(append(append(b, "Content-Type: "...), contentType...), "\r\n"...)
	if location != "" {
		b = append(append(append(b, "Content-Location: "...), location...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// tail returns what closes the body: sent only when every part is whole.
func (m *multipartWriter) tail() []byte {
	return []byte("\r\n--" + m.boundary + "--\r\n")
}

// writeAll sends bytes of our own making.
func writeAll(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return &clientGone{err}
	}
	return nil
}
