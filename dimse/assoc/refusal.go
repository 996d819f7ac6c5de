package assoc

import (
	"fmt"

	"pelago/cluster/fault"
	"pelago/dimse/pdu"
)

// Reject is an A-ASSOCIATE-RJ (PS3.8 §9.3.4).
type Reject struct{ Result, Source, Reason byte }

// Results and sources of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
const (
	RejectPermanent byte = 1
	RejectTransient byte = 2

	RejectByUser         byte = 1
	RejectByACSE         byte = 2
	RejectByPresentation byte = 3
)

// Reasons of an A-ASSOCIATE-RJ (PS3.8 table 9-21); each belongs to one source.
const (
	ReasonNone               byte = 1 // source user or ACSE
	ReasonApplicationContext byte = 2 // source user
	ReasonCallingTitle       byte = 3 // source user
	ReasonCalledTitle        byte = 7 // source user
	ReasonProtocolVersion    byte = 2 // source ACSE
	ReasonCongestion         byte = 1 // source presentation
	ReasonLocalLimit         byte = 2 // source presentation
)

// Error returns the rejection in words.
func (r *Reject) Error() string {
	result := map[byte]string{RejectPermanent: "permanently", RejectTransient: "transiently"}[r.Result]
	if result == "" {
		result = fmt.Sprintf("with result %d", r.Result)
	}
	source := map[byte]string{
		RejectByUser: "service-user", RejectByACSE: "service-provider (ACSE)",
		RejectByPresentation: "service-provider (presentation)",
	}[r.Source]
	if source == "" {
		source = fmt.Sprintf("source %d", r.Source)
	}
	reason := map[[2]byte]string{
		{RejectByUser, ReasonNone}:               "no reason given",
		{RejectByUser, ReasonApplicationContext}: "application context name not supported",
		{RejectByUser, ReasonCallingTitle}:       "calling AE title not recognized",
		{RejectByUser, ReasonCalledTitle}:        "called AE title not recognized",
		{RejectByACSE, ReasonNone}:               "no reason given",
		{RejectByACSE, ReasonProtocolVersion}:    "protocol version not supported",
		{RejectByPresentation, ReasonCongestion}: "temporary congestion",
		{RejectByPresentation, ReasonLocalLimit}: "local limit exceeded",
	}[[2]byte{r.Source, r.Reason}]
	if reason == "" {
		reason = fmt.Sprintf("reason %d", r.Reason)
	}
	return fmt.Sprintf("association rejected %s by the %s: %s", result, source, reason)
}

// fault returns the rejection with its kind: what is transient may be asked again.
func (r *Reject) fault() error {
	if r.Result == RejectTransient {
		return fault.New(fault.Unavailable, "%w", r)
	}
	return fault.New(fault.Denied, "%w", r)
}

// Aborted is the error of an association that ended by A-ABORT or A-P-ABORT.
type Aborted struct {
	Source, Reason byte
	Remote         bool // the peer sent it
}

// Sources of an A-ABORT (PS3.8 table 9-26).
const (
	abortByUser     byte = 0
	abortByProvider byte = 2
)

// Reasons of an A-ABORT whose source is the provider (PS3.8 table 9-26).
const (
	abortUnspecified     byte = 0
	abortUnrecognizedPDU byte = 1
	abortUnexpectedPDU   byte = 2
	abortInvalidValue    byte = 6
)

// Error returns the abort in words.
func (a *Aborted) Error() string {
	by := "here"
	if a.Remote {
		by = "by the peer"
	}
	switch a.Source {
	case abortByUser:
		return "association aborted " + by + " (service-user)"
	case abortByProvider:
	default:
		return fmt.Sprintf("association aborted %s (source %d, reason %d)", by, a.Source, a.Reason)
	}
	reason := map[byte]string{
		abortUnspecified: "reason not specified", abortUnrecognizedPDU: "unrecognized PDU",
		abortUnexpectedPDU: "unexpected PDU", 4: "unrecognized PDU parameter",
		5: "unexpected PDU parameter", abortInvalidValue: "invalid PDU parameter value",
	}[a.Reason]
	if reason == "" {
		reason = fmt.Sprintf("reason %d", a.Reason)
	}
	return fmt.Sprintf("association aborted %s (service-provider): %s", by, reason)
}

// aborted is an end by A-ABORT of ours: the cause with its kind and, for
// [errors.As], the abort itself.
func aborted(kind fault.Kind, abort Aborted, format string, args ...any) error {
	return &ending{abort: abort, err: fault.New(kind, format, args...)}
}

// ending is the cause of an association's end together with the A-ABORT that
// tells the peer of it.
type ending struct {
	abort Aborted
	err   error
}

// Error returns the cause and the abort in words.
func (e *ending) Error() string { return e.err.Error() + ": " + e.abort.Error() }

// Unwrap returns the cause and the abort.
func (e *ending) Unwrap() []error { return []error{e.err, &e.abort} }

// pdu returns the PDU that tells the peer.
func (a Aborted) pdu() pdu.Abort { return pdu.Abort{Source: a.Source, Reason: a.Reason} }
