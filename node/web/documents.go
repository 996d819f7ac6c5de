package web

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"

	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dicomxml"
)

// held is how much of an answer made of data sets is gathered before its status
// line goes out: until then a failure still gets its own status, and an answer
// that fits is sent with its length.
const (
	heldSearch   = 64 << 10
	heldMetadata = 8 << 20
)

// heldWriter gathers a body up to a limit, then sends the header and streams. One
// that keeps its body sends nothing before the end: what is over the limit waits
// on disk.
type heldWriter struct {
	call    *call
	limit   int
	status  int
	held    pieces
	keep    bool
	spilled *spill
	flowing bool // the header is out
	whole   bool // everything was held: it is the body
}

// pieces is a body in memory: megabytes that grow without being moved.
type pieces [][]byte

// pieceSize is what a piece holds.
const pieceSize = 64 << 10

// add copies bytes to the end.
func (p *pieces) add(b []byte) {
	for len(b) > 0 {
		last := len(*p) - 1
		if last < 0 || len((*p)[last]) == cap((*p)[last]) {
			// The first one is small: most answers are.
			size := pieceSize
			if last < 0 {
				size = max(4<<10, min(len(b), pieceSize))
			}
			*p = append(*p, make([]byte, 0, size))
			last++
		}
		to := (*p)[last]
		n := min(len(b), cap(to)-len(to))
		(*p)[last] = append(to, b[:n]...)
		b = b[n:]
	}
}

// size returns the bytes held; room, the memory that they take.
func (p pieces) size() (n int) {
	for _, b := range p {
		n += len(b)
	}
	return n
}

func (p pieces) room() (n int) {
	for _, b := range p {
		n += cap(b)
	}
	return n
}

func (h *heldWriter) Write(b []byte) (int, error) {
	if !h.flowing && h.spilled == nil && h.held.size()+len(b) <= h.limit {
		h.held.add(b)
		return len(b), nil
	}
	if h.keep {
		if h.spilled == nil {
			var err error
			if h.spilled, err = newSpill(h.call.options.TempDir, h.call.limits.Spool); err != nil {
				return 0, err
			}
		}
		return h.spilled.Write(b)
	}
	if err := h.flow(); err != nil {
		return 0, err
	}
	if err := writeAll(h.call.w, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// flow sends the header and what was held.
func (h *heldWriter) flow() error {
	if h.flowing {
		return nil
	}
	h.flowing = true
	h.call.w.WriteHeader(h.status)
	return h.call.writePieces(h.held)
}

// writePieces sends a body that is held.
func (c *call) writePieces(held pieces) error {
	if c.r.Method == http.MethodHead {
		return nil
	}
	for _, b := range held {
		if err := writeAll(c.w, b); err != nil {
			return err
		}
	}
	return nil
}

// finish sends what is held, with its length if that is all.
func (h *heldWriter) finish() error {
	if h.flowing {
		return nil
	}
	size := int64(h.held.size())
	if h.whole = h.spilled == nil; !h.whole {
		size += h.spilled.size
	}
	h.call.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if err := h.flow(); err != nil || h.whole || h.call.r.Method == http.MethodHead {
		return err
	}
	return h.call.buffers.copyAt(h.call.w, h.spilled.file, 0, h.spilled.size)
}

// close drops what waits on disk.
func (h *heldWriter) close() {
	if h.spilled != nil {
		_ = h.spilled.file.Close() // it has no name any more
	}
}

// documents writes data sets in the form that the client takes: a JSON array,
// compressed if it takes that, or an XML multipart.
type documents struct {
	held  heldWriter
	form  document
	parts *multipartWriter // XML
	zip   *gzip.Writer     // JSON, if compressed
	array *dicomjson.Array
	zips  *sync.Pool
	count int
}

// newDocuments prepares an answer with a status; nothing is sent yet.
func (c *call) newDocuments(form document, status, hold int) *documents {
	d := &documents{held: heldWriter{call: c, limit: hold, status: status}, form: form, zips: c.zips}
	h := c.w.Header()
	h.Add("Vary", "Accept")
	h.Add("Vary", "Accept-Encoding")
	if form.xml {
		d.parts = newMultipartWriter()
		h.Set("Content-Type", d.parts.contentType(typeXML))
		return d
	}
	h.Set("Content-Type", form.kind)
	var out io.Writer = &d.held
	if form.gzip {
		h.Set("Content-Encoding", "gzip")
		d.zip = c.zips.Get().(*gzip.Writer)
		d.zip.Reset(out)
		out = d.zip
	}
	d.array = dicomjson.NewArray(out)
	return d
}

// newZips returns a pool of compressors: each takes about 200 KB to make. The
// fastest level is used since metadata shrinks tenfold at any.
func newZips() *sync.Pool {
	return &sync.Pool{New: func() any {
		w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
		if err != nil {
			panic(err) // the level is a constant of the package
		}
		return w
	}}
}

// add writes one data set.
func (d *documents) add(ds *dicom.Dataset, o dicomjson.Options) error {
	if d.form.xml {
		if err := writeAll(&d.held, d.parts.head(typeXML, "")); err != nil {
			return err
		}
		if err := dicomxml.Write(&d.held, ds, o); err != nil {
			return err
		}
	} else if err := d.array.Add(ds, o); err != nil {
		return err
	}
	d.count++
	return nil
}

// close writes the end and sends what is held.
func (d *documents) close() error {
	if d.form.xml {
		if err := writeAll(&d.held, d.parts.tail()); err != nil {
			return err
		}
		return d.held.finish()
	}
	if err := d.array.Close(); err != nil {
		return err
	}
	if d.zip != nil {
		if err := d.zip.Close(); err != nil {
			return err
		}
	}
	return d.held.finish()
}

// release gives the compressor and the disk back, whatever became of the answer.
func (d *documents) release() {
	d.held.close()
	if d.zip != nil {
		d.zip.Reset(io.Discard)
		d.zips.Put(d.zip)
		d.zip = nil
	}
}

// sendDocument sends one data set alone: a JSON object or an XML document.
func (c *call) sendDocument(form document, status int, ds *dicom.Dataset) error {
	var body bytes.Buffer
	var err error
	if form.xml {
		err = dicomxml.Write(&body, ds, dicomjson.Options{})
	} else {
		err = dicomjson.Write(&body, ds, dicomjson.Options{})
	}
	if err != nil {
		return err
	}
	return c.sendWhole(status, form.kind, body.Bytes())
}

// sendJSON sends a value as plain JSON.
func (c *call) sendJSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.sendWhole(status, typePlainJSON, body)
}
