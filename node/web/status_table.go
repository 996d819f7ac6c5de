package web

import (
	"errors"
	"net/http"

	"pelago/cluster/fault"
	"pelago/node/archive"
)

// statusTable turns a kind of failure into an HTTP status (DESIGN §9, Statuses).
// Unsupported is 406 when the client asked for a form that we cannot make, and
// 415 when it sent one: the request's direction decides, see statusOf.
var statusTable = map[fault.Kind]int{
	fault.Other:       http.StatusInternalServerError,
	fault.Invalid:     http.StatusBadRequest,
	fault.Mismatch:    http.StatusBadRequest,
	fault.Unsupported: http.StatusNotAcceptable,
	fault.Denied:      http.StatusForbidden,
	fault.NotFound:    http.StatusNotFound,
	fault.Conflict:    http.StatusConflict,
	fault.Full:        http.StatusInsufficientStorage,
	fault.Unavailable: http.StatusServiceUnavailable,
	fault.Corrupt:     http.StatusInternalServerError,
	fault.Canceled:    statusClientClosed,
	fault.Protocol:    http.StatusBadRequest,
}

// statusClientClosed is never read by anyone: the client is gone. The number is
// the one that proxies log for it.
const statusClientClosed = 499

// failureTable turns a kind of failure into the Failure Reason (0008,1197) of a
// store response (PS3.18 table 10.5.1-1, PS3.4 B.2.3).
var failureTable = map[fault.Kind]uint16{
	fault.Other:       0x0110, // processing failure
	fault.Invalid:     0xC000, // cannot understand
	fault.Mismatch:    0xA900, // data set does not match SOP class
	fault.Unsupported: 0x0122, // SOP class not supported
	fault.Denied:      0x0124, // not authorized
	fault.NotFound:    0x0112, // no such object instance
	fault.Conflict:    0x0111, // duplicate SOP instance
	fault.Full:        0xA700, // out of resources
	fault.Unavailable: 0xA700,
	fault.Corrupt:     0x0110,
	fault.Canceled:    0xC000,
	fault.Protocol:    0xC000,
}

// statusOf returns the status of a failed request.
func statusOf(err error, sending bool) int {
	kind := fault.KindOf(err)
	if kind == fault.Unsupported && sending {
		return http.StatusUnsupportedMediaType
	}
	if status, ok := statusTable[kind]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// sentenceOf returns what a client reads of a failure.
func sentenceOf(err error) string {
	if closed := new(archive.Closed); errors.As(err, &closed) {
		return closed.Why
	}
	if text := sentences[fault.KindOf(err)]; text != "" {
		return text
	}
	return err.Error()
}

// sentences are what a client reads of a failure whose own text may not leave
// the node: causes within hold paths and addresses.
var sentences = map[fault.Kind]string{
	fault.Other:       "the node failed to answer; its log says why",
	fault.Denied:      "not allowed",
	fault.NotFound:    "no such object",
	fault.Full:        "no space left to store",
	fault.Unavailable: "not available now; try again later",
	fault.Corrupt:     "stored bytes are damaged and could not be rebuilt",
	fault.Canceled:    "canceled",
}
