package dicom

import (
	"strings"

	"pelago/dimse/dict"
)

// Recode returns a copy with every text value in the character set given by
// terms, and true; if a value does not fit, it uses ISO_IR 192 instead and
// returns false. (0008,0005) is set accordingly, and dropped from items, which
// inherit it. Values that are cut stay as they are. The copy shares what did
// not change.
func (d *Dataset) Recode(terms []string) (*Dataset, bool) {
	if c, err := NewCharset(terms); err == nil {
		if out, ok := d.recode(c, true); ok {
			return out, true
		}
	}
	out, _ := d.recode(utf8Charset, true)
	return out, false
}

// recode returns the copy and whether every value fits.
func (d *Dataset) recode(c *Charset, top bool) (*Dataset, bool) {
	out := &Dataset{Syntax: d.Syntax, Charset: c, unordered: d.unordered, Elements: make([]Element, 0, len(d.Elements)+1)}
	from := d.Charset
	if from == nil {
		from = defaultCharset
	}
	fits := true
	for _, e := range d.Elements {
		switch {
		case e.Tag == dict.SpecificCharacterSet:
			continue
		case e.Items != nil:
			items := make([]*Dataset, len(e.Items))
			for i, item := range e.Items {
				var ok bool
				items[i], ok = item.recode(c, false)
				fits = fits && ok
			}
			e.Items = items
		case e.VR.Extended() && !isPlain(e.Value):
			// What could not be decoded travels on as U+FFFD; only what cannot
			// be encoded makes the set unfit.
			text, _ := from.Decode(e.Value, e.VR)
			b, err := c.Encode(strings.TrimRight(text, " \x00"), e.VR)
			fits = fits && err == nil
			e.Value = pad(b, e.VR)
		}
		out.Elements = append(out.Elements, e)
	}
	if top && len(c.terms) > 0 {
		out.Put(Element{
			Tag: dict.SpecificCharacterSet, VR: dict.CS,
			Value: pad([]byte(strings.Join(c.terms, `\`)), dict.CS),
		})
		out.Charset = c
	}
	return out, fits
}
