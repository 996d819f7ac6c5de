package command

import "fmt"

// Field is a Command Field (0000,0100).
type Field uint16

// The command fields (PS3.7 Annex E).
const (
	CStoreRQ        Field = 0x0001
	CStoreRSP       Field = 0x8001
	CGetRQ          Field = 0x0010
	CGetRSP         Field = 0x8010
	CFindRQ         Field = 0x0020
	CFindRSP        Field = 0x8020
	CMoveRQ         Field = 0x0021
	CMoveRSP        Field = 0x8021
	CEchoRQ         Field = 0x0030
	CEchoRSP        Field = 0x8030
	CCancelRQ       Field = 0x0FFF
	NEventReportRQ  Field = 0x0100
	NEventReportRSP Field = 0x8100
	NGetRQ          Field = 0x0110
	NGetRSP         Field = 0x8110
	NSetRQ          Field = 0x0120
	NSetRSP         Field = 0x8120
	NActionRQ       Field = 0x0130
	NActionRSP      Field = 0x8130
	NCreateRQ       Field = 0x0140
	NCreateRSP      Field = 0x8140
	NDeleteRQ       Field = 0x0150
	NDeleteRSP      Field = 0x8150
)

// responseBit tells a response from its request (PS3.7 §E.1).
const responseBit = 0x8000

// IsResponse reports whether the field is that of a response.
func (f Field) IsResponse() bool { return f&responseBit != 0 }

// String returns the command's name as PS3.7 writes it, such as C-STORE-RQ.
func (f Field) String() string {
	if l, ok := layoutOf(f); ok {
		return l.name
	}
	return fmt.Sprintf("command %04XH", uint16(f))
}

// Priority of an operation (0000,0700).
const (
	PriorityMedium uint16 = 0x0000
	PriorityHigh   uint16 = 0x0001
	PriorityLow    uint16 = 0x0002
)

// Set is a command set. Fields that a command does not use stay zero and are
// not encoded; pointers tell an absent element from a zero.
type Set struct {
	Field       Field
	MessageID   uint16 // of a request
	RespondedTo uint16 // of a response, and of C-CANCEL-RQ
	Class       string // Affected or Requested SOP Class UID, as the command has it
	Instance    string // Affected or Requested SOP Instance UID
	Priority    uint16
	HasData     bool // Command Data Set Type is not 0101H
	Status      Status

	MoveDestination       string
	MoveOriginator        string
	MoveOriginatorMessage uint16
	EventType             uint16
	ActionType            uint16
	ErrorComment          string   // at most 64 characters
	OffendingElements     []uint32 // tags

	Remaining, Completed, Failed, Warning *uint16 // sub-operations, absent when nil
}

// Reply returns the response set for a request: field, ids and class copied.
// C-CANCEL-RQ has no response (PS3.7 §9.3.2.3) and must not be given.
func (s *Set) Reply(status Status) *Set {
	return &Set{
		Field:       s.Field | responseBit,
		RespondedTo: s.MessageID,
		Class:       s.Class,
		Instance:    s.Instance,
		EventType:   s.EventType,
		ActionType:  s.ActionType,
		Status:      status,
	}
}
