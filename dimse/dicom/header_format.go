package dicom

import (
	"encoding/binary"
	"hash/crc32"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// The durable form of a header; docs/formats/header.md has it to the byte.
const (
	headerMagic   = "PDH"
	headerVersion = 1

	minCutBytes      = 4 + 2 + 1 + 1 // tag, VR, gap, length
	minFragmentBytes = 1 + 1 + 4     // gap, length, lead
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendBinary appends the header's durable form (versioned;
// docs/formats/header.md).
func (h *Header) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, headerMagic...)
	b = append(b, headerVersion)
	b = binary.AppendUvarint(b, uint64(len(h.Syntax.UID)))
	b = append(b, h.Syntax.UID...)
	b = binary.AppendUvarint(b, uint64(h.Size))
	b = binary.AppendUvarint(b, uint64(h.elements))
	b = binary.AppendUvarint(b, uint64(len(h.Cuts)))
	at, skipped := int64(0), int64(0)
	for _, c := range h.Cuts {
		if c.At < at || c.Length < 0 || c.Offset != c.At+skipped {
			return nil, fault.New(fault.Other, "dicom: header's cuts are out of order")
		}
		b = binary.BigEndian.AppendUint32(b, uint32(c.Tag))
		b = binary.BigEndian.AppendUint16(b, uint16(c.VR))
		b = binary.AppendUvarint(b, uint64(c.At-at))
		b = binary.AppendUvarint(b, uint64(c.Length))
		at, skipped = c.At, skipped+c.Length
	}
	b = binary.AppendUvarint(b, uint64(len(h.BasicOffsets)))
	for _, o := range h.BasicOffsets {
		b = binary.LittleEndian.AppendUint32(b, o)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Fragments)))
	end := int64(0)
	for _, f := range h.Fragments {
		if f.Offset < end || f.Length < 0 {
			return nil, fault.New(fault.Other, "dicom: header's fragments are out of order")
		}
		b = binary.AppendUvarint(b, uint64(f.Offset-end))
		b = binary.AppendUvarint(b, uint64(f.Length))
		b = binary.BigEndian.AppendUint32(b, f.Lead)
		end = f.Offset + f.Length
	}
	b = binary.AppendUvarint(b, uint64(len(h.Raw)))
	b = append(b, h.Raw...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli)), nil
}

// ParseHeader restores a header from its durable form, which b holds and
// nothing else. The header keeps b. A form that fails its checksum or
// contradicts itself is fault.Corrupt, one of a later version
// fault.Unsupported.
func ParseHeader(b []byte) (*Header, error) {
	if len(b) < len(headerMagic)+1+4 || string(b[:len(headerMagic)]) != headerMagic {
		return nil, fault.New(fault.Corrupt, "dicom: not a header")
	}
	if v := b[len(headerMagic)]; v != headerVersion {
		return nil, fault.New(fault.Unsupported, "dicom: header of version %d, this program knows %d", v, headerVersion)
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, fault.New(fault.Corrupt, "dicom: header fails its checksum")
	}
	h, err := parseHeader(body[len(headerMagic)+1:])
	if err != nil {
		return nil, fault.New(fault.Corrupt, "dicom: stored header: %w", err)
	}
	return h, nil
}

func parseHeader(b []byte) (*Header, error) {
	d := decoder{b: b}
	h := new(Header)
	// An unknown syntax is explicit little endian; dict says so for any UID.
	h.Syntax, _ = dict.Syntax(string(d.bytes(d.count(1))))
	h.Size = d.length()
	elements := d.length()
	h.Cuts = make([]Cut, d.count(minCutBytes))
	at, skipped := int64(0), int64(0)
	for i := range h.Cuts {
		c := &h.Cuts[i]
		c.Tag, c.VR = dict.Tag(d.big32()), dict.VR(d.big16())
		c.At = at + d.length()
		c.Length = d.length()
		c.Offset = c.At + skipped
		at, skipped = c.At, skipped+c.Length
		d.check(at >= 0 && skipped >= 0)
	}
	if n := d.count(4); n > 0 {
		h.BasicOffsets = make([]uint32, n)
		for i := range h.BasicOffsets {
			h.BasicOffsets[i] = binary.LittleEndian.Uint32(d.bytes(4))
		}
	}
	if n := d.count(minFragmentBytes); n > 0 {
		h.Fragments = make([]Fragment, n)
	}
	end := int64(0)
	for i := range h.Fragments {
		f := &h.Fragments[i]
		f.Offset = end + d.length()
		f.Length = d.length()
		f.Lead = d.big32()
		end = f.Offset + f.Length
		d.check(f.Offset >= 0 && end >= 0)
	}
	n := d.count(1)
	d.check(n == len(d.b))
	if d.bad {
		return nil, fault.New(fault.Corrupt, "fields do not fit")
	}
	h.Raw = d.b[:n:n]
	if len(h.Cuts) == 0 {
		h.Cuts = nil
	}
	// Stored bytes were read under limits once and are checked; whatever limits
	// those were, they hold again.
	if err := h.indexRaw(Limits{Depth: 1 << 10, Elements: n}, int(min(elements, int64(n)))); err != nil {
		return nil, err
	}
	if elements != int64(h.elements) {
		return nil, fault.New(fault.Corrupt, "fields do not fit")
	}
	return h, nil
}

// decoder reads fields; once one does not fit, all that follow are zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) check(ok bool) {
	if !ok {
		d.bad = true
		d.b = nil
	}
}

// length reads a number of bytes.
func (d *decoder) length() int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<62 || n > 1 && d.b[n-1] == 0 { // the last: longer than need be
		d.check(false)
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

// count reads how many entries of at least size bytes follow; more than there
// are bytes for does not fit.
func (d *decoder) count(size int) int {
	n := d.length()
	if n > int64(len(d.b)/size) {
		d.check(false)
		return 0
	}
	return int(n)
}

// zero is what the decoder reads where nothing is left.
var zero [4]byte

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.check(false)
		return zero[:min(n, len(zero))]
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) big32() uint32 { return binary.BigEndian.Uint32(d.bytes(4)) }
func (d *decoder) big16() uint16 { return binary.BigEndian.Uint16(d.bytes(2)) }
