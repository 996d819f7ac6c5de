package dicomxml

import (
	"strings"

	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
)

// private is a private attribute whose block is not known yet.
type private struct {
	at      int // in elements
	creator string
}

// placePrivates gives each private attribute that names its creator a tag in
// the creator's block, which is reserved if it is not (PS3.5 §7.8.1).
func placePrivates(elements []dicom.Element, privates []private) ([]dicom.Element, error) {
	if len(privates) == 0 {
		return elements, nil
	}
	type owner struct {
		group   uint16
		creator string
	}
	blocks := map[owner]uint16{}
	taken := map[dict.Tag]bool{}
	next := 0
	for i := range elements {
		if next < len(privates) && privates[next].at == i {
			next++ // its tag may look like a creator's: 00 stands for the block
			continue
		}
		t := elements[i].Tag
		switch {
		case isCreator(t):
			taken[t] = true
			o := owner{t.Group(), strings.TrimRight(string(elements[i].Value), " ")}
			if _, ok := blocks[o]; !ok {
				blocks[o] = t.Element()
			}
		case t.IsPrivate() && t.Element() >= 0x1000:
			taken[t&0xFFFF0000|dict.Tag(t.Element()>>8)] = true
		}
	}
	for _, pr := range privates {
		t := elements[pr.at].Tag
		o := owner{t.Group(), pr.creator}
		block, ok := blocks[o]
		if !ok {
			for block = 0x10; taken[dict.Tag(t.Group())<<16|dict.Tag(block)]; block++ {
				if block == 0xFF {
					return nil, invalid("no block left in group %04X", t.Group())
				}
			}
			at := dict.Tag(t.Group())<<16 | dict.Tag(block)
			e, err := dicomjson.NewElement(at, dict.LO, []string{pr.creator})
			if err != nil {
				return nil, err
			}
			elements = append(elements, e)
			blocks[o], taken[at] = block, true
		}
		elements[pr.at].Tag = t&0xFFFF00FF | dict.Tag(block)<<8
	}
	return elements, nil
}

// creators returns the private creators of a data set by their tags, but those
// that reserve several blocks of a group.
func creators(ds *dicom.Dataset) map[dict.Tag]string {
	var blocks map[dict.Tag]string
	for i := range ds.Elements {
		t := ds.Elements[i].Tag
		if !isCreator(t) {
			continue
		}
		name := ds.String(t)
		if name == "" {
			continue
		}
		if blocks == nil {
			blocks = map[dict.Tag]string{}
		}
		for other, n := range blocks {
			if n == name && other.Group() == t.Group() {
				blocks[other], name = "", ""
			}
		}
		blocks[t] = name
	}
	return blocks
}

func isCreator(t dict.Tag) bool {
	return t.IsPrivate() && t.Element() >= 0x10 && t.Element() <= 0xFF
}
