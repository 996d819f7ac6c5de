package dimse

import (
	"errors"
	"fmt"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/command"
)

// MaxComment is the longest Error Comment (0000,0902), in characters (VR LO).
const MaxComment = 64

// StatusError is a status other than success. A provider returns one to answer
// with exactly this status, a client gets one when the peer answered with it.
type StatusError struct {
	Status  command.Status
	Comment string // at most [MaxComment] characters are sent; a peer's may hold anything
}

// Error names the status. It leaves the comment out, which a peer may have
// filled with patient data.
func (e *StatusError) Error() string { return fmt.Sprintf("status %v", e.Status) }

// DestinationUnknown is the error that a C-MOVE's provider returns for a Move
// Destination that it cannot resolve to exactly one AE.
func DestinationUnknown() error {
	return fault.New(fault.NotFound, "%w", &StatusError{Status: MoveDestinationUnknown, Comment: "move destination unknown"})
}

// StatusOf returns the status and comment by which a service answers err: 0000
// for nil, the one of a [StatusError] in err's tree, else the table's. Errors
// with a kind hold no patient data, so that their text is the comment; any
// other text stays inside.
func StatusOf(o Operation, err error) (command.Status, string) {
	if err == nil {
		return command.Success, ""
	}
	var e *StatusError
	if errors.As(err, &e) {
		return e.Status, Comment(e.Comment)
	}
	kind := fault.KindOf(err)
	status := KindStatus(o, kind)
	if status == command.Success || status == command.Cancel {
		return status, ""
	}
	if kind == fault.Other {
		return status, "processing failure"
	}
	return status, Comment(err.Error())
}

// StatusKind returns the kind of failure that a peer's status tells of, the
// inverse of the table as far as there is one.
func StatusKind(s command.Status) fault.Kind {
	switch s {
	case MoveDestinationUnknown, command.NoSuchInstance:
		return fault.NotFound
	case command.ClassNotSupported, command.NoSuchSOPClass, command.NoSuchActionType, command.UnrecognizedOperation:
		return fault.Unsupported
	case command.NotAuthorized:
		return fault.Denied
	case command.DuplicateInvocation, command.MistypedArgument:
		return fault.Protocol
	case command.ResourceLimitation:
		return fault.Full
	case command.InvalidArgument:
		return fault.Invalid
	case command.MissingAttribute:
		return fault.Mismatch
	case command.Cancel:
		return fault.Canceled
	}
	switch s & 0xFF00 {
	case 0xA700:
		return fault.Full
	case 0xA900:
		return fault.Mismatch
	}
	if s&0xF000 == 0xC000 {
		return fault.Invalid
	}
	return fault.Other
}

// Comment makes text fit for Error Comment: at most 64 printable ASCII
// characters without backslash.
func Comment(text string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\\':
			return '/'
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text)
	return clean[:min(len(clean), MaxComment)]
}
