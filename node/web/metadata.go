package web

import (
	"encoding/binary"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/node/archive"
)

// metadata answers the data sets of a study, series or instance without bulk
// data (PS3.18 §10.4.1.1.2, Annex F): from header records alone, in the order of
// their UIDs. A document that was made before is sent again as long as its
// entity tag, which covers every instance in it, is the same.
func (c *call) metadata() error {
	form, ok := acceptOf(c.r).document()
	if !ok {
		return fault.New(fault.Unsupported, "metadata is sent as application/dicom+json or multipart/related; type=\"application/dicom+xml\"")
	}
	form.gzip = !form.xml && acceptsGzip(c.r)
	refs, err := c.selected()
	if err != nil {
		return err
	}
	root := c.root()
	tag := metadataTag(refs, root, form)
	if c.missing > 0 { // the tag is that of a document which is whole
		return c.makeMetadata(refs, root, tag, form)
	}
	if c.unchanged(tag) {
		return nil
	}
	if page, ok := c.pages.get(tag); ok && !form.xml { // XML names its boundary in the header
		h := c.w.Header()
		h.Add("Vary", "Accept")
		h.Add("Vary", "Accept-Encoding")
		if form.gzip {
			h.Set("Content-Encoding", "gzip")
		}
		c.event.Instances = len(refs)
		h.Set("Content-Type", form.kind)
		h.Set("Content-Length", strconv.Itoa(page.size()))
		c.w.WriteHeader(http.StatusOK)
		return c.writePieces(page)
	}
	return c.makeMetadata(refs, root, tag, form)
}

// makeMetadata writes the document. Instances that are not available are left
// out with 206 as long as the header can still say so.
func (c *call) makeMetadata(refs []archive.Ref, root, tag string, form document) error {
	out := c.newDocuments(form, http.StatusOK, heldMetadata)
	defer out.release()
	if c.missing > 0 {
		c.event.Failed += c.missing
		out.held.status = http.StatusPartialContent
		c.warn("some instances are not available now")
	}
	var missing error
	for i := range refs {
		ref := &refs[i]
		header, err := c.reads.Headers(c.r.Context(), *ref)
		if err != nil {
			if out.held.flowing || c.r.Context().Err() != nil {
				return err
			}
			if missing == nil {
				missing = err
			}
			if out.held.status == http.StatusOK {
				out.held.status = http.StatusPartialContent
				c.w.Header().Del("ETag")
				c.warn("some instances are not available now")
			}
			c.event.Failed++
			continue
		}
		bulk := instanceURL(root, ref.Study, ref.Series, ref.SOP) + "/bulkdata/"
		err = out.add(header.Dataset, dicomjson.Options{
			AvailableSyntax: ref.Syntax,
			BulkURI:         func(path string, _ *dicom.Element) string { return bulk + path },
		})
		if err != nil {
			return err
		}
		c.event.Instances++
	}
	if c.event.Instances == 0 {
		return missing
	}
	if err := out.close(); err != nil {
		return err
	}
	if out.held.status == http.StatusOK && !form.xml && out.held.whole {
		c.pages.put(tag, out.held.held, int64(out.held.held.room()+len(tag)))
	}
	return nil
}

// metadataTag returns the entity tag of a document: of its instances, which
// never change, of the URL that its links begin with, and of its form.
func metadataTag(refs []archive.Ref, root string, form document) string {
	sum := blake3.New()
	text(sum, root)
	text(sum, form.kind)
	for i := range refs {
		ref := &refs[i]
		text(sum, ref.Study)
		text(sum, ref.Series)
		text(sum, ref.SOP)
		text(sum, ref.Syntax)
		text(sum, ref.Origin)
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], ref.Number)
		binary.LittleEndian.PutUint64(b[8:], uint64(ref.Bytes))
		sum.Write(b[:]) // never fails (hash.Hash)
	}
	tag := hex.EncodeToString(sum.Sum(nil)[:16])
	if form.gzip {
		tag += "-gzip"
	}
	return `"` + tag + `"`
}

// text adds a text with its length, so that no two lists of texts are alike.
func text(sum hash.Hash, s string) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(len(s)))
	sum.Write(b[:])
	sum.Write([]byte(s))
}
