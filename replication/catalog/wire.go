package catalog

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// Limits of what a record may claim, far above what Apply lets in.
const (
	maxList   = 1 << 16 // strings in a list, origins of a series, patients of a study
	maxString = 1 << 12
)

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendAttrs(b []byte, as attrs) []byte {
	b = binary.AppendUvarint(b, uint64(len(as)))
	for _, a := range as {
		b = append(b, a.code)
		b = binary.AppendUvarint(b, uint64(len(a.value)))
		b = append(b, a.value...)
	}
	return b
}

// decoder reads a record. After the first fault it yields zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// take returns the next n bytes, which alias the record.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > maxString {
		d.fail()
	}
	return string(d.take(n))
}

// count returns the length of a list whose members take at least one byte each.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > maxList || n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) strings() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (d *decoder) attrs() attrs {
	n := d.count()
	if n == 0 {
		return nil
	}
	if n > len(attributes)+1 {
		d.fail()
		return nil
	}
	as := make(attrs, n)
	for i := range as {
		code := d.byte()
		if int(code) >= len(attributes) && code != codeOmitted || i > 0 && code <= as[i-1].code {
			d.fail()
			return nil
		}
		as[i] = attr{code, d.take(d.uvarint())}
		if code != codeOmitted {
			continue
		}
		for _, c := range as[i].value {
			if int(c) >= len(attributes) {
				d.fail()
				return nil
			}
		}
	}
	return as
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

// done returns fault.Corrupt unless everything was read and whole.
func (d *decoder) done(what string) error {
	if d.bad || len(d.b) > 0 {
		return fault.New(fault.Corrupt, "catalog: a %s record cannot be read", what)
	}
	return nil
}
