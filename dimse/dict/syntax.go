package dict

import (
	"slices"
	"strings"
)

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

// Uncompressed reports whether the syntax is one of implicit little, explicit
// little or explicit big endian, between which [pelago/dimse/dicom] converts.
// Deflated explicit little endian counts too: it is inflated first.
func (s TransferSyntax) Uncompressed() bool { return !s.Encapsulated && !s.Refused }

// Syntax returns a transfer syntax by UID. An unregistered UID answers
// explicit little endian with that UID, and false (DESIGN §9: unknown private
// syntaxes are parsed as explicit little endian). Such a syntax counts as
// encapsulated, since nobody knows its pixels: they are never converted.
func Syntax(uid string) (TransferSyntax, bool) {
	at, ok := slices.BinarySearchFunc(syntaxes[:], uid, func(s TransferSyntax, uid string) int { return strings.Compare(s.UID, uid) })
	if !ok {
		return TransferSyntax{UID: uid, Encapsulated: true}, false
	}
	return syntaxes[at], true
}

// Syntaxes returns all registered transfer syntaxes in ascending UID order (of
// their text).
func Syntaxes() []TransferSyntax { return slices.Clone(syntaxes[:]) }
