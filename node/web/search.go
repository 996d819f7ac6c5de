package web

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
	"pelago/query"
)

// The attributes that a search sets itself.
const (
	tagSOPInstance = dict.Tag(0x00080018)
	tagStudy       = dict.Tag(0x0020000D)
	tagSeries      = dict.Tag(0x0020000E)
	tagRetrieveURL = dict.Tag(0x00081190)
	tagRetrieveAE  = dict.Tag(0x00080054)
)

func (c *call) searchStudies() error { return c.search(query.Study, studyFields) }

// searchSeries answers series of a study or of all; of all, each with the
// attributes of its study (PS3.18 §10.6.3.3).
func (c *call) searchSeries() error {
	if c.event.Study == "" {
		return c.search(query.Series, seriesFields, studyFields)
	}
	return c.search(query.Series, seriesFields)
}

// searchInstances answers instances of a series, of a study or of all.
func (c *call) searchInstances() error {
	fields := [][]dict.Tag{instanceFields}
	if c.event.Series == "" {
		fields = append(fields, seriesFields)
	}
	if c.event.Study == "" {
		fields = append(fields, studyFields)
	}
	return c.search(query.Image, fields...)
}

// search asks the engine and streams its answer (PS3.18 §10.6). No match is 200
// with an empty array.
func (c *call) search(level query.Level, fields ...[]dict.Tag) error {
	form, ok := acceptOf(c.r).document()
	if !ok {
		return fault.New(fault.Unsupported, "search results are sent as application/dicom+json or multipart/related; type=\"application/dicom+xml\"")
	}
	c.event.Query = c.r.URL.RawQuery
	values, err := queryValues(c.r)
	if err != nil {
		return err
	}
	q, none, ignored, err := searchQuery(level, values)
	if err != nil {
		return err
	}
	q.Issuer = c.options.Issuer
	for _, of := range []struct {
		tag dict.Tag
		uid string
	}{{tagStudy, c.event.Study}, {tagSeries, c.event.Series}} {
		if of.uid != "" {
			q.Keys.Set(of.tag, dict.UI, of.uid)
		}
	}
	q.Return = append(q.Return, slices.Concat(fields...)...)
	answer := &query.Answer{Matches: func(func(*dicom.Dataset, error) bool) {}}
	if !none {
		if answer, err = c.engine.Find(c.r.Context(), q); err != nil {
			return err
		}
	}
	c.searchWarnings(answer, ignored)
	return c.stream(level, answer, form)
}

// warnSilent names the sites that did not answer, once the answer has ended.
func (c *call) warnSilent(answer *query.Answer) {
	if answer.Silent == nil {
		return
	}
	if silent := answer.Silent(); len(silent) > 0 {
		c.warn("these sites did not answer, their matches may be missing: %s", strings.Join(silent, ", "))
	}
}

// searchWarnings tells what the client must know of the answer (PS3.18
// §8.3.4.4, DESIGN §9).
func (c *call) searchWarnings(answer *query.Answer, ignored []string) {
	switch tenths := 100 * time.Millisecond; {
	case answer.Staleness == query.StalenessUnknown:
		c.warn("this site has not heard of others since it started, what they stored may be missing")
	case answer.Staleness > 0:
		c.warn("what other sites stored in the last %s may be missing", (answer.Staleness + tenths - 1).Truncate(tenths))
	}
	if len(answer.Unheard) > 0 {
		c.warn("these sites have not been heard lately, what they stored since may be missing: %s", strings.Join(answer.Unheard, ", "))
	}
	for _, tag := range answer.Ignored {
		c.warn("the matching key %s could not be used", tag)
	}
	for _, text := range ignored {
		c.warn("%s", text)
	}
}

// stream writes the matches as they come.
func (c *call) stream(level query.Level, answer *query.Answer, form document) error {
	root := c.root()
	form.gzip = !form.xml && acceptsGzip(c.r)
	out := c.newDocuments(form, http.StatusOK, heldSearch)
	defer out.release()
	if answer.Silent != nil { // what must be said of the answer goes before it
		out.held.keep = true
	}
	for match, err := range answer.Matches {
		if err != nil {
			return err
		}
		// The engine may keep what it yields.
		ds := &dicom.Dataset{Syntax: match.Syntax, Charset: match.Charset, Elements: slices.Clone(match.Elements)}
		study, series, instance := ds.String(tagStudy), "", ""
		if level >= query.Series {
			series = ds.String(tagSeries)
		}
		if level == query.Image {
			instance = ds.String(tagSOPInstance)
		}
		if study == "" {
			study = c.event.Study
		}
		ds.Set(tagRetrieveURL, dict.UR, instanceURL(root, study, series, instance))
		if c.options.AE != "" {
			ds.Set(tagRetrieveAE, dict.AE, c.options.AE)
		}
		if err := out.add(ds, dicomjson.Options{}); err != nil {
			return err
		}
		c.event.Instances++
	}
	c.warnSilent(answer)
	if form.xml && out.count == 0 {
		// A multipart without parts is none (RFC 2046 §5.1.1).
		c.w.Header().Del("Content-Type")
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return out.close()
}
