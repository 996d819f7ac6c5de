package web

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive"
)

// store takes instances in (STOW-RS, PS3.18 §10.5): Part 10 files in a multipart
// or alone, or data sets as JSON or XML with their bulk data beside them. Bytes
// go straight to the archive; only bulk data parts wait on disk.
func (c *call) store() error {
	if err := c.takes(); err != nil {
		return err
	}
	form, ok := acceptOf(c.r).document()
	if !ok {
		return fault.New(fault.Unsupported, "store responses are sent as application/dicom+json or application/dicom+xml")
	}
	if e := c.r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fault.New(fault.Unsupported, "a compressed request body is not taken")
	}
	sent, ok := parseContentType(c.r.Header.Get("Content-Type"))
	if !ok {
		return fault.New(fault.Unsupported, "the request names no media type")
	}
	body := &steadyBody{body: c.r.Body, control: c.w.control, stall: c.limits.Stall}
	s := &storing{call: c, form: form}
	defer s.ended()
	if sent.kind == typeDICOM {
		s.bare = true
		s.file(body)
		return s.respond()
	}
	if sent.kind != typeMultipart && sent.kind != "multipart/mixed" {
		return fault.New(fault.Unsupported, "a store request is multipart/related or application/dicom")
	}
	parts, err := newMultipartReader(body, sent.get("boundary"), c.limits)
	if err != nil {
		return err
	}
	switch root := sent.root(); root {
	case "", typeDICOM, typeOctets:
		err = s.files(parts)
	case typeJSON, typePlainJSON, typeXML, "application/xml", "text/xml":
		err = s.dataSets(parts, root == typeJSON || root == typePlainJSON)
	default:
		return fault.New(fault.Unsupported, "a store request holds application/dicom, application/dicom+json or application/dicom+xml")
	}
	if err != nil {
		if len(s.stored) == 0 && len(s.failed) == 0 || c.r.Context().Err() != nil {
			return err
		}
		// Whole parts stand; what followed them could not be told apart.
		c.warn("the multipart body is broken behind part %d", parts.parts)
		s.broken = err
	}
	return s.respond()
}

// takes reports why the node takes no instance in; nil: it does.
func (h *Handler) takes() error {
	if h.options.Takes == nil {
		return nil
	}
	return h.options.Takes()
}

// storing is one store request under way.
type storing struct {
	*call
	form    document
	bare    bool // no multipart
	stored  []archive.Stored
	failed  []failedStore
	studies map[string]int // places in event.Stored
	broken  error          // what ended the multipart body early
}

// failedStore is an instance that was not stored, named as far as is known.
type failedStore struct {
	class, instance string
	kind            fault.Kind
	why             string // for the client: no value of the data set, no cause from within the node
}

// sender says who stores.
func (s *storing) sender() archive.Sender {
	return archive.Sender{
		Remote: s.r.RemoteAddr, User: s.event.User,
		Issuer: s.options.Issuer, Charset: s.options.Charset,
	}
}

// files stores each part as a Part 10 file. The error is of the multipart
// body's own syntax; a part that breaks fails alone.
func (s *storing) files(parts *multipartReader) error {
	for {
		p, err := parts.next()
		if errors.Is(err, errNoPart) {
			return s.nothing()
		}
		if err != nil {
			return err
		}
		if kind, ok := parseContentType(p.fields["content-type"]); ok && kind.kind != typeDICOM && kind.kind != typeOctets {
			s.fail(dicom.Meta{}, fault.New(fault.Unsupported, "a part of type %s", trimText(printable(kind.kind), 64)))
			continue
		}
		s.file(p)
	}
}

// nothing is an error if the request held no part at all.
func (s *storing) nothing() error {
	if len(s.stored) == 0 && len(s.failed) == 0 {
		return fault.New(fault.Invalid, "the store request holds no instance")
	}
	return nil
}

// file stores one Part 10 file.
func (s *storing) file(r io.Reader) {
	meta, body, err := dicom.OpenFile(r)
	if err != nil {
		s.fail(meta, err)
		return
	}
	s.put(meta, body)
}

// put stores one data set.
func (s *storing) put(meta dicom.Meta, body io.Reader) {
	stored, err := s.writes.Store(s.r.Context(), archive.Incoming{
		Sender: s.sender(), Syntax: meta.Syntax, Study: s.event.Study, Body: body,
	})
	if err != nil {
		s.fail(meta, err)
		return
	}
	s.stored = append(s.stored, stored)
	s.event.Instances++
	s.account(&stored)
}

// ended tells that no more of what was stored is on its way.
func (s *storing) ended() {
	if s.options.Arrivals != nil && len(s.studies) > 0 {
		s.options.Arrivals.Ended(slices.Collect(maps.Keys(s.studies))...)
	}
}

// maxStoredStudies bounds the studies that a store request is accounted for one
// by one; beyond, they share one entry.
const maxStoredStudies = 1024

// account counts a stored instance for the audit trail.
func (s *storing) account(one *archive.Stored) {
	study, patient := one.Study, one.Patient
	at, known := s.studies[study]
	if !known && len(s.event.Stored) >= maxStoredStudies {
		study, patient = "", ""
		at, known = s.studies[study]
	}
	if !known {
		if s.studies == nil {
			s.studies = map[string]int{}
		}
		at = len(s.event.Stored)
		s.studies[study] = at
		s.event.Stored = append(s.event.Stored, StoredStudy{Study: study, Patient: patient})
	}
	entry := &s.event.Stored[at]
	entry.Instances++
	if !slices.Contains(entry.Classes, one.Class) && len(entry.Classes) < maxStoredClasses {
		entry.Classes = append(entry.Classes, one.Class)
	}
}

// maxStoredClasses bounds the SOP classes that an entry names.
const maxStoredClasses = 64

// fail notes an instance that was not stored.
func (s *storing) fail(meta dicom.Meta, err error) {
	s.log.Info("instance not stored", "operation", string(s.event.Action), "remote", s.event.Remote,
		"kind", fault.KindOf(err).String(), "error", err.Error())
	s.event.Failed++
	s.failed = append(s.failed, failedStore{class: meta.Class, instance: meta.Instance, kind: fault.KindOf(err), why: sentenceOf(err)})
}

// status returns the HTTP status of the whole (PS3.18 table 10.5.3-1, DESIGN §9).
func (s *storing) status() int {
	if len(s.stored) == 0 {
		return s.noneStatus()
	}
	if len(s.failed) > 0 || s.broken != nil {
		return http.StatusAccepted
	}
	for i := range s.stored {
		if warningOf(&s.stored[i]) != 0 {
			return http.StatusAccepted
		}
	}
	return http.StatusOK
}

// noneStatus returns the status when nothing was stored: the one of its kind if
// all failed for want of space, of rights or of the node; else 409.
func (s *storing) noneStatus() int {
	kind := s.failed[0].kind
	for _, f := range s.failed {
		if f.kind != kind {
			return http.StatusConflict
		}
	}
	switch {
	case kind == fault.Full, kind == fault.Unavailable, kind == fault.Denied, kind == fault.Corrupt, kind == fault.Other:
		return statusTable[kind]
	case s.broken != nil, s.bare && (kind == fault.Invalid || kind == fault.Protocol):
		return http.StatusBadRequest
	}
	return http.StatusConflict
}
