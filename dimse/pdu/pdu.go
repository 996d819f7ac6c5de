package pdu

import (
	"encoding/binary"
	"fmt"

	"pelago/cluster/fault"
)

// Type is a PDU type (PS3.8 §9.3.1).
type Type byte

// The seven PDUs.
const (
	TypeAssociateRQ Type = 0x01
	TypeAssociateAC Type = 0x02
	TypeAssociateRJ Type = 0x03
	TypeData        Type = 0x04
	TypeReleaseRQ   Type = 0x05
	TypeReleaseRP   Type = 0x06
	TypeAbort       Type = 0x07
)

// String returns the PDU's name as PS3.8 writes it.
func (t Type) String() string {
	switch t {
	case TypeAssociateRQ:
		return "A-ASSOCIATE-RQ"
	case TypeAssociateAC:
		return "A-ASSOCIATE-AC"
	case TypeAssociateRJ:
		return "A-ASSOCIATE-RJ"
	case TypeData:
		return "P-DATA-TF"
	case TypeReleaseRQ:
		return "A-RELEASE-RQ"
	case TypeReleaseRP:
		return "A-RELEASE-RP"
	case TypeAbort:
		return "A-ABORT"
	}
	return fmt.Sprintf("PDU type %02XH", byte(t))
}

// HeaderBytes is the length of every PDU's head: type, reserved, length.
const HeaderBytes = 6

// shortBytes is the body of A-ASSOCIATE-RJ, A-RELEASE-RQ, A-RELEASE-RP and
// A-ABORT (PS3.8 §9.3.4, §9.3.6–9.3.8).
const shortBytes = 4

// Header is the head of a PDU.
type Header struct {
	Type   Type
	Length uint32 // of what follows the head
}

// ParseHeader reads a head of [HeaderBytes] bytes.
func ParseHeader(b []byte) Header {
	return Header{Type: Type(b[0]), Length: binary.BigEndian.Uint32(b[2:HeaderBytes])}
}

// Check reports a type that does not exist or a length that the type cannot
// have: fault.Invalid. maxData is the longest P-DATA-TF body that the receiver
// announced.
func (h Header) Check(maxData uint32) error {
	least, most := uint32(shortBytes), uint32(shortBytes)
	switch h.Type {
	case TypeAssociateRQ, TypeAssociateAC:
		least, most = fixedBytes, MaxAssociateBytes
	case TypeData:
		least, most = DataHeaderBytes, maxData
	case TypeAssociateRJ, TypeReleaseRQ, TypeReleaseRP, TypeAbort:
	default:
		return fault.New(fault.Invalid, "%v does not exist", h.Type)
	}
	if h.Length < least || h.Length > most {
		return fault.New(fault.Invalid, "%v of %d bytes, allowed are %d to %d", h.Type, h.Length, least, most)
	}
	return nil
}

// appendHeader appends a head with a length to be set by finish.
func appendHeader(b []byte, t Type) []byte { return append(b, byte(t), 0, 0, 0, 0, 0) }

// finish sets the length of the PDU that starts at start.
func finish(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start+2:], uint32(len(b)-start-HeaderBytes))
	return b
}

// Reject is an A-ASSOCIATE-RJ (PS3.8 §9.3.4).
type Reject struct{ Result, Source, Reason byte }

// Append appends the PDU.
func (r Reject) Append(b []byte) []byte {
	return append(b, byte(TypeAssociateRJ), 0, 0, 0, 0, shortBytes, 0, r.Result, r.Source, r.Reason)
}

// ParseReject reads the body of an A-ASSOCIATE-RJ.
func ParseReject(body []byte) (Reject, error) {
	if err := short(body, TypeAssociateRJ); err != nil {
		return Reject{}, err
	}
	return Reject{Result: body[1], Source: body[2], Reason: body[3]}, nil
}

// Abort is an A-ABORT (PS3.8 §9.3.8).
type Abort struct{ Source, Reason byte }

// Append appends the PDU.
func (a Abort) Append(b []byte) []byte {
	return append(b, byte(TypeAbort), 0, 0, 0, 0, shortBytes, 0, 0, a.Source, a.Reason)
}

// ParseAbort reads the body of an A-ABORT.
func ParseAbort(body []byte) (Abort, error) {
	if err := short(body, TypeAbort); err != nil {
		return Abort{}, err
	}
	return Abort{Source: body[2], Reason: body[3]}, nil
}

// AppendReleaseRQ appends an A-RELEASE-RQ (PS3.8 §9.3.6).
func AppendReleaseRQ(b []byte) []byte {
	return append(b, byte(TypeReleaseRQ), 0, 0, 0, 0, shortBytes, 0, 0, 0, 0)
}

// AppendReleaseRP appends an A-RELEASE-RP (PS3.8 §9.3.7).
func AppendReleaseRP(b []byte) []byte {
	return append(b, byte(TypeReleaseRP), 0, 0, 0, 0, shortBytes, 0, 0, 0, 0)
}

// short checks the body of a PDU of four bytes.
func short(body []byte, t Type) error {
	if len(body) != shortBytes {
		return fault.New(fault.Invalid, "%v with %d bytes", t, len(body))
	}
	return nil
}
