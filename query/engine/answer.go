package engine

import (
	"errors"
	"slices"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
)

// faceElements is for how many elements of its own a face finds room in an
// answer: character set, level, where and how to retrieve.
const faceElements = 4

// answer builds the data set of a match: what was asked for, empty where there
// is no value, each attribute from the record that is its own.
func (t *scan) answer(m matched) (*dicom.Dataset, error) {
	out := dicom.NewDataset()
	out.Elements = make([]dicom.Element, 0, len(t.want)+faceElements)
	if err := t.complete(&m); err != nil {
		return nil, err
	}
	var fromHeader []wanted
	if t.q.All && t.q.Level == query.Image && m.header != nil {
		if err := t.addHeader(out, m.header); err != nil {
			return nil, err
		}
	}
	var series, list *dicom.Dataset
	if m.series != nil {
		series = m.series.Dataset()
	}
	if m.instance != nil {
		list = listing(m.instance)
	}
	for _, w := range t.want {
		if w.scope == ofNetwork {
			continue
		}
		if w.scope == ofArchive {
			if err := t.addAvailability(out, &m); err != nil {
				return nil, err
			}
			continue
		}
		var from *dicom.Dataset
		omitted := false
		switch w.scope {
		case ofStudy, ofPatient:
			from, omitted = m.data, m.study.Omits(m.patient, w.tag)
		case ofSeries:
			from, omitted = series, m.series != nil && m.series.Omits(w.tag)
		case ofListing:
			from = list
		}
		if from == nil || omitted {
			fromHeader = append(fromHeader, w)
			continue
		}
		if e := from.Get(w.tag); e != nil {
			out.Put(*e)
		} else if w.tag != dict.IssuerOfPatientID && !out.Has(w.tag) {
			out.Put(dicom.Element{Tag: w.tag, VR: w.vr})
		}
	}
	if err := t.addWanted(out, m.header, fromHeader); err != nil {
		return nil, err
	}
	t.addHolders(out, &m)
	if err := t.addOtherIDs(out, &m); err != nil {
		return nil, err
	}
	if e := t.q.Keys.Get(dict.QueryRetrieveLevel); e != nil {
		out.Set(dict.QueryRetrieveLevel, dict.CS, t.q.Level.String())
	}
	return out, nil
}

// addHolders puts into an answer which sites hold the object, where that is asked
// for, and that its counts are not exact, where they are asked for and are not.
func (t *scan) addHolders(out *dicom.Dataset, m *matched) {
	creator := t.wantsSites
	ofSeries := t.q.Level >= query.Series && m.series != nil
	if t.wantsSites {
		sites := m.study.Sites
		if ofSeries {
			sites = m.series.Sites
		}
		out.Set(query.TagSites, dict.LO, sites()...)
	}
	if t.wantsCounts && (ofSeries && m.series.Approximate() || !ofSeries && m.study.Approximate()) {
		creator = true
		out.Set(query.TagApproximate, dict.CS, "YES")
	}
	if creator {
		out.Set(query.TagCreator, dict.LO, query.PrivateCreator)
	}
}

// complete reads what the answer needs of levels that matching did not look
// at: of a representative instance, the first.
func (t *scan) complete(m *matched) error {
	need := t.wantOf
	if need&ofPatient != 0 && t.keys.has&ofPatient == 0 { // else matching has counted
		if err := t.countPatient(m); err != nil {
			return err
		}
	}
	if t.q.All && t.q.Level == query.Image {
		need |= ofHeader
	}
	if t.leftOut(m) {
		need |= ofHeader
	}
	if need&(ofSeries|ofListing|ofHeader) != 0 {
		if err := t.represented(m); err != nil {
			return err
		}
	}
	if m.series == nil {
		return nil
	}
	if t.leftOut(m) { // of the series, which may just have been chosen
		need |= ofHeader
	}
	if need&(ofListing|ofHeader) == 0 {
		return nil
	}
	if m.instance == nil {
		for f, err := range t.list(m) {
			if err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			if err == nil {
				m.take(f)
			}
			break
		}
	}
	if m.instance == nil || need&ofHeader == 0 {
		return nil
	}
	if err := t.readHeader(m); err != nil && !errors.Is(err, errGone) {
		return err
	}
	return nil
}

// leftOut reports whether the records of a match lack a value that is asked for
// because it is too long for them.
func (t *scan) leftOut(m *matched) bool {
	return slices.ContainsFunc(t.want, func(w wanted) bool {
		return m.study.Omits(m.patient, w.tag) || m.series != nil && m.series.Omits(w.tag)
	})
}

