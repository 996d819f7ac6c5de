package web

import (
	"encoding/binary"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
	"pelago/query"
)

// Limits of a search's query string; a server's header limit holds above them.
const (
	maxSearchKeys  = 256
	maxSearchDepth = 8 // sequences within sequences of one attribute path
	maxIncluded    = 2048
)

// searchQuery reads the query string of a search (PS3.18 §8.3.4, §10.6.1.2).
// Unknown keywords and malformed values are fault.Invalid. ignored says in words
// what was understood and not used.
func searchQuery(level query.Level, values url.Values) (q query.Query, none bool, ignored []string, err error) {
	q = query.Query{
		Level: level, Keys: dicom.NewDataset(),
		Relational: true, CombinedDateTime: true, FoldText: true,
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // so that the same request always fails the same way
	keys := 0
	for _, name := range names {
		given := values[name]
		switch strings.ToLower(name) {
		case "accept", "charset":
		case "limit", "offset":
			n, err := parseCount(name, given)
			if err != nil {
				return q, false, nil, err
			}
			if strings.EqualFold(name, "offset") {
				q.Offset = n
			} else {
				q.Limit, none = n, n == 0
			}
		case "fuzzymatching":
			if q.Fuzzy, err = parseFlag(name, given); err != nil {
				return q, false, nil, err
			}
		case "emptyvaluematching", "multiplevaluematching":
			on, err := parseFlag(name, given)
			if err != nil {
				return q, false, nil, err
			}
			if on {
				ignored = append(ignored, strings.ToLower(name)+" is not supported")
			}
		case "includefield":
			if err := include(&q, given); err != nil {
				return q, false, nil, err
			}
		default:
			if keys++; keys > maxSearchKeys {
				return q, false, nil, fault.New(fault.Invalid, "over %d matching keys", maxSearchKeys)
			}
			if err := addKey(q.Keys, name, given); err != nil {
				return q, false, nil, err
			}
		}
	}
	return q, none, ignored, nil
}

// parseCount reads limit and offset.
func parseCount(name string, given []string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(given[len(given)-1]), 10, 31)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s is a number from 0", strings.ToLower(name))
	}
	return int(n), nil
}

// parseFlag reads true or false.
func parseFlag(name string, given []string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(given[len(given)-1])) {
	case "true", "1":
		return true, nil
	case "false", "0", "":
		return false, nil
	}
	return false, fault.New(fault.Invalid, "%s is true or false", strings.ToLower(name))
}

// include reads includefield: attributes, lists of them, or all.
func include(q *query.Query, given []string) error {
	for _, list := range given {
		for item := range strings.SplitSeq(list, ",") {
			item = strings.TrimSpace(item)
			switch {
			case item == "":
				continue
			case strings.EqualFold(item, "all"):
				q.All = true
				continue
			}
			path, err := attributePath(item)
			if err != nil {
				return err
			}
			// A path into a sequence is answered with the whole sequence.
			if len(q.Return) == maxIncluded {
				return fault.New(fault.Invalid, "over %d attributes in includefield", maxIncluded)
			}
			q.Return = append(q.Return, path[0].tag)
		}
	}
	return nil
}

// step is an attribute on the way into a sequence.
type step struct {
	tag dict.Tag
	vr  dict.VR
}

// attributePath reads a keyword or tag, or several with dots between them for an
// attribute of a sequence's item: 00400275.00400009.
func attributePath(name string) ([]step, error) {
	parts := strings.Split(name, ".")
	if len(parts) > maxSearchDepth {
		return nil, fault.New(fault.Invalid, "an attribute name has over %d steps", maxSearchDepth)
	}
	path := make([]step, len(parts))
	for i, part := range parts {
		s, err := attribute(part)
		if err != nil {
			return nil, err
		}
		if i < len(parts)-1 && s.vr != dict.SQ {
			return nil, fault.New(fault.Invalid, "attribute %s is no sequence", s.tag)
		}
		path[i] = s
	}
	return path, nil
}

