package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// maxSelected bounds the instances of one retrieve: above it, a client must ask
// by series. 1 Mi references take about 300 MB.
const maxSelected = 1 << 20

// outgoing is an instance on its way out.
type outgoing struct {
	ref      archive.Ref
	syntax   string           // to send in
	orStored bool             // the stored form will do if it cannot be decoded
	held     archive.Instance // opened ahead, or nil
}

// verbatim reports whether the stored bytes are sent as they are.
func (o outgoing) verbatim() bool { return o.syntax == o.ref.Syntax }

// retrieve answers a study, series or instance as Part 10 files (PS3.18 §10.4).
func (c *call) retrieve() error {
	c.reading(archive.Hint{Whole: c.r.Method != http.MethodHead})
	refs, err := c.selected()
	if err != nil {
		return err
	}
	archive.Arrange(refs)
	into, err := acceptOf(c.r).instanceContainer(c.event.Instance != "" || len(refs) == 1)
	if err != nil {
		return err
	}
	return c.send(refs, into)
}

// reading says what of the path's instances will be sent, before they are selected.
func (c *call) reading(h archive.Hint) { c.r = c.r.WithContext(archive.WithHint(c.r.Context(), h)) }

// selected lists the instances that the path names.
func (c *call) selected() ([]archive.Ref, error) {
	return c.list(c.event.Study, c.event.Series, c.event.Instance)
}

