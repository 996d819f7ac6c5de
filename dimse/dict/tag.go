package dict

import "fmt"

// Tag is an attribute's tag (PS3.5 §7.1): the group number in the upper
// 16 bits, the element number in the lower.
type Tag uint32

// Group returns the group number.
func (t Tag) Group() uint16 { return uint16(t >> 16) }

// Element returns the element number.
func (t Tag) Element() uint16 { return uint16(t) }

// IsPrivate reports whether the group number is odd (PS3.5 §7.8).
func (t Tag) IsPrivate() bool { return t.Group()&1 == 1 }

// IsGroupLength reports whether the element number is 0000 (PS3.5 §7.2).
func (t Tag) IsGroupLength() bool { return t.Element() == 0 }

// String returns the tag as (gggg,eeee) in upper case.
func (t Tag) String() string { return fmt.Sprintf("(%04X,%04X)", t.Group(), t.Element()) }

// Entry is an attribute of the dictionary.
type Entry struct {
	Tag     Tag
	Keyword string // PS3.6 keyword, such as PatientName
	Name    string // such as Patient's Name
	VR      VR     // the first where the dictionary allows several
	VM      string // value multiplicity, such as 1-n
	Retired bool
}

// attribute is an entry and what to take where the dictionary allows several VRs.
type attribute struct {
	Entry
	choice choice
}

// choice tells which of several VRs a value of unknown VR has (PS3.5 §A.1).
type choice uint8

const (
	one    choice = iota // there is only one
	signed               // US or SS, as Pixel Representation (0028,0103) says
	word                 // OW: pixel, overlay, curve and waveform data, and look-up tables
)

const slotBits = 14

// find returns the place of a tag in attributes, or -1.
func find(t Tag) int {
	at := uint32(t) * 0x9E3779B1 >> (32 - slotBits)
	for ; slots[at] != 0; at = (at + 1) % (1 << slotBits) {
		if n := int(slots[at]) - 1; attributes[n].Tag == t {
			return n
		}
	}
	switch g := t.Group(); {
	case g == 0x0020, g == 0x0028, g == 0x1000, g == 0x1010, g>>8 == 0x50, g>>8 == 0x60, g>>8 == 0x7F:
	default:
		return -1 // no repeating tag is in this group
	}
	for i, mask := range masks {
		if n := exactTags + i; t&mask == attributes[n].Tag && !t.IsPrivate() {
			return n
		}
	}
	return -1
}

// Lookup returns the entry of a tag. Repeating groups (50xx, 60xx and retired
// ones) are found under any of their tags; the entry's Tag is then the first
// one. Group lengths are UL, private creators LO (PS3.5 §7.2, §7.8.1).
func Lookup(t Tag) (Entry, bool) {
	if t.IsPrivate() {
		switch e := t.Element(); {
		case e == 0:
			return Entry{Tag: t, Keyword: "PrivateGroupLength", Name: "Private Group Length", VR: UL, VM: "1", Retired: true}, true
		case e >= 0x10 && e <= 0xFF:
			return Entry{Tag: t, Keyword: "PrivateCreator", Name: "Private Creator", VR: LO, VM: "1"}, true
		}
		return Entry{}, false
	}
	if n := find(t); n >= 0 {
		return attributes[n].Entry, true
	}
	if t.IsGroupLength() {
		return Entry{Tag: t, Keyword: "GenericGroupLength", Name: "Generic Group Length", VR: UL, VM: "1", Retired: true}, true
	}
	return Entry{}, false
}

// ImplicitVR returns the VR that a value has which comes without one: in
// implicit VR, or as UN. Where the dictionary allows several it is OW for bulk
// values and look-up tables (PS3.5 §A.1), and US or SS as signed says, which is
// Pixel Representation (0028,0103) of the data set. UN if the tag is unknown.
func ImplicitVR(t Tag, isSigned bool) VR {
	if t.IsPrivate() {
		switch e := t.Element(); {
		case e == 0:
			return UL
		case e >= 0x10 && e <= 0xFF:
			return LO
		}
		return UN
	}
	n := find(t)
	if n < 0 {
		if t.IsGroupLength() {
			return UL
		}
		return UN
	}
	a := &attributes[n]
	switch {
	case a.choice == word:
		return OW
	case a.choice == signed && isSigned:
		return SS
	}
	return a.VR
}

// ByKeyword returns the entry of a PS3.6 keyword.
func ByKeyword(keyword string) (Entry, bool) {
	lo, hi := 0, len(keywords)
	for lo < hi {
		mid := (lo + hi) / 2
		if attributes[keywords[mid]].Keyword < keyword {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(keywords) && attributes[keywords[lo]].Keyword == keyword {
		return attributes[keywords[lo]].Entry, true
	}
	return Entry{}, false
}

// Keywords returns every keyword of the dictionary in ascending order.
func Keywords() []string {
	all := make([]string, len(keywords))
	for i, n := range keywords {
		all[i] = attributes[n].Keyword
	}
	return all
}
