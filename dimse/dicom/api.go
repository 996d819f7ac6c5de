// Package dicom reads and writes DICOM data sets (PS3.5) without ever losing
// a byte of them: what was received stays as it came, and elements are an index
// over it by offset. Everything is bounded by [Limits]; nothing is allocated by
// a length that a peer claims.
package dicom

import (
	"io"

	"pelago/dimse/dict"
)

// Limits bounds what a data set may ask for.
type Limits struct {
	HeaderBytes int64  // everything but what is cut out; 64 MiB by default
	Depth       int    // nested sequences; 64
	Elements    int    // elements of all levels; 1 Mi
	Fragments   int    // pixel data fragments; 4 Mi
	InlineBytes uint32 // longest value that stays in a header; 1 KiB for bulk VRs and UN, 64 KiB for others
	Inflated    int64  // bytes that a deflated data set may inflate to; 4 GiB, and at most 1,032 × what was read
}

// DefaultLimits are the limits that the node uses unless told otherwise.
var DefaultLimits = Limits{HeaderBytes: 64 << 20, Depth: 64, Elements: 1 << 20, Fragments: 4 << 20, Inflated: 4 << 30}

// Cut is a value that a header leaves out.
type Cut struct {
	Tag    dict.Tag
	VR     dict.VR
	At     int64 // offset in Header.Raw where the value would stand
	Offset int64 // offset of the value's first byte in the (inflated) data set
	Length int64 // bytes left out; for encapsulated pixel data all items and the sequence delimiter
}

// Fragment is one item of encapsulated pixel data (PS3.5 §A.4), the basic
// offset table not included.
type Fragment struct {
	Offset int64  // of the item's value in the data set
	Length int64  // of the item's value
	Lead   uint32 // its first four bytes, big endian, zero padded: tells a codestream's start
}

// Header is a data set with its bulk values cut out: everything that metadata,
// queries and frame look-ups need, in the bytes as received.
type Header struct {
	Syntax       dict.TransferSyntax // as received; Raw itself is never deflated
	Raw          []byte              // the data set's bytes less the cuts
	Cuts         []Cut               // ascending
	Fragments    []Fragment          // of the top-level (7FE0,0010), when encapsulated
	BasicOffsets []uint32            // its basic offset table, possibly empty
	Size         int64               // bytes of the whole (inflated) data set
	Dataset      *Dataset            // index over Raw
}

// ReadHeader reads one data set to the end of r and returns its header. r
// yields the bytes as received (still deflated for a deflated syntax); whoever
// needs them tees r. It tolerates what real files hold (odd lengths, group
// lengths, trailing padding (FFFC,FFFC), undefined-length UN, wrong-syntax
// nesting of UN) and refuses with fault.Invalid what cannot be delimited: a
// value, item or sequence that is cut short.
func ReadHeader(r io.Reader, syntax dict.TransferSyntax, limits Limits) (*Header, error) {
	panic("dicom: ReadHeader")
}

// AppendBinary appends the header's durable form (versioned; docs/formats.md).
func (h *Header) AppendBinary(b []byte) ([]byte, error) { panic("dicom: Header.AppendBinary") }

// ParseHeader restores a header from its durable form. The header keeps b.
func ParseHeader(b []byte) (*Header, error) { panic("dicom: ParseHeader") }

// Dataset is an ordered list of elements, either read (values alias the bytes
// read) or built. Values are in the byte order of Syntax.
type Dataset struct {
	Syntax   dict.TransferSyntax
	Elements []Element
	Charset  *Charset // effective (0008,0005), inherited by items
}

// Element is one attribute.
type Element struct {
	Tag       dict.Tag
	VR        dict.VR // from the dictionary where the syntax is implicit; UN if unknown
	Value     []byte  // raw bytes, padding included; nil when Cut is set or for sequences
	Cut       *Cut    // the value was left out of the header
	Items     []*Dataset
	Undefined bool // undefined length on the wire
}

// ParseDataset indexes a whole data set in memory (an identifier, a command
// set, a file's group 2). The data set keeps b.
func ParseDataset(b []byte, syntax dict.TransferSyntax, limits Limits) (*Dataset, error) {
	panic("dicom: ParseDataset")
}

// NewDataset returns an empty data set in explicit little endian with
// Specific Character Set ISO_IR 192.
func NewDataset() *Dataset { panic("dicom: NewDataset") }

// Get returns the element of a tag, or nil. Data sets are searched by halving
// where they are in order.
func (d *Dataset) Get(t dict.Tag) *Element { panic("dicom: Dataset.Get") }

// Has reports whether the tag is present, empty or not.
func (d *Dataset) Has(t dict.Tag) bool { panic("dicom: Dataset.Has") }

// String returns the first value of a text attribute in UTF-8, without padding;
// "" when absent.
func (d *Dataset) String(t dict.Tag) string { panic("dicom: Dataset.String") }

// Strings returns all values of a text attribute in UTF-8: decoded first, then
// split on backslash (PS3.5 §6.1.2.3), leading and trailing padding removed as
// the VR says. Binary numbers are formatted in decimal, AT as GGGGEEEE.
func (d *Dataset) Strings(t dict.Tag) []string { panic("dicom: Dataset.Strings") }