// attribute reads one keyword or tag. Private tags are keys too, as text; groups
// 0000 and 0002 are no part of a data set.
func attribute(name string) (step, error) {
	if tag, ok := dicomjson.ParseTag(name); ok {
		if g := tag.Group(); g < 8 || g == 0xFFFE || g == 0xFFFF || tag.IsGroupLength() {
			return step{}, fault.New(fault.Invalid, "%s is no attribute of a data set", tag)
		}
		if e, ok := dict.Lookup(tag); ok {
			return step{tag, e.VR}, nil
		}
		return step{tag, dict.LO}, nil
	}
	e, ok := dict.ByKeyword(name)
	if !ok || e.Tag.Group() < 8 {
		return step{}, fault.New(fault.Invalid, "unknown attribute %q", trimText(printable(name), 64))
	}
	return step{e.Tag, e.VR}, nil
}

// printable keeps the ASCII letters, digits and dots of a client's text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (isAlnum(byte(r)) || r == '.') {
			return r
		}
		return '_'
	}, s)
}

// addKey puts a matching key, in an item of its sequence if it has a path. Keys
// of one sequence gather in one item.
func addKey(ds *dicom.Dataset, name string, given []string) error {
	path, err := attributePath(name)
	if err != nil {
		return err
	}
	for _, s := range path[:len(path)-1] {
		e := ds.Get(s.tag)
		if e == nil || len(e.Items) == 0 {
			ds.SetSequence(s.tag, dicom.NewDataset())
			e = ds.Get(s.tag)
		}
		ds = e.Items[0]
	}
	last := path[len(path)-1]
	if last.vr == dict.SQ {
		if strings.Join(given, "") != "" {
			return fault.New(fault.Invalid, "sequence %s is matched by the attributes of its item", last.tag)
		}
		if ds.Get(last.tag) == nil {
			ds.SetSequence(last.tag, dicom.NewDataset())
		}
		return nil
	}
	return setKey(ds, last, given)
}

// setKey puts the values of a key in its VR.
func setKey(ds *dicom.Dataset, key step, given []string) error {
	values := given
	if key.vr == dict.UI || listTags[key.tag] {
		values = nil
		for _, v := range given {
			values = append(values, strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == '\\' })...)
		}
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
	}
	if old := ds.Get(key.tag); old != nil && len(old.Value) > 0 {
		// The same attribute by keyword and by tag.
		values = append(ds.Strings(key.tag), values...)
	}
	if len(values) == 0 || len(values) == 1 && (values[0] == "" || values[0] == "*") {
		ds.Set(key.tag, key.vr)
		return nil
	}
	if key.vr.Text() {
		ds.Set(key.tag, key.vr, values...)
		return nil
	}
	b, err := binaryKey(key, values)
	if err != nil {
		return err
	}
	ds.Put(dicom.Element{Tag: key.tag, VR: key.vr, Value: b})
	return nil
}

// binaryKey encodes numbers in explicit little endian.
func binaryKey(key step, values []string) ([]byte, error) {
	var b []byte
	for _, v := range values {
		v = strings.TrimSpace(v)
		bad := fault.New(fault.Invalid, "the value of %s is no %s", key.tag, key.vr)
		switch vr := key.vr.String(); vr {
		case "US", "UL", "UV":
			bits := map[string]int{"US": 16, "UL": 32, "UV": 64}[vr]
			n, err := strconv.ParseUint(v, 10, bits)
			if err != nil {
				return nil, bad
			}
			b = appendLittle(b, n, bits)
		case "SS", "SL", "SV":
			bits := map[string]int{"SS": 16, "SL": 32, "SV": 64}[vr]
			n, err := strconv.ParseInt(v, 10, bits)
			if err != nil {
				return nil, bad
			}
			b = appendLittle(b, uint64(n), bits)
		case "AT":
			tag, ok := dicomjson.ParseTag(v)
			if !ok {
				return nil, bad
			}
			b = binary.LittleEndian.AppendUint16(b, tag.Group())
			b = binary.LittleEndian.AppendUint16(b, tag.Element())
		case "FL":
			f, err := strconv.ParseFloat(v, 32)
			if err != nil {
				return nil, bad
			}
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(f)))
		case "FD":
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return nil, bad
			}
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
		default:
			return nil, fault.New(fault.Invalid, "%s has VR %s, which cannot be matched", key.tag, key.vr)
		}
	}
	return b, nil
}

// appendLittle appends the low bits of n.
func appendLittle(b []byte, n uint64, bits int) []byte {
	for i := 0; i < bits; i += 8 {
		b = append(b, byte(n>>i))
	}
	return b
}
