package dict

// VR is a value representation (PS3.5 §6.2): its two letters, the first in the
// upper byte, so that a VR compares and prints as on the wire.
type VR uint16

// The value representations of PS3.5 §6.2.
const (
	AE VR = 'A'<<8 | 'E' // application entity
	AS VR = 'A'<<8 | 'S' // age string
	AT VR = 'A'<<8 | 'T' // attribute tag
	CS VR = 'C'<<8 | 'S' // code string
	DA VR = 'D'<<8 | 'A' // date
	DS VR = 'D'<<8 | 'S' // decimal string
	DT VR = 'D'<<8 | 'T' // date time
	FD VR = 'F'<<8 | 'D' // 64-bit float
	FL VR = 'F'<<8 | 'L' // 32-bit float
	IS VR = 'I'<<8 | 'S' // integer string
	LO VR = 'L'<<8 | 'O' // long string
	LT VR = 'L'<<8 | 'T' // long text
	OB VR = 'O'<<8 | 'B' // other byte
	OD VR = 'O'<<8 | 'D' // other 64-bit float
	OF VR = 'O'<<8 | 'F' // other 32-bit float
	OL VR = 'O'<<8 | 'L' // other 32-bit
	OV VR = 'O'<<8 | 'V' // other 64-bit
	OW VR = 'O'<<8 | 'W' // other 16-bit
	PN VR = 'P'<<8 | 'N' // person name
	SH VR = 'S'<<8 | 'H' // short string
	SL VR = 'S'<<8 | 'L' // signed 32-bit
	SQ VR = 'S'<<8 | 'Q' // sequence
	SS VR = 'S'<<8 | 'S' // signed 16-bit
	ST VR = 'S'<<8 | 'T' // short text
	SV VR = 'S'<<8 | 'V' // signed 64-bit
	TM VR = 'T'<<8 | 'M' // time
	UC VR = 'U'<<8 | 'C' // unlimited characters
	UI VR = 'U'<<8 | 'I' // unique identifier
	UL VR = 'U'<<8 | 'L' // unsigned 32-bit
	UN VR = 'U'<<8 | 'N' // unknown
	UR VR = 'U'<<8 | 'R' // URI or URL
	US VR = 'U'<<8 | 'S' // unsigned 16-bit
	UT VR = 'U'<<8 | 'T' // unlimited text
	UV VR = 'U'<<8 | 'V' // unsigned 64-bit
)

// String returns the two letters.
func (v VR) String() string { return string([]byte{byte(v >> 8), byte(v)}) }

// Known reports whether the VR is one of PS3.5 §6.2.
func (v VR) Known() bool {
	switch v {
	case AE, AS, AT, CS, DA, DS, DT, FD, FL, IS, LO, LT, OB, OD, OF, OL, OV, OW, PN, SH,
		SL, SQ, SS, ST, SV, TM, UC, UI, UL, UN, UR, US, UT, UV:
		return true
	}
	return false
}

// Long reports whether explicit VR gives the length in 32 bits after two
// reserved bytes (PS3.5 §7.1.2), for the VRs of the standard.
func (v VR) Long() bool {
	switch v {
	case OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV:
		return true
	}
	return false
}

// Bulk reports whether values are uninterpreted runs of bytes that metadata
// gives by reference when they are long: OB, OD, OF, OL, OV, OW and UN.
func (v VR) Bulk() bool {
	switch v {
	case OB, OD, OF, OL, OV, OW, UN:
		return true
	}
	return false
}

// Text reports whether values are characters.
func (v VR) Text() bool {
	switch v {
	case AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT:
		return true
	}
	return false
}

// Extended reports whether (0008,0005) governs the characters (PS3.5 §6.1.2.3):
// LO, LT, PN, SH, ST, UC and UT.
func (v VR) Extended() bool {
	switch v {
	case LO, LT, PN, SH, ST, UC, UT:
		return true
	}
	return false
}

// Single reports whether a backslash is an ordinary character, so that there is
// one value only: LT, ST, UR and UT.
func (v VR) Single() bool { return v == LT || v == ST || v == UR || v == UT }

// Size returns the bytes of the number that byte order concerns: 2, 4 or 8
// (an AT is two numbers of 2); 1 for text, OB and UN; 0 for SQ.
func (v VR) Size() int {
	switch v {
	case AT, OW, SS, US:
		return 2
	case FL, OF, OL, SL, UL:
		return 4
	case FD, OD, OV, SV, UV:
		return 8
	case SQ:
		return 0
	}
	return 1
}