// Int returns the first value of US, SS, UL, SL, UV, SV or IS.
func (d *Dataset) Int(t dict.Tag) (int64, bool) { panic("dicom: Dataset.Int") }

// Set puts text values, encoded in the data set's character set, in tag order;
// it replaces an element of the same tag. With no value the element is empty.
func (d *Dataset) Set(t dict.Tag, vr dict.VR, values ...string) { panic("dicom: Dataset.Set") }

// SetUint puts US, UL, UV, or AT values.
func (d *Dataset) SetUint(t dict.Tag, vr dict.VR, values ...uint64) { panic("dicom: Dataset.SetUint") }

// SetSequence puts a sequence.
func (d *Dataset) SetSequence(t dict.Tag, items ...*Dataset) { panic("dicom: Dataset.SetSequence") }

// Put inserts or replaces an element, whose value is in d.Syntax's byte order.
func (d *Dataset) Put(e Element) { panic("dicom: Dataset.Put") }

// Remove drops an element if it is there.
func (d *Dataset) Remove(t dict.Tag) { panic("dicom: Dataset.Remove") }

// Strings of an element of this data set, as [Dataset.Strings]. The error tells
// of bytes that the character set cannot hold; the values then have U+FFFD.
func (d *Dataset) ElementStrings(e *Element) ([]string, error) { panic("dicom: ElementStrings") }

// Encode appends the data set in a syntax that is not deflated or
// encapsulated. No group lengths; sequences and items of undefined length.
// An element with a Cut is an error.
func (d *Dataset) Encode(b []byte, syntax dict.TransferSyntax) ([]byte, error) {
	panic("dicom: Encode")
}

// Recode returns a copy with every text value in the character set given by
// terms, and true; if a value does not fit, it uses ISO_IR 192 instead and
// returns false. (0008,0005) is set accordingly.
func (d *Dataset) Recode(terms []string) (*Dataset, bool) { panic("dicom: Recode") }

// Charset decodes and encodes text by (0008,0005) (PS3.3 C.12.1.1.2, PS3.5 §6.1).
type Charset struct{ terms []string }

// NewCharset returns the character set of the defined terms; unknown terms are
// an error and the charset returned decodes as the default repertoire.
func NewCharset(terms []string) (*Charset, error) { panic("dicom: NewCharset") }

// Terms returns the defined terms as in (0008,0005).
func (c *Charset) Terms() []string { panic("dicom: Charset.Terms") }

// Decode returns UTF-8. delimiters are the bytes that reset ISO 2022 code
// extensions to the initial sets: for PN also ^ and =.
func (c *Charset) Decode(b []byte, vr dict.VR) (string, error) { panic("dicom: Charset.Decode") }

// Encode is the inverse; the error tells that a character does not fit.
func (c *Charset) Encode(s string, vr dict.VR) ([]byte, error) { panic("dicom: Charset.Encode") }

// Source gives the (inflated) bytes of a stored data set to whoever must read
// its cuts.
type Source = io.ReaderAt

// Convert writes the data set of h in another uncompressed syntax (deflated
// allowed), reading cuts from src in bounded pieces (DESIGN §9, Converting).
func (h *Header) Convert(w io.Writer, src Source, to dict.TransferSyntax) error {
	panic("dicom: Convert")
}

// Canonical writes the canonical form by which two uncompressed encodings of
// one instance are the same: explicit little endian, no group lengths, no
// trailing padding, sequences of undefined length (DESIGN §2).
func (h *Header) Canonical(w io.Writer, src Source) error { panic("dicom: Canonical") }

// Frames tells where the frames of a multi-frame (or single-frame) image lie.
type Frames struct {
	Count   int
	Native  bool
	Bits    int64      // bits per frame, native only; frames may start inside a byte
	Offset  int64      // of the pixel data's value in the data set, native only
	Length  int64      // of the pixel data's value, native only
	Extents [][]Extent // per frame the runs of bytes, encapsulated only
}

// Extent is a run of bytes of a data set.
type Extent struct{ Offset, Length int64 }

// Frames returns the frame table by the rules of DESIGN §9; fault.NotFound when
// there are no pixels or the frames cannot be told apart.
func (h *Header) Frames() (*Frames, error) { panic("dicom: Frames") }

// ReadFrame appends the bytes of frame n (from 1) to b: shifted to a byte
// boundary for frames that straddle bytes, fragments joined when encapsulated.
func (f *Frames) ReadFrame(b []byte, src Source, n int) ([]byte, error) { panic("dicom: ReadFrame") }

// Meta is the part of group 0002 that means something to an archive (PS3.10 §7.1).
type Meta struct {
	Class, Instance, Syntax string
	SourceAE                string
}

// OpenFile reads the preamble and group 0002 of a Part 10 file and returns what
// it says and the data set's bytes. It takes files without preamble, without
// group 0002 (the syntax is told from the first elements), without group
// length, and without a transfer syntax.
func OpenFile(r io.Reader) (Meta, io.Reader, error) { panic("dicom: OpenFile") }

// AppendMeta appends a zeroed preamble, DICM and group 0002 as Pelago writes it
// everywhere (DESIGN §9: regenerated the same way).
func AppendMeta(b []byte, m Meta) []byte { panic("dicom: AppendMeta") }
