package transfers

import (
	"io"
	"net/http"
)

// Transport counts the bodies of answers that come through a round tripper of
// peer calls, whose URLs name a node as their host. kind tells what a path
// moves; calls of [None] are not listed.
func (r *Registry) Transport(next http.RoundTripper, kind func(path string) Kind) http.RoundTripper {
	return &transport{registry: r, next: next, kind: kind}
}

type transport struct {
	registry *Registry
	next     http.RoundTripper
	kind     func(path string) Kind
}

// RoundTrip implements [http.RoundTripper]. The call ends with its body.
func (t *transport) RoundTrip(q *http.Request) (*http.Response, error) {
	answer, err := t.next.RoundTrip(q)
	if err != nil || answer.StatusCode/100 != 2 {
		return answer, err
	}
	if kind := t.kind(q.URL.Path); kind != None {
		answer.Body = &countedBody{ReadCloser: answer.Body, call: t.registry.Begin(kind, q.URL.Hostname(), true)}
	}
	return answer, nil
}

// countedBody is an answer's body while it is read.
type countedBody struct {
	io.ReadCloser
	call *Call
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.call.Add(n)
	if err != nil {
		b.call.End()
	}
	return n, err
}

func (b *countedBody) Close() error {
	b.call.End()
	return b.ReadCloser.Close()
}

// Handler counts the bodies of answers that a handler of peer calls writes. peer
// names the node that asks, "" if there is none. The call lasts as long as the
// handler runs.
func (r *Registry) Handler(next http.Handler, kind func(path string) Kind, peer func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		k := kind(q.URL.Path)
		if k == None {
			next.ServeHTTP(w, q)
			return
		}
		call := r.Begin(k, peer(q), false)
		defer call.End()
		next.ServeHTTP(&countedWriter{ResponseWriter: w, call: call}, q)
	})
}

// countedWriter is an answer while it is written.
type countedWriter struct {
	http.ResponseWriter
	call *Call
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.call.Add(n)
	return n, err
}

// Flush sends what was written, where the answer can.
func (w *countedWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap lets [http.ResponseController] reach what is below.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
