// Package fault is the vocabulary of failure: every error that crosses a
// package border carries a [Kind], given at the lowest place that knows it.
// Layers above add context with %w; each face (DIMSE, web, peer) has one table
// that turns a Kind into a status, so that the same failure reads the same
// wherever a client meets it.
//
// The numbers are part of the peer protocol and never change. The package is
// pure: no clock, no I/O, no goroutine.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The values survive the wire.
type Kind uint8

// The kinds. Their order and numbers are fixed.
const (
	Other       Kind = iota // nothing more is known
	Invalid                 // bytes from outside that cannot be parsed
	Mismatch                // UIDs differ from the command, or a required UID is missing
	Unsupported             // understood, and not offered here
	Denied                  // the asker may not
	NotFound                // no such object
	Conflict                // another object stands under this name
	Full                    // no room that may be used
	Unavailable             // not now: a peer, a quorum or this node cannot serve
	Corrupt                 // bytes of ours that fail their hash and cannot be rebuilt
	Canceled                // the asker gave up
	Protocol                // a message out of place
	kinds
)

var names = [kinds]string{
	"other", "invalid", "mismatch", "unsupported", "denied", "not found",
	"conflict", "full", "unavailable", "corrupt", "canceled", "protocol",
}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if k < kinds {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Kinds returns every kind, for the tests that walk all kinds of all faces.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Error is an error with a kind. Its text never holds patient data.
type Error struct {
	Kind Kind
	Err  error
}

// Error returns the text of the wrapped error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of a kind. The format is that of [fmt.Errorf], %w included.
func New(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost [Error] in err's tree. A context's
// cancellation is [Canceled], its deadline [Unavailable]; nil and anything
// unknown are [Other].
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Unavailable
	}
	return Other
}

// Is reports whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
