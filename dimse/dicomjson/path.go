package dicomjson

import (
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// maxPathDepth is the deepest attribute that a path names: the depth to which
// data sets are read, and its sequences.
const maxPathDepth = 65

const hexDigits = "0123456789ABCDEF"

// appendTag appends a tag as GGGGEEEE.
func appendTag(b []byte, t dict.Tag) []byte {
	return append(b, hexDigits[t>>28&15], hexDigits[t>>24&15], hexDigits[t>>20&15], hexDigits[t>>16&15],
		hexDigits[t>>12&15], hexDigits[t>>8&15], hexDigits[t>>4&15], hexDigits[t&15])
}

// ParseTag reads GGGGEEEE, in either case.
func ParseTag(s string) (dict.Tag, bool) {
	if len(s) != 8 {
		return 0, false
	}
	var t dict.Tag
	for i := range len(s) {
		c := s[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		t = t<<4 | dict.Tag(c)
	}
	return t, true
}

// Resolve finds the element that a bulk data path names, and the data set (ds or
// an item in it) that holds it. fault.Invalid if path is none, fault.NotFound if
// ds has no such element.
func Resolve(ds *dicom.Dataset, path string) (*dicom.Element, *dicom.Dataset, error) {
	for range maxPathDepth {
		name, rest, nested := strings.Cut(path, "/")
		tag, ok := ParseTag(name)
		if !ok {
			return nil, nil, fault.New(fault.Invalid, "dicomjson: bulk data path without a tag")
		}
		e := ds.Get(tag)
		if e == nil {
			return nil, nil, fault.New(fault.NotFound, "dicomjson: no attribute %v", tag)
		}
		if !nested {
			return e, ds, nil
		}
		number, rest, nested := strings.Cut(rest, "/")
		item, ok := parseItem(number)
		if !ok || !nested {
			return nil, nil, fault.New(fault.Invalid, "dicomjson: bulk data path without an item number and a tag after %v", tag)
		}
		if item > len(e.Items) {
			return nil, nil, fault.New(fault.NotFound, "dicomjson: %v has no item %d", tag, item)
		}
		ds, path = e.Items[item-1], rest
	}
	return nil, nil, fault.New(fault.Invalid, "dicomjson: bulk data path deeper than %d attributes", maxPathDepth)
}

// parseItem reads an item number as it is written: decimal, from 1, no leading
// zeros, so that a value has one path only.
func parseItem(s string) (int, bool) {
	if s == "" || len(s) > 9 || s[0] == '0' {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}
