package command

import "fmt"

// Status is a DIMSE status (0000,0900).
type Status uint16

// Statuses that mean the same for every service (PS3.7 Annex C); those of one
// service class are its own (PS3.4).
const (
	Success               Status = 0x0000
	Pending               Status = 0xFF00
	PendingOptionalKeys   Status = 0xFF01 // pending; some optional keys were not matched (PS3.4 C.4.1.1.4)
	Cancel                Status = 0xFE00
	AttributeListError    Status = 0x0107
	AttributeOutOfRange   Status = 0x0116
	ProcessingFailure     Status = 0x0110
	NoSuchInstance        Status = 0x0112
	NoSuchArgument        Status = 0x0114
	InvalidArgument       Status = 0x0115
	NoSuchSOPClass        Status = 0x0118
	ClassInstanceConflict Status = 0x0119
	MissingAttribute      Status = 0x0120
	ClassNotSupported     Status = 0x0122
	NoSuchActionType      Status = 0x0123
	NotAuthorized         Status = 0x0124
	DuplicateInvocation   Status = 0x0210
	UnrecognizedOperation Status = 0x0211
	MistypedArgument      Status = 0x0212
	ResourceLimitation    Status = 0x0213
)

// IsPending reports whether further responses follow.
func (s Status) IsPending() bool { return s == Pending || s == PendingOptionalKeys }

// IsWarning reports whether the operation was done with something to tell
// (PS3.7 §C.3): 0001H, Bxxx, and the general warnings 0107H and 0116H.
func (s Status) IsWarning() bool {
	return s == 0x0001 || s&0xF000 == 0xB000 || s == AttributeListError || s == AttributeOutOfRange
}

// IsFailure reports whether the operation was not done: neither success,
// pending, cancelled, nor a warning (PS3.7 §C.4 and all that is not defined).
func (s Status) IsFailure() bool {
	return s != Success && s != Cancel && !s.IsPending() && !s.IsWarning()
}

// String returns the four hexadecimal digits, such as A700.
func (s Status) String() string { return fmt.Sprintf("%04X", uint16(s)) }
