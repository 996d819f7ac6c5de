package web

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// The attributes of an encapsulated document (PS3.3 C.24.2).
const (
	tagDocument       = dict.Tag(0x00420011)
	tagDocumentType   = dict.Tag(0x00420012)
	tagDocumentLength = dict.Tag(0x00420015)
)

// bulkData answers the value that a BulkDataURI names: the path below
// /bulkdata is a tag, or tags with item numbers from 1 between them, such as
// 7FE00010 or 54000100/1/54001010 (PS3.18 §10.4.1.1.5).
func (c *call) bulkData() error {
	c.reading(archive.Hint{Whole: true})
	return c.withInstance(func(inst archive.Instance) error {
		e, in, err := dicomjson.Resolve(inst.Header().Dataset, c.r.PathValue("path"))
		if err != nil {
			return err
		}
		if len(e.Items) > 0 || e.VR == dict.SQ {
			return fault.New(fault.NotFound, "attribute %s is a sequence", e.Tag)
		}
		return c.sendValue(inst, in, e)
	})
}

// pixelData answers /pixeldata: the value of whichever pixel data there is.
func (c *call) pixelData() error {
	c.reading(archive.Hint{Whole: true})
	return c.withInstance(func(inst archive.Instance) error {
		ds := inst.Header().Dataset
		for _, tag := range []dict.Tag{tagPixels, tagFloatPixels, tagDoublePixels} {
			if e := ds.Get(tag); e != nil {
				return c.sendValue(inst, ds, e)
			}
		}
		return fault.New(fault.NotFound, "the instance has no pixel data")
	})
}

