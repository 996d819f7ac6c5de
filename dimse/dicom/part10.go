package dicom

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// Pelago's own identity in group 0002 and in associations (PS3.7 §D.3.3.2).
const (
	ImplementationClassUID    = "2.25.227827580345180157827232965222401131462"
	ImplementationVersionName = "PELAGO_1"
)

// Meta is the part of group 0002 that means something to an archive (PS3.10 §7.1).
type Meta struct {
	Class, Instance, Syntax string
	SourceAE                string
}

const (
	preambleBytes = 128
	maxMetaBytes  = 1 << 20 // private information (0002,0102) included
)

// OpenFile reads the preamble and group 0002 of a Part 10 file and returns what
// it says and the data set's bytes. It takes files without preamble, without
// group 0002 (the syntax is told from the first elements), without group
// length, and without a transfer syntax. What does not look like DICOM is
// fault.Invalid.
func OpenFile(r io.Reader) (Meta, io.Reader, error) {
	in := bufio.NewReaderSize(r, readSize)
	var m Meta
	b, err := in.Peek(preambleBytes + 4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return m, nil, err
	case len(b) == preambleBytes+4 && string(b[preambleBytes:]) == "DICM" && !plausibleStart(b):
		in.Discard(preambleBytes + 4) // peeked: it is there
	case len(b) == preambleBytes+4 && string(b[preambleBytes:]) == "DICM":
		// The preamble may itself look like a data set; what follows decides.
		if after, err := in.Peek(preambleBytes + 4 + 8); err == nil && plausibleStart(after[preambleBytes+4:]) {
			in.Discard(preambleBytes + 4)
		}
	case len(b) >= 4 && string(b[:4]) == "DICM":
		in.Discard(4)
	}
	found, err := m.read(in)
	if err != nil {
		return m, nil, err
	}
	if m.Syntax == "" {
		if m.Syntax, err = tellSyntax(in, found); err != nil {
			return m, nil, err
		}
	}
	return m, in, nil
}

// plausibleStart reports whether the bytes can begin a data set or group 0002.
func plausibleStart(b []byte) bool { return guessSyntax(b) != "" }

// read consumes group 0002, which is explicit little endian (PS3.10 §7.1); its
// group length is not trusted, the group numbers are. It reports whether there
// was any of it.
func (m *Meta) read(in *bufio.Reader) (found bool, err error) {
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	lv := level{syntax: explicit, charset: defaultCharset}
	for total := 0; ; {
		b, err := in.Peek(8)
		if len(b) < 8 {
			if err == io.EOF {
				return found, nil // the data set's reader will tell
			}
			return found, err
		}
		if lv.tag(b).Group() != 0x0002 {
			return found, nil
		}
		b, err = in.Peek(12)
		if err != nil && err != io.EOF {
			return found, err
		}
		tag, length, size := metaHead(b)
		if total += size + int(min(length, maxMetaBytes)); total > maxMetaBytes {
			return found, fault.New(fault.Invalid, "dicom: file meta information is longer than %d bytes", maxMetaBytes)
		}
		if _, err := in.Discard(size); err != nil {
			return found, cutMeta(err)
		}
		value := make([]byte, length)
		if _, err := io.ReadFull(in, value); err != nil {
			return found, cutMeta(err)
		}
		m.note(tag, value)
		found = true
	}
}

// metaHead reads an element's head. Some writers put group 0002 in implicit VR.
func metaHead(b []byte) (tag dict.Tag, length uint32, size int) {
	o := binary.LittleEndian
	tag = dict.Tag(o.Uint16(b))<<16 | dict.Tag(o.Uint16(b[2:]))
	vr := dict.VR(b[4])<<8 | dict.VR(b[5])
	switch {
	case vr.Long() && len(b) >= 12:
		return tag, o.Uint32(b[8:]), 12
	case vr.Known():
		return tag, uint32(o.Uint16(b[6:])), 8
	}
	return tag, o.Uint32(b[4:]), 8
}