// addHeader puts every attribute of a header that is not bulk.
func (t *scan) addHeader(out *dicom.Dataset, h *dicom.Header) error {
	var picked []dicom.Element
	for _, e := range h.Dataset.Elements {
		if answerable(e.Tag) && !holdsCut(&e) {
			picked = append(picked, e)
		}
	}
	return transfer(out, h, picked)
}

// addWanted puts what must come from a header; empty where the header has no
// value, or none short enough to be in it.
func (t *scan) addWanted(out *dicom.Dataset, h *dicom.Header, want []wanted) error {
	var picked []dicom.Element
	for _, w := range want {
		if out.Has(w.tag) && t.q.All {
			continue
		}
		if w.tag.IsPrivate() && w.tag.Element() < 0x1000 { // the asker's own block
			if e := t.q.Keys.Get(w.tag); e != nil {
				out.Set(w.tag, dict.LO, t.q.Keys.Strings(w.tag)...)
			}
			continue
		}
		e := pick(h, w)
		if e == nil {
			out.Put(dicom.Element{Tag: w.tag, VR: w.vr})
			continue
		}
		picked = append(picked, *e)
	}
	if len(picked) == 0 {
		return nil
	}
	return transfer(out, h, picked)
}

// pick returns a header's element for an attribute, under the tag that the
// query gave it, and of a sequence's items only what the query names.
func pick(h *dicom.Header, w wanted) *dicom.Element {
	if h == nil {
		return nil
	}
	tag, ok := place(h.Dataset, w.tag, w.creator)
	if !ok {
		return nil
	}
	found := h.Dataset.Get(tag)
	if found == nil || holdsCut(found) {
		return nil
	}
	e := *found
	e.Tag = w.tag
	if len(w.item) == 0 || len(w.item[0].Elements) == 0 || e.Items == nil {
		return &e
	}
	items := make([]*dicom.Dataset, len(e.Items))
	for i, item := range e.Items {
		items[i] = &dicom.Dataset{Syntax: item.Syntax, Charset: item.Charset}
		for _, key := range w.item[0].Elements {
			if x := item.Get(key.Tag); x != nil {
				items[i].Put(*x)
			}
		}
	}
	e.Items = items
	return &e
}

// place returns where a data set has an attribute: for a private one with a
// creator, in the block that the creator reserved (PS3.5 §7.8.1).
func place(ds *dicom.Dataset, t dict.Tag, creator string) (dict.Tag, bool) {
	if creator == "" {
		return t, true
	}
	for block := dict.Tag(0x10); block <= 0xFF; block++ {
		if ds.String(t&0xFFFF0000|block) == creator {
			return t&0xFFFF0000 | block<<8 | t&0xFF, true
		}
	}
	return 0, false
}

// holdsCut reports whether a value, or one in its items, was left out of the header.
func holdsCut(e *dicom.Element) bool {
	if e.Cut != nil {
		return true
	}
	for _, item := range e.Items {
		for i := range item.Elements {
			if holdsCut(&item.Elements[i]) {
				return true
			}
		}
	}
	return false
}

// transfer puts elements of a header, ascending or not, in the answer's
// encoding: explicit little endian and ISO_IR 192.
func transfer(out *dicom.Dataset, h *dicom.Header, picked []dicom.Element) error {
	from := &dicom.Dataset{Syntax: h.Dataset.Syntax, Charset: h.Dataset.Charset}
	for _, e := range picked {
		from.Put(e)
	}
	recoded, _ := from.Recode([]string{"ISO_IR 192"})
	b, err := recoded.Encode(nil, out.Syntax)
	if err != nil {
		return fault.New(fault.Corrupt, "query: header attributes: %w", err)
	}
	ds, err := dicom.ParseDataset(b, out.Syntax, dicom.DefaultLimits)
	if err != nil {
		return fault.New(fault.Corrupt, "query: header attributes: %w", err)
	}
	for _, e := range ds.Elements {
		if e.Tag != dict.SpecificCharacterSet {
			out.Put(e)
		}
	}
	return nil
}

// represented chooses a series for a match that has none: the first of its study,
// if there is one.
func (t *scan) represented(m *matched) error {
	if m.series != nil {
		return nil
	}
	for x, err := range t.view.Series(m.study) {
		if err != nil {
			return err
		}
		m.series = &x
		break
	}
	return nil
}
