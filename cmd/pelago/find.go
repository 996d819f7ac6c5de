package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// findCommand searches through QIDO-RS: the same engine answers C-FIND.
type findCommand struct {
	target
	Level string   `help:"What to list." enum:"study,series,instance" default:"study"`
	Fuzzy bool     `help:"Names that sound alike match too."`
	Limit int      `help:"Most matches to list; 0: all." default:"100"`
	Field []string `help:"Further attributes to show, by keyword."`
	Keys  []string `arg:"" optional:"" help:"Keys such as PatientName='SMI*' StudyDate=20260101-20260131; a bare word is a patient's name."`
}

// columns shown for each level.
var findColumns = map[string][]dict.Tag{
	"study": {
		dict.StudyDate, dict.PatientName, dict.PatientID, dict.AccessionNumber, dict.ModalitiesInStudy,
		dict.NumberOfStudyRelatedInstances, dict.StudyDescription, dict.StudyInstanceUID,
	},
	"series": {
		dict.Modality, dict.SeriesNumber, dict.SeriesDescription, dict.NumberOfSeriesRelatedInstances,
		dict.StudyInstanceUID, dict.SeriesInstanceUID,
	},
	"instance": {dict.InstanceNumber, dict.SOPClassUID, dict.SeriesInstanceUID, dict.SOPInstanceUID},
}

func (f *findCommand) Run(e *env) error {
	c, err := f.node(e)
	if err != nil {
		return err
	}
	columns := append([]dict.Tag(nil), findColumns[f.Level]...)
	query, more, err := f.query()
	if err != nil {
		return err
	}
	columns = append(columns, more...)
	path := map[string]string{"study": "studies", "series": "series", "instance": "instances"}[f.Level]
	answer, err := c.do(e.ctx, http.MethodGet, "/dicom-web/"+path+"?"+query.Encode(), nil, http.Header{"Accept": {"application/dicom+json"}})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for _, warning := range answer.Header.Values("Warning") {
		fmt.Fprintln(e.stderr, "pelago:", warning)
	}
	if f.JSON {
		_, err = io.Copy(e.stdout, answer.Body)
		return err
	}
	var rows [][]string
	var head []string
	for _, tag := range columns {
		entry, _ := dict.Lookup(tag)
		head = append(head, entry.Keyword)
	}
	err = eachMatch(answer.Body, func(m match) error {
		var row []string
		for _, tag := range columns {
			row = append(row, strings.Join(m.values(tag), ","))
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return err
	}
	return table(e.stdout, head, rows)
}

// query turns the arguments into QIDO-RS parameters.
func (f *findCommand) query() (url.Values, []dict.Tag, error) {
	query := url.Values{}
	for _, key := range f.Keys {
		name, value, ok := strings.Cut(key, "=")
		if !ok {
			name, value = "PatientName", key
		}
		query.Add(name, value)
	}
	var more []dict.Tag
	for _, field := range f.Field {
		entry, ok := dict.ByKeyword(field)
		if !ok {
			return nil, nil, fault.New(fault.Invalid, "%q is no attribute keyword", field)
		}
		query.Add("includefield", field)
		more = append(more, entry.Tag)
	}
	if f.Limit > 0 {
		query.Set("limit", strconv.Itoa(f.Limit))
	}
	if f.Fuzzy {
		query.Set("fuzzymatching", "true")
	}
	return query, more, nil
}

// match is one data set of a QIDO-RS answer.
type match map[string]struct {
	Value []any `json:"Value"`
}

// values are an attribute's values as text.
func (m match) values(tag dict.Tag) []string {
	var all []string
	for _, v := range m[fmt.Sprintf("%08X", uint32(tag))].Value {
		switch v := v.(type) {
		case nil:
		case map[string]any: // a person's name
			for _, group := range []string{"Alphabetic", "Ideographic", "Phonetic"} {
				if name, ok := v[group].(string); ok {
					all = append(all, name)
					break
				}
			}
		default:
			all = append(all, fmt.Sprint(v))
		}
	}
	return all
}

func (m match) first(tag dict.Tag) string {
	if all := m.values(tag); len(all) > 0 {
		return all[0]
	}
	return ""
}

// eachMatch reads a QIDO-RS answer one data set at a time.
func eachMatch(r io.Reader, visit func(match) error) error {
	d := json.NewDecoder(r)
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return fault.New(fault.Invalid, "the node's answer does not parse: %w", err)
	}
	for d.More() {
		var m match
		if err := d.Decode(&m); err != nil {
			return fault.New(fault.Invalid, "the node's answer does not parse: %w", err)
		}
		if err := visit(m); err != nil {
			return err
		}
	}
	return nil
}
