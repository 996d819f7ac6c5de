package engine

import (
	"cmp"
	"slices"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/match"
	"pelago/replication/catalog"
)

// scopes is a set of those who can answer an attribute.
type scopes uint8

const (
	ofStudy   scopes = 1 << iota // a study record, its patient's attributes included
	ofPatient                    // the patient's studies counted
	ofSeries                     // a series record
	ofListing                    // what is known of an instance without its header
	ofHeader                     // an instance's header
	ofArchive                    // where the bytes rest
	ofNetwork                    // who holds it
	ofNobody                     // the asker's own business, or the caller's
)

// scopeOf returns who answers an attribute.
func scopeOf(t dict.Tag) scopes {
	switch t {
	case dict.SOPClassUID, dict.SOPInstanceUID, dict.AvailableTransferSyntaxUID:
		return ofListing
	case dict.InstanceAvailability:
		return ofArchive
	case query.TagCreator, query.TagSites, query.TagApproximate:
		return ofNetwork
	case dict.RetrieveAETitle, dict.RetrieveURL, dict.SpecificCharacterSet, dict.QueryRetrieveLevel, dict.QueryRetrieveView:
		return ofNobody
	}
	switch {
	case contains(catalog.PatientTags, t), contains(catalog.StudyTags, t), contains(catalog.StudyCounts, t):
		return ofStudy
	case contains(catalog.PatientCounts, t):
		return ofPatient
	case contains(catalog.SeriesTags, t), contains(catalog.SeriesCounts, t):
		return ofSeries
	}
	return ofHeader
}

func contains(tags []dict.Tag, t dict.Tag) bool {
	_, ok := slices.BinarySearch(tags, t)
	return ok
}

// keySets are the keys of a query by scope.
type keySets struct {
	has  scopes
	of   map[dict.Tag]scopes
	tags map[scopes][]dict.Tag
}

// sortKeys sorts keys by who can answer them; the rest is ignored, and said so.
func sortKeys(keys []match.Key) (keySets, []dict.Tag) {
	sets := keySets{of: map[dict.Tag]scopes{}, tags: map[scopes][]dict.Tag{}}
	var ignored []dict.Tag
	for _, k := range keys {
		scope := scopeOf(k.Tag)
		if scope == ofNobody || scope == ofNetwork {
			ignored = append(ignored, k.Tag)
			continue
		}
		sets.has |= scope
		sets.of[k.Tag] = scope
		sets.tags[scope] = append(sets.tags[scope], k.Tag)
	}
	return sets, ignored
}

// in returns a test of tags that belong to one of the scopes and are not of
// those that a record had to leave out.
func (k keySets) in(s scopes, omits func(dict.Tag) bool) func(dict.Tag) bool {
	return func(t dict.Tag) bool { return k.of[t]&s != 0 && (omits == nil || !omits(t)) }
}

// omitted returns the keys of a scope whose values a record had to leave out.
func (k keySets) omitted(s scopes, omits func(dict.Tag) bool) []dict.Tag {
	var out []dict.Tag
	for _, t := range k.tags[s] {
		if omits(t) {
			out = append(out, t)
		}
	}
	return out
}

// wanted is an attribute to answer.
type wanted struct {
	tag     dict.Tag
	scope   scopes
	vr      dict.VR          // for an empty answer
	creator string           // of a private attribute
	item    []*dicom.Dataset // of a sequence key: which attributes of its items
}

// wantedOf returns what a query asks back, ascending by tag: its keys, its
// return list, the unique keys of its level and those above, and with All
// whatever records of the level hold.
func wantedOf(q query.Query) []wanted {
	seen := map[dict.Tag]bool{}
	var want []wanted
	add := func(w wanted) {
		if w.tag.Group() < 8 || w.tag.IsGroupLength() || seen[w.tag] || scopeOf(w.tag) == ofNobody {
			return
		}
		seen[w.tag], w.scope = true, scopeOf(w.tag)
		if w.tag.IsPrivate() && w.creator == "" && w.tag.Element() >= 0x1000 {
			w.creator = q.Keys.String(creatorOf(w.tag))
		}
		if w.vr == 0 {
			w.vr = vrOf(w.tag)
		}
		want = append(want, w)
	}
	for _, e := range q.Keys.Elements {
		vr := e.VR
		if vr == dict.UN {
			vr = vrOf(e.Tag)
		}
		add(wanted{tag: e.Tag, vr: vr, item: e.Items})
	}
	lists := [][]dict.Tag{q.Return, {dict.IssuerOfPatientID}}
	if q.All {
		lists = append(lists, []dict.Tag{dict.InstanceAvailability}, catalog.PatientTags, catalog.PatientCounts)
	}
	if q.Level >= query.Study {
		lists = append(lists, []dict.Tag{dict.StudyInstanceUID})
		if q.All {
			lists = append(lists, catalog.StudyTags, catalog.StudyCounts)
		}
	}
	if q.Level >= query.Series {
		lists = append(lists, []dict.Tag{dict.SeriesInstanceUID})
		if q.All {
			lists = append(lists, catalog.SeriesTags, catalog.SeriesCounts)
		}
	}
	if q.Level == query.Image {
		lists = append(lists, []dict.Tag{dict.SOPClassUID, dict.SOPInstanceUID})
	}
	for _, tags := range lists {
		for _, t := range tags {
			add(wanted{tag: t})
		}
	}
	slices.SortFunc(want, func(a, b wanted) int { return cmp.Compare(a.tag, b.tag) })
	return want
}

// creatorOf returns the tag of a private attribute's creator (PS3.5 §7.8.1).
func creatorOf(t dict.Tag) dict.Tag { return t&0xFFFF0000 | t>>8&0xFF }

func vrOf(t dict.Tag) dict.VR {
	if e, ok := dict.Lookup(t); ok {
		return e.VR
	}
	return dict.UN
}
