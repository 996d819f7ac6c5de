// Package dict is the DICOM data dictionary (PS3.6): tags, value
// representations, and the registered UIDs that the node must know apart.
// It is pure data and look-ups.
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

// VR is a value representation (PS3.5 §6.2): its two letters, the first in the
// upper byte, so that a VR compares and prints as on the wire.
type VR uint16

// String returns the two letters.
func (v VR) String() string { return string([]byte{byte(v >> 8), byte(v)}) }

// Entry is an attribute of the dictionary.
type Entry struct {
	Tag     Tag
	Keyword string // PS3.6 keyword, such as PatientName
	Name    string // such as Patient's Name
	VR      VR     // the first where the dictionary allows several
	VM      string // value multiplicity, such as 1-n
	Retired bool
}

// TransferSyntax says how a data set is encoded (PS3.5 §10).
type TransferSyntax struct {
	UID          string
	Name         string
	Implicit     bool // implicit VR
	BigEndian    bool
	Deflated     bool // the whole data set is a raw deflate stream (RFC 1951)
	Encapsulated bool // pixel data comes in fragments
	Lossless     bool // pixel data restores exactly; true for all uncompressed syntaxes
	Video        bool // MPEG2, MPEG-4, HEVC
	Refused      bool // carries no pixels of its own (JPIP, MIME/XML, SMPTE 2110): never accepted
}

// The uncompressed syntaxes, by name.
const (
	ImplicitLittleEndian         = "1.2.840.10008.1.2"
	ExplicitLittleEndian         = "1.2.840.10008.1.2.1"
	DeflatedExplicitLittleEndian = "1.2.840.10008.1.2.1.99"
	ExplicitBigEndian            = "1.2.840.10008.1.2.2"
)

// Uncompressed reports whether the syntax is one of implicit little, explicit
// little or explicit big endian, between which [pelago/dimse/dicom] converts.
// Deflated explicit little endian counts too: it is inflated first.
func (s TransferSyntax) Uncompressed() bool { return !s.Encapsulated && !s.Refused }

// Lookup returns the entry of a tag; repeating groups (50xx, 60xx) are found
// under their first group. Group lengths are UL, private creators LO.
func Lookup(t Tag) (Entry, bool) { panic("dict: Lookup") }

// ByKeyword returns the entry of a PS3.6 keyword.
func ByKeyword(keyword string) (Entry, bool) { panic("dict: ByKeyword") }

// Syntax returns a transfer syntax by UID. An unregistered UID answers
// explicit little endian with that UID, and false (DESIGN §9: unknown private
// syntaxes are parsed as explicit little endian).
func Syntax(uid string) (TransferSyntax, bool) { panic("dict: Syntax") }

// Syntaxes returns all registered transfer syntaxes in ascending UID order.
func Syntaxes() []TransferSyntax { panic("dict: Syntaxes") }

// ClassName returns the name of a registered SOP class, or "".
func ClassName(uid string) string { panic("dict: ClassName") }

// IsStorageClass reports whether a presentation context for the class counts
// as storage: registered storage, outside 1.2.840.10008, or unregistered under
// 1.2.840.10008.5.1.4.1.1 (DESIGN §9).
func IsStorageClass(uid string) bool { panic("dict: IsStorageClass") }

// StorageClasses returns the registered storage SOP classes.
func StorageClasses() []string { panic("dict: StorageClasses") }

// IsNonPatient reports whether the storage class is a Non-Patient Object
// (PS3.4 Annex GG): hanging protocols, color palettes, implant templates…
func IsNonPatient(class string) bool { panic("dict: IsNonPatient") }