// trimText shortens a client's text for an error message.
func trimText(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// sendValue sends a value, which is an element of ds.
func (c *call) sendValue(inst archive.Instance, ds *dicom.Dataset, e *dicom.Element) error {
	header := inst.Header()
	if e.Tag == tagPixels && ds == header.Dataset && header.Syntax.Encapsulated {
		if header.Syntax.Video {
			return c.sendVideo(inst)
		}
		if how, err := acceptOf(c.r).pixelForm(header.Syntax.UID, true, true, decodable(header.Syntax.UID)); err == nil && how.syntax != header.Syntax.UID {
			plain, err := c.decode(c.r.Context(), inst, 1)
			if err == nil {
				defer plain.release()
				return c.sendValue(plain, plain.header.Dataset, plain.header.Dataset.Get(tagPixels))
			}
			if !undecodable(err) {
				return err
			}
		}
		return c.sendAllFrames(inst)
	}
	kind := typeOctets
	src, size, err := valueOf(inst, e)
	if err != nil {
		return err
	}
	if e.Tag == tagDocument {
		kind = documentType(ds.String(tagDocumentType))
		if n, ok := ds.Int(tagDocumentLength); ok && n == size-1 {
			size = n // without the byte that made the length even
		}
	}
	if unit := e.VR.Size(); header.Syntax.BigEndian && unit > 1 {
		src = &swappedReader{src: src, length: size, unit: unit}
	}
	return c.sendBytes(inst, src, size, kind, kind)
}

// documentType returns the media type of an encapsulated document, as its
// instance states it if it states one at all.
func documentType(stated string) string {
	m, ok := parseContentType(stated)
	if !ok || strings.ContainsAny(m.kind, "\r\n\"") || !isToken(strings.Replace(m.kind, "/", "", 1)) {
		return "application/pdf"
	}
	return m.kind
}

// valueOf returns a value's bytes and their number.
func valueOf(inst archive.Instance, e *dicom.Element) (io.ReaderAt, int64, error) {
	if e.Cut == nil {
		return bytes.NewReader(e.Value), int64(len(e.Value)), nil
	}
	src, err := inst.Values()
	if err != nil {
		return nil, 0, err
	}
	return io.NewSectionReader(src, e.Cut.Offset, e.Cut.Length), e.Cut.Length, nil
}

// sendAllFrames sends encapsulated pixel data frame by frame.
func (c *call) sendAllFrames(inst archive.Instance) error {
	table, err := c.frameTable(inst)
	if err != nil {
		return err
	}
	numbers := make([]int, 0, min(table.frames.Count, 1024))
	for n := range table.frames.Count {
		numbers = append(numbers, n+1)
	}
	if len(numbers) == 0 {
		return fault.New(fault.NotFound, "the instance has no frames")
	}
	return c.sendFrames(inst, numbers, true)
}

// sendVideo sends the codestream of a video, fragments joined, with ranges.
func (c *call) sendVideo(inst archive.Instance) error {
	header := inst.Header()
	src, err := inst.Values()
	if err != nil {
		return err
	}
	joined := &joinedReader{src: src}
	for _, f := range header.Fragments {
		joined.add(dicom.Extent{Offset: f.Offset, Length: f.Length})
	}
	kind := pixelType(header.Syntax.UID)
	return c.sendBytes(inst, joined, joined.size, kind, kind+"; transfer-syntax="+header.Syntax.UID)
}

// joinedReader reads runs of bytes as if they stood one behind the other.
type joinedReader struct {
	src  io.ReaderAt
	runs []dicom.Extent
	from []int64 // where each run starts in the whole
	size int64
}

func (j *joinedReader) add(run dicom.Extent) {
	if run.Length == 0 {
		return
	}
	j.runs, j.from = append(j.runs, run), append(j.from, j.size)
	j.size += run.Length
}

// ReadAt reads across the runs.
func (j *joinedReader) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(j.from), func(i int) bool { return j.from[i] > off }) - 1
	for ; n < len(p); i++ {
		if i < 0 || off >= j.size {
			return n, io.EOF
		}
		within := off - j.from[i]
		want := min(int64(len(p)-n), j.runs[i].Length-within)
		m, err := j.src.ReadAt(p[n:n+int(want)], j.runs[i].Offset+within)
		n, off = n+m, off+int64(m)
		if int64(m) < want {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	return n, nil
}

// sendBytes sends one value: bare with range requests unless a multipart is
// asked for. contentType is kind with its parameters.
func (c *call) sendBytes(inst archive.Instance, src io.ReaderAt, size int64, kind, contentType string) error {
	how, err := acceptOf(c.r).bulkForm(kind)
	if err != nil {
		return err
	}
	if how.kind == typeOctets {
		contentType = typeOctets
	}
	ref := inst.Ref()
	location := baseURL(c.r) + c.r.URL.EscapedPath()
	h := c.w.Header()
	h.Add("Vary", "Accept")
	h.Set("Cache-Control", "private, no-cache")
	hash := inst.Hash()
	c.event.Instances = 1
	if how.multipart {
		parts := newMultipartWriter()
		head := parts.head(contentType, location)
		h.Set("Content-Type", parts.contentType(how.kind))
		h.Set("Content-Length", strconv.FormatInt(int64(len(head)+len(parts.tail()))+size, 10))
		c.w.WriteHeader(http.StatusOK)
		if c.r.Method == http.MethodHead {
			return nil
		}
		if err := writeAll(c.w, head); err != nil {
			return err
		}
		if err := c.buffers.copyAt(c.w, src, 0, size); err != nil {
			return err
		}
		return writeAll(c.w, parts.tail())
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Location", location)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", fmt.Sprintf(`"%x-%s"`, hash[:12], strings.ReplaceAll(c.r.URL.EscapedPath(), ",", ".")[len(c.options.Base):]))
	watched := &watchedReader{src: src}
	http.ServeContent(c.w, c.r, "", time.Time{}, io.NewSectionReader(watched, 0, size))
	if watched.err != nil {
		return fmt.Errorf("value of an instance with %d bytes: %w", ref.Bytes, watched.err)
	}
	return nil
}

// bulkForm picks how one value of a media type is sent: bare where the client
// takes anything, since a value is one thing and video needs its ranges.
func (a acceptable) bulkForm(kind string) (pixelForm, error) {
	for _, f := range a.forms() {
		switch {
		case f.takes(strings.ToLower(kind)):
			return pixelForm{multipart: f.multipart, kind: kind}, nil
		case f.takes(typeOctets):
			return pixelForm{multipart: f.multipart, kind: typeOctets}, nil
		case strings.HasPrefix(kind, "video/") && f.kind == "video/mp4":
			return pixelForm{multipart: f.multipart, kind: f.kind}, nil
		}
	}
	return pixelForm{}, fault.New(fault.Unsupported, "the value is sent as %s or application/octet-stream", kind)
}

// watchedReader remembers a failure that [http.ServeContent] does not report.
type watchedReader struct {
	src io.ReaderAt
	err error
}

func (w *watchedReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.src.ReadAt(p, off)
	if n < len(p) { // asked within the value only: an early end is damage
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		w.err = err
	}
	return n, err
}
