// Package call is how one node asks another over the peer service of
// cluster/port: an HTTP/2 request to https://NODE/PATH, NODE being a node's id.
// Failures cross the wire as a [fault.Kind] and a line of text, so that the asker
// tells a peer's "not found" from a peer that is not there.
package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"pelago/cluster/fault"
)

// kindHeader carries the number of a failure's kind. A status of its own for each
// kind would leave some without.
const kindHeader = "Pelago-Fault"

// maxText bounds the text of a failure, in bytes.
const maxText = 512

// Client calls peers. It may be used by many goroutines.
type Client struct{ transport http.RoundTripper }

// NewClient returns a client over a transport of cluster/port, which knows where
// nodes are and makes sure that they are who answers.
func NewClient(t http.RoundTripper) *Client { return &Client{t} }

// Do sends a request to a node and returns its answer, whose body the caller
// closes. An answer other than 2xx is an error of the kind that the peer gave; a
// peer that cannot be reached, or breaks off, is fault.Unavailable.
func (c *Client) Do(ctx context.Context, node, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+node+path, body)
	if err != nil {
		return nil, fault.New(fault.Invalid, "call: %w", err)
	}
	return c.Send(request)
}

// Send is Do for a request that the caller has made, with headers of its own.
func (c *Client) Send(request *http.Request) (*http.Response, error) {
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		if ctxErr := request.Context().Err(); ctxErr != nil {
			return nil, fault.New(fault.KindOf(ctxErr), "call: %w", ctxErr)
		}
		if kind := fault.KindOf(err); kind != fault.Other {
			return nil, fmt.Errorf("call: %w", err)
		}
		return nil, fault.New(fault.Unavailable, "call: %w", err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxText)) // what did not come is not needed
	return nil, failure(response, strings.ToValidUTF8(string(text), "\uFFFD"))
}

// failure is the error of an answer.
func failure(response *http.Response, text string) error {
	kind, err := strconv.ParseUint(response.Header.Get(kindHeader), 10, 8)
	if err != nil || kind >= uint64(len(fault.Kinds())) {
		// Not an answer of a handler of ours: another version, or the server itself.
		return fault.New(fault.Unavailable, "%w", answer(fmt.Sprintf("call: the peer answers %d", response.StatusCode)))
	}
	return fault.New(fault.Kind(kind), "%w", answer("peer: "+strings.TrimSpace(text)))
}

// answer is a failure in the peer's words.
type answer string

func (a answer) Error() string { return string(a) }

// Answered reports whether an error of Do is the peer's answer: it has dealt with
// the request. Of any other error that is not known.
func Answered(err error) bool {
	var a answer
	return errors.As(err, &a)
}

// Read returns the whole of a body of at most limit bytes: fault.Invalid if it is
// longer, fault.Unavailable if it breaks off.
func Read(body io.Reader, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Unavailable, "call: %w", err)
	case len(b) > limit:
		return nil, fault.New(fault.Invalid, "call: a body of over %d bytes", limit)
	}
	return b, nil
}

// Refuse answers a request with a failure, before anything else was written. The
// text of an error holds no patient data.
func Refuse(w http.ResponseWriter, err error) {
	kind := fault.KindOf(err)
	w.Header().Set(kindHeader, strconv.Itoa(int(kind)))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(statusOf(kind))
	text := err.Error()
	_, _ = io.WriteString(w, text[:min(len(text), maxText)]) // an asker that is gone needs no answer
}

// statusOf is for people who watch the wire; a client reads the kind.
func statusOf(kind fault.Kind) int {
	switch kind {
	case fault.Invalid, fault.Mismatch, fault.Protocol:
		return http.StatusBadRequest
	case fault.Unsupported:
		return http.StatusNotImplemented
	case fault.Denied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Full:
		return http.StatusInsufficientStorage
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Canceled:
		return 499 // nginx's number; the asker is gone
	default:
		return http.StatusInternalServerError
	}
}
