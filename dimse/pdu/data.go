package pdu

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

// DataHeaderBytes is the length of the head of a presentation data value:
// item length, context id, message control header (PS3.8 §9.3.5.1, Annex E.2).
const DataHeaderBytes = 6

// Bits of the message control header.
const (
	bitCommand = 0x01
	bitLast    = 0x02
)

// DataHeader is the head of a presentation data value.
type DataHeader struct {
	Length  uint32 // of the fragment that follows
	Context byte
	Command bool // a fragment of a command set, else of a data set
	Last    bool // the last fragment of its command set or data set
}

// ParseDataHeader reads a head of [DataHeaderBytes] bytes; left is what the PDU
// still holds from the head on.
func ParseDataHeader(b []byte, left uint32) (DataHeader, error) {
	length := binary.BigEndian.Uint32(b)
	if length < 2 || left < 4 || length > left-4 {
		return DataHeader{}, fault.New(fault.Invalid, "presentation data value of %d bytes in a P-DATA-TF with %d left", length, left)
	}
	return DataHeader{
		Length: length - 2, Context: b[4], Command: b[5]&bitCommand != 0, Last: b[5]&bitLast != 0,
	}, nil
}

// AppendDataHeader appends the head of a presentation data value.
func AppendDataHeader(b []byte, h DataHeader) []byte {
	b = append(b, 0, 0, 0, 0, 0, 0)
	PutDataHeader(b[len(b)-DataHeaderBytes:], h)
	return b
}

// PutDataHeader writes the head of a presentation data value at b.
func PutDataHeader(b []byte, h DataHeader) {
	binary.BigEndian.PutUint32(b, h.Length+2)
	b[4], b[5] = h.Context, 0
	if h.Command {
		b[5] |= bitCommand
	}
	if h.Last {
		b[5] |= bitLast
	}
}

// AppendHeader appends the head of a P-DATA-TF.
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, byte(h.Type), 0)
	return binary.BigEndian.AppendUint32(b, h.Length)
}

// PutHeader writes a PDU's head at b.
func PutHeader(b []byte, h Header) {
	b[0], b[1] = byte(h.Type), 0
	binary.BigEndian.PutUint32(b[2:], h.Length)
}
