// Package command is the DIMSE message layer (PS3.7 §9, §10, Annex E): command
// sets as typed values, and their encoding. It is pure.
package command

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

// Status is a DIMSE status (0000,0900).
type Status uint16

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

// Encode appends the set in implicit little endian, group length first.
func (s *Set) Encode(b []byte) []byte { panic("command: Encode") }

// Parse reads a command set; fault.Protocol or fault.Invalid if it is none.
// Unknown elements are passed over.
func Parse(b []byte) (*Set, error) { panic("command: Parse") }

// Reply returns the response set for a request: field, ids and class copied.
func (s *Set) Reply(status Status) *Set { panic("command: Reply") }