// list collects the instances of a study, series or instance. Those of which only
// the number is known are counted: what is sent is partial.
func (c *call) list(study, series, instance string) ([]archive.Ref, error) {
	var refs []archive.Ref
	var silent error
	for ref, err := range c.reads.Select(c.r.Context(), study, series, instance) {
		var missing *archive.Missing
		if errors.As(err, &missing) {
			c.missing += missing.Instances
			silent = err
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(refs) == maxSelected {
			return nil, fault.New(fault.Unsupported, "over %d instances at once; ask by series", maxSelected)
		}
		refs = append(refs, ref)
	}
	switch {
	case len(refs) > 0:
		return refs, nil
	case silent != nil:
		return nil, silent
	}
	return nil, fault.New(fault.NotFound, "no such object")
}

// send checks that the instances can be sent and sends them.
func (c *call) send(refs []archive.Ref, into container) error {
	out := make([]outgoing, 0, len(refs))
	for _, ref := range refs {
		syntax, orStored, err := into.pick(ref.Syntax)
		if err != nil {
			return err
		}
		out = append(out, outgoing{ref: ref, syntax: syntax, orStored: orStored})
	}
	defer func() {
		for _, o := range out {
			if o.held != nil {
				o.held.Close()
			}
		}
	}()
	status, out, err := c.available(out)
	if err != nil {
		return err
	}
	c.w.Header().Add("Vary", "Accept")
	if into.multipart {
		return c.sendMultipart(out, status)
	}
	return c.sendSingle(&out[0], status)
}

// available opens every instance before the status line is written, so that 200
// means all and 206 some (DESIGN §9). The first of them stay open for sending.
func (c *call) available(out []outgoing) (int, []outgoing, error) {
	there := out[:0]
	all := len(out) + c.missing
	c.event.Failed += c.missing
	var missing error
	for i, o := range out {
		held, err := c.reads.Open(c.r.Context(), o.ref)
		if err != nil {
			if c.r.Context().Err() != nil {
				return 0, out, err
			}
			c.event.Failed++
			if missing == nil || fault.Is(missing, fault.NotFound) {
				missing = err
			}
			continue
		}
		if i < c.limits.HeldOpen {
			o.held = held
		} else if err := held.Close(); err != nil {
			return 0, out, err
		}
		there = append(there, o)
	}
	clear(out[len(there):])
	switch {
	case len(there) == 0:
		return 0, there, missing
	case missing != nil || c.missing > 0:
		c.warn("%d of %d instances are not available now", c.event.Failed, all)
		return http.StatusPartialContent, there, nil //nolint:nilerr // what is missing was told of, the rest is served
	}
	return http.StatusOK, there, nil
}

// sendMultipart sends a part for each instance.
func (c *call) sendMultipart(out []outgoing, status int) error {
	if err := c.prepare(&out[0]); err != nil {
		return err
	}
	root := c.root()
	parts := newMultipartWriter()
	h := c.w.Header()
	h.Set("Content-Type", parts.contentType(typeDICOM))
	if size, known := sizeOf(out, root, *parts); known {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	refs := make([]archive.Ref, len(out))
	for i := range out {
		refs[i] = out[i].ref
	}
	for i := range archive.Ahead(c.r.Context(), refs, c.reads) {
		o := &out[i]
		if err := c.prepare(o); err != nil {
			return err
		}
		if err := writeAll(c.w, o.head(parts, root)); err != nil {
			return err
		}
		if err := c.sendBody(o); err != nil {
			return err
		}
		c.event.Instances++
	}
	return writeAll(c.w, parts.tail())
}

// head returns the part header of an instance.
func (o *outgoing) head(parts *multipartWriter, root string) []byte {
	return parts.head(typeDICOM+"; transfer-syntax="+o.syntax,
		instanceURL(root, o.ref.Study, o.ref.Series, o.ref.SOP))
}

// meta returns preamble and group 0002 of an instance.
func (o *outgoing) meta() []byte {
	return dicom.AppendMeta(nil, dicom.Meta{Class: o.ref.Class, Instance: o.ref.SOP, Syntax: o.syntax})
}

// sizeOf returns the length of the multipart body if no instance is converted.
// parts is a copy, so that counting does not count as writing.
func sizeOf(out []outgoing, root string, parts multipartWriter) (int64, bool) {
	var size int64
	for i := range out {
		o := &out[i]
		if !o.verbatim() {
			return 0, false
		}
		size += int64(len(o.head(&parts, root))+len(o.meta())) + o.ref.Bytes
	}
	return size + int64(len(parts.tail())), true
}

// sendSingle sends one instance as application/dicom.
func (c *call) sendSingle(o *outgoing, status int) error {
	if err := c.prepare(o); err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", typeDICOM+"; transfer-syntax="+o.syntax)
	h.Set("Content-Location", instanceURL(c.root(), o.ref.Study, o.ref.Series, o.ref.SOP))
	if o.verbatim() {
		h.Set("Content-Length", strconv.FormatInt(int64(len(o.meta()))+o.ref.Bytes, 10))
	}
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if err := c.sendBody(o); err != nil {
		return err
	}
	c.event.Instances++
	return nil
}

// prepare opens an instance and settles its transfer syntax, which its head
// names: one that cannot be converted, or whose first frame does not decode,
// goes as it is stored, if that is taken. Prepared again it stays as it is.
func (c *call) prepare(o *outgoing) (err error) {
	if o.held == nil {
		if o.held, err = c.reads.Open(c.r.Context(), o.ref); err != nil {
			return err
		}
	}
	if _, done := o.held.(*decoded); done || o.verbatim() {
		return nil
	}
	if err = c.makeConvertible(o); err == nil {
		to, _ := dict.Syntax(o.syntax)
		err = o.held.Header().Convertible(to)
	}
	if err != nil && o.orStored && (undecodable(err) || fault.Is(err, fault.NotFound)) { // frames that cannot be told apart
		o.syntax = o.ref.Syntax
		return nil
	}
	return err
}

// makeConvertible decodes an encapsulated instance.
func (c *call) makeConvertible(o *outgoing) error {
	if !decodable(o.ref.Syntax) {
		return nil
	}
	plain, err := c.decode(c.r.Context(), o.held, 1)
	if err == nil {
		o.held = plain
	}
	return err
}

// sendBody sends group 0002 and the data set of a prepared instance, and closes
// it.
func (c *call) sendBody(o *outgoing) (err error) {
	defer func() {
		err = errors.Join(err, o.held.Close())
		o.held = nil
	}()
	if err := writeAll(c.w, o.meta()); err != nil {
		return err
	}
	if o.verbatim() {
		return c.buffers.copyAt(c.w, o.held.Stored(), 0, o.ref.Bytes)
	}
	values, err := o.held.Values()
	if err != nil {
		return err
	}
	to, _ := dict.Syntax(o.syntax)
	return o.held.Header().Convert(contextWriter{c.r.Context(), c.w}, values, to)
}

// contextWriter ends a conversion whose client is gone, and names that cause.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, &clientGone{err}
	}
	n, err := w.w.Write(b)
	if err != nil {
		err = &clientGone{err}
	}
	return n, err
}
