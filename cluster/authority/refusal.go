package authority

import (
	"context"
	"errors"

	"pelago/cluster/fault"
)

// Refusal is why a node was not let in. Its number is all that crosses the wire
// to a stranger, who learns nothing else; it never changes.
type Refusal uint8

// The refusals.
const (
	UnknownToken Refusal = iota + 1 // no such token: mistyped, or another network's
	UsedToken                       // another node has joined by it
	ExpiredToken
	Malformed    // the request breaks the protocol or its limits
	OtherNetwork // the request names another network
	NotItself    // a proof fails: of the node's key, its token, its certificate
	Revoked      // the node was removed from the network
	NotNow       // no majority, or the node that was asked cannot sign
	TooMany      // the register is full
	Internal     // the reason is in the log of the node that was asked
	OtherSite    // the node is a member already, of another site
	refusals
)

var refusalTable = [refusals]struct {
	kind fault.Kind
	text string
}{
	UnknownToken: {fault.NotFound, "the network knows no such join token"},
	UsedToken:    {fault.Conflict, "the join token was used by another node"},
	ExpiredToken: {fault.Denied, "the join token has expired"},
	Malformed:    {fault.Invalid, "the request is malformed"},
	OtherNetwork: {fault.Denied, "the request is for another network"},
	NotItself:    {fault.Denied, "the node did not prove who it is"},
	Revoked:      {fault.Denied, "the node was removed from the network"},
	NotNow:       {fault.Unavailable, "the network cannot decide now"},
	TooMany:      {fault.Full, "the network has too many open join tokens"},
	Internal:     {fault.Other, "the node that was asked failed"},
	OtherSite:    {fault.Conflict, "the node is a member of another site already"},
}

// Error returns the reason in words.
func (r Refusal) Error() string {
	if r == 0 || r >= refusals {
		return "refused for a reason of a newer version"
	}
	return refusalTable[r].text
}

// Err returns the refusal as an error with its kind.
func (r Refusal) Err() error {
	kind := fault.Other
	if r < refusals {
		kind = refusalTable[r].kind
	}
	return fault.New(kind, "authority: %w", r)
}

// refusalOf is what a stranger is told of an error.
func refusalOf(err error) Refusal {
	var r Refusal
	switch {
	case errors.As(err, &r):
		return r
	case fault.Is(err, fault.Invalid):
		return Malformed
	case fault.Is(err, fault.Unavailable), fault.Is(err, fault.Canceled), errors.Is(err, context.DeadlineExceeded):
		return NotNow
	}
	return Internal
}
