package web

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// rearm is how often a deadline is pushed out while bytes flow: each push is a
// system call's worth of work on the connection's timer.
const rearm = time.Second

// reply is the response of one request: it counts, and gives the client
// Limits.Stall for each piece it is to take. It hides the ReadFrom of the
// server's writer, whose buffer is small, behind the pooled ones of copyBytes.
type reply struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	armed   time.Time // when the deadline was last set
	status  int       // 0 until the header is written
	bytes   int64
}

func newReply(w http.ResponseWriter, stall time.Duration) *reply {
	return &reply{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
}

// Unwrap lets [http.ResponseController] reach the server's writer.
func (p *reply) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// WriteHeader sends the status line once; informational ones pass.
func (p *reply) WriteHeader(status int) {
	if p.status == 0 && status >= 200 {
		p.status = status
	}
	p.ResponseWriter.WriteHeader(status)
}

// Write sends bytes of the body under the stall limit.
func (p *reply) Write(b []byte) (int, error) {
	if p.status == 0 {
		p.status = http.StatusOK
	}
	if now := time.Now(); now.Sub(p.armed) > rearm {
		p.armed = now
		// A writer without deadlines (a test recorder) cannot stall either.
		_ = p.control.SetWriteDeadline(now.Add(p.stall))
	}
	n, err := p.ResponseWriter.Write(b)
	p.bytes += int64(n)
	return n, err
}

// steadyBody is a request body whose sender must keep sending: every read has
// Limits.Stall to return.
type steadyBody struct {
	body    io.Reader
	control *http.ResponseController
	stall   time.Duration
	armed   time.Time
}

func (b *steadyBody) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.armed) > rearm {
		b.armed = now
		_ = b.control.SetReadDeadline(now.Add(b.stall))
	}
	n, err := b.body.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		// The server goes on to watch the connection for the client's leaving; the
		// deadline of a body that is over would look like it.
		_ = b.control.SetReadDeadline(time.Time{})
	case err != nil:
		err = fault.New(fault.Protocol, "the request body broke off: %w", err)
	}
	return n, err
}

// copySize is the piece in which bytes travel from the archive to a client: a
// system call per quarter of a megabyte.
const copySize = 256 << 10

// copyBuffers are shared by all requests of a handler.
type copyBuffers struct{ pool sync.Pool }

func newCopyBuffers() *copyBuffers {
	return &copyBuffers{pool: sync.Pool{New: func() any { b := make([]byte, copySize); return &b }}}
}

// ranger is a source that writes its bytes from where they rest in memory.
type ranger interface {
	WriteRange(w io.Writer, offset, length int64) error
}

// copyAt sends length bytes of src from offset; less is an error.
func (c *copyBuffers) copyAt(w io.Writer, src io.ReaderAt, offset, length int64) error {
	if src, ok := src.(ranger); ok {
		return src.WriteRange(goneWriter{w}, offset, length)
	}
	buf := c.pool.Get().(*[]byte)
	defer c.pool.Put(buf)
	for length > 0 {
		b := *buf
		if length < int64(len(b)) {
			b = b[:length]
		}
		n, err := src.ReadAt(b, offset)
		if n < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := w.Write(b); err != nil {
			return &clientGone{err}
		}
		offset += int64(n)
		length -= int64(n)
	}
	return nil
}

// goneWriter tells failures to write from those to read, and gives the client the
// time of a piece for each piece.
type goneWriter struct{ w io.Writer }

func (g goneWriter) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := g.w.Write(b[done:min(len(b), done+copySize)])
		done += n
		if err != nil {
			return done, &clientGone{err}
		}
	}
	return done, nil
}

// clientGone marks a failure to write to the client, which is no fault of ours.
type clientGone struct{ err error }

func (e *clientGone) Error() string { return "the client stopped taking the answer: " + e.err.Error() }
func (e *clientGone) Unwrap() error { return e.err }