func cutMeta(err error) error {
	if errIsEnd(err) {
		return fault.New(fault.Invalid, "dicom: file meta information is cut short")
	}
	return err
}

func (m *Meta) note(t dict.Tag, value []byte) {
	switch text := strings.Trim(string(value), " \x00"); t {
	case dict.MediaStorageSOPClassUID:
		m.Class = text
	case dict.MediaStorageSOPInstanceUID:
		m.Instance = text
	case dict.TransferSyntaxUID:
		m.Syntax = text
	case dict.SourceApplicationEntityTitle:
		m.SourceAE = text
	}
}

// tellSyntax tells the syntax of a data set from its first element. After file
// meta information without a transfer syntax it is, in doubt, the default one.
func tellSyntax(in *bufio.Reader, afterMeta bool) (string, error) {
	b, err := in.Peek(8)
	if err != nil && err != io.EOF {
		return "", err
	}
	if syntax := guessSyntax(b); syntax != "" {
		return syntax, nil
	}
	if afterMeta {
		return dict.ImplicitLittleEndian, nil
	}
	return "", fault.New(fault.Invalid, "dicom: neither file meta information nor a data set that can be told")
}

// guessSyntax tells the syntax of the element that b starts with, or "". Real
// data sets start in a group below 0020 with a short value.
func guessSyntax(b []byte) string {
	if len(b) < 8 {
		return ""
	}
	const maxGroup, maxLength = 0x20, 1 << 16
	little, big := binary.LittleEndian, binary.BigEndian
	vr := dict.VR(b[4])<<8 | dict.VR(b[5])
	g := little.Uint16(b)
	switch gb := big.Uint16(b); {
	case vr.Known() && g > 0 && g <= maxGroup:
		return dict.ExplicitLittleEndian
	case vr.Known() && gb > 0 && gb <= maxGroup:
		return dict.ExplicitBigEndian
	case g > 0 && g <= maxGroup && little.Uint32(b[4:]) <= maxLength && knownTag(little, b):
		return dict.ImplicitLittleEndian
	}
	return ""
}

func knownTag(o binary.ByteOrder, b []byte) bool {
	_, ok := dict.Lookup(dict.Tag(o.Uint16(b))<<16 | dict.Tag(o.Uint16(b[2:])))
	return ok
}

// AppendMeta appends a zeroed preamble, DICM and group 0002 as Pelago writes it
// everywhere (DESIGN §9: regenerated the same way): it depends on m alone.
func AppendMeta(b []byte, m Meta) []byte {
	b = append(b, make([]byte, preambleBytes)...)
	b = append(b, "DICM"...)
	b = append(b, 0x02, 0, 0, 0, 'U', 'L', 4, 0)
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = append(b, 0x02, 0, 0x01, 0, 'O', 'B', 0, 0, 2, 0, 0, 0, 0, 1)
	b = appendMeta(b, dict.MediaStorageSOPClassUID, dict.UI, m.Class)
	b = appendMeta(b, dict.MediaStorageSOPInstanceUID, dict.UI, m.Instance)
	b = appendMeta(b, dict.TransferSyntaxUID, dict.UI, m.Syntax)
	b = appendMeta(b, dict.ImplementationClassUID, dict.UI, ImplementationClassUID)
	b = appendMeta(b, dict.ImplementationVersionName, dict.SH, ImplementationVersionName)
	if m.SourceAE != "" {
		b = appendMeta(b, dict.SourceApplicationEntityTitle, dict.AE, m.SourceAE)
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// appendMeta appends a short text element; what exceeds 64 characters, the
// longest that any of them may be (PS3.5 §6.2), is cut off.
func appendMeta(b []byte, t dict.Tag, vr dict.VR, text string) []byte {
	value := pad([]byte(text[:min(len(text), 64)]), vr)
	o := binary.LittleEndian
	b = o.AppendUint16(o.AppendUint16(b, t.Group()), t.Element())
	b = append(b, byte(vr>>8), byte(vr))
	b = o.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}
