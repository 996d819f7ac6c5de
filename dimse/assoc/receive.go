package assoc

import (
	"context"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/command"
	"pelago/dimse/pdu"
)

// Message is one DIMSE message: its command set and, when there is one, its
// data set as a stream that must be read to its end (or Discard-ed) before the
// next message is asked for.
type Message struct {
	ContextID byte
	Command   []byte // implicit little endian group 0000
	Data      *Data  // nil when the command has no data set
}

// Data streams a message's data set, fragment by fragment, as PDUs arrive. It
// is for one goroutine at a time.
type Data struct {
	a       *Association
	context byte
	rest    []byte      // of a fragment that Read could not place
	stop    func() bool // ends the watch over the message's context
	err     error       // sticky: io.EOF or why the stream broke
}

// Receive returns the next message. io.EOF: the peer released the association
// (the release reply has been sent).
//
// ctx governs the whole message: if it ends before the last of the data set was read,
// the association is aborted. What is left of the previous message's data set is
// dropped first. After an error that ended the association (see Done) every
// further call returns that error.
func (a *Association) Receive(ctx context.Context) (*Message, error) {
	if err := ctx.Err(); err != nil {
		a.interrupt(canceled(ctx))
		return nil, a.Err()
	}
	if err := a.claim(ctx, a.reading); err != nil {
		return nil, err
	}
	stop := a.watch(ctx)
	m, err := a.receive(stop)
	<-a.reading
	err = a.ended(err)
	if err == nil && m.Data != nil {
		return m, nil // its end ends the watch
	}
	if late := a.unwatch(stop); err == nil {
		err = late
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// receive reads one command set; stop ends the watch over its context. The
// caller has the right to read.
func (a *Association) receive(stop func() bool) (*Message, error) {
	in := &a.in
	a.mu.Lock()
	a.active = time.Now()
	a.mu.Unlock()
	if err := a.skipData(); err != nil {
		return nil, err
	}
	m := &Message{}
	for w := forPDU; ; w = forRest {
		if err := a.nextFragment(w); err != nil {
			return nil, err
		}
		h := in.head
		switch {
		case !h.Command:
			return nil, a.violated(fault.Protocol, abortInvalidValue, "a data set fragment where a command set must be")
		case w == forPDU && a.accepted[h.Context] == 0:
			return nil, a.violated(fault.Protocol, abortInvalidValue, "presentation context %d was not accepted", h.Context)
		case w == forRest && h.Context != m.ContextID:
			return nil, a.violated(fault.Protocol, abortInvalidValue, "messages of contexts %d and %d mixed", m.ContextID, h.Context)
		case int64(len(m.Command))+int64(h.Length) > command.MaxBytes:
			return nil, a.violated(fault.Protocol, abortInvalidValue, "a command set longer than %d bytes", command.MaxBytes)
		}
		m.ContextID = h.Context
		for in.left > 0 {
			b, err := a.fragment()
			if err != nil {
				return nil, err
			}
			m.Command = append(m.Command, b...)
		}
		if h.Last {
			break
		}
	}
	hasData, err := command.HasData(m.Command)
	if err != nil {
		return nil, a.violated(fault.KindOf(err), abortInvalidValue, "%w", err)
	}
	if hasData {
		m.Data = &Data{a: a, context: m.ContextID, stop: stop}
		in.open = m.Data
		a.mu.Lock()
		a.stopData = stop
		a.mu.Unlock()
	}
	return m, nil
}

// nextFragment moves to the next presentation data value, whichever PDU it is
// in. The current fragment must have been read.
func (a *Association) nextFragment(w wait) error {
	in := &a.in
	for in.data == 0 {
		h, _, err := a.nextPDU(w)
		if err != nil {
			return err
		}
		switch h.Type {
		case pdu.TypeData: // DT-2, AR-6
			in.data = h.Length
		case pdu.TypeReleaseRQ: // AR-2, AR-8
			if w == forRest {
				return a.violated(fault.Protocol, abortUnexpectedPDU, "A-RELEASE-RQ inside a message")
			}
			if err := a.releaseAsked(); err != nil {
				return err
			}
		case pdu.TypeReleaseRP: // AR-10; AR-3 has ended the association
			_, err := a.happen(evt14, io.EOF) // AR-4
			return err
		}
	}
	b, err := a.need(pdu.DataHeaderBytes, forRest)
	if err != nil {
		return err
	}
	h, err := pdu.ParseDataHeader(b, in.data)
	if err != nil {
		return a.violated(fault.Protocol, abortInvalidValue, "%w", err)
	}
	in.r += pdu.DataHeaderBytes
	in.data -= pdu.DataHeaderBytes + h.Length
	in.head, in.left = h, h.Length
	return nil
}

// fragment returns what has arrived of the current fragment, at least a byte of
// it, and passes over it. The bytes stay until the buffer is filled again.
func (a *Association) fragment() ([]byte, error) {
	in := &a.in
	if in.r == in.w {
		if err := a.fill(forRest); err != nil {
			return nil, err
		}
	}
	n := min(in.w-in.r, int(in.left))
	b := in.buf[in.r : in.r+n : in.r+n]
	in.r += n
	in.left -= uint32(n)
	return b, nil
}

// errDropped is what a data set's reader sees when he comes after the next
// message was asked for.
var errDropped = fault.New(fault.Other, "the data set was dropped unread")

// skipData drops what is left of the last message's data set. The caller has
// the right to read.
func (a *Association) skipData() error {
	d := a.in.open
	if d == nil {
		return nil
	}
	for a.in.open == d {
		if _, err := a.nextOf(d); err != nil && d.err == nil {
			return err
		}
	}
	d.rest, d.err = nil, errDropped
	d.stop() // if its context has ended just now, the next read tells
	return nil
}

// nextOf returns more of a data set; at its end it sets its error to io.EOF,
// and returns that if there were no more bytes. The caller has the right to read.
func (a *Association) nextOf(d *Data) ([]byte, error) {
	in := &a.in
	for in.left == 0 {
		if !in.head.Command && in.head.Last { // of no bytes
			in.open, d.err = nil, io.EOF
			return nil, io.EOF
		}
		if err := a.nextFragment(forRest); err != nil {
			return nil, err
		}
		switch {
		case in.head.Command:
			return nil, a.violated(fault.Protocol, abortInvalidValue, "a command set fragment inside a data set")
		case in.head.Context != d.context:
			return nil, a.violated(fault.Protocol, abortInvalidValue, "messages of contexts %d and %d mixed", d.context, in.head.Context)
		}
	}
	b, err := a.fragment()
	if err == nil && in.left == 0 && in.head.Last {
		in.open, d.err = nil, io.EOF
	}
	return b, err
}

// Next returns the next fragment without a copy, valid until the next call of
// any reading method of the association; io.EOF after the last. Fragments are as
// they arrive, not as the peer cut them, and never empty.
func (d *Data) Next() ([]byte, error) {
	if len(d.rest) > 0 {
		b := d.rest
		d.rest = nil
		return b, nil
	}
	if d.err != nil {
		return nil, d.err
	}
	a := d.a
	if err := a.claim(context.Background(), a.reading); err != nil {
		return nil, d.broken(err)
	}
	if d.err != nil { // Release dropped it
		<-a.reading
		return nil, d.err
	}
	b, err := a.nextOf(d)
	<-a.reading
	if d.err == io.EOF { //nolint:errorlint // the bare io.EOF alone is an orderly end
		_ = a.unwatch(d.stop) // all of it came; who asks further learns that its context has ended
		return b, err
	}
	if err != nil {
		return nil, d.broken(a.ended(err))
	}
	return b, nil
}

// broken makes the sticky error of a stream that ended too early.
func (d *Data) broken(cause error) error {
	d.err = &cutShort{cause: cause}
	return d.err
}

// cutShort is the error of a data set whose association ended inside it: it is
// [io.ErrUnexpectedEOF] and its cause.
type cutShort struct{ cause error }

// Error returns both in words.
func (e *cutShort) Error() string {
	return io.ErrUnexpectedEOF.Error() + " in a data set: " + e.cause.Error()
}

// Unwrap returns both. An orderly end inside a data set is no [io.EOF] to its reader.
func (e *cutShort) Unwrap() []error {
	if e.cause == io.EOF { //nolint:errorlint // the bare io.EOF alone is an orderly end
		return []error{io.ErrUnexpectedEOF}
	}
	return []error{io.ErrUnexpectedEOF, e.cause}
}

// Read implements [io.Reader]; io.EOF after the last fragment. An association
// that ends inside a data set is io.ErrUnexpectedEOF wrapped with its cause.
func (d *Data) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := d.Next()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	d.rest = b[n:]
	return n, nil
}

// WriteTo implements [io.WriterTo] without a copy.
func (d *Data) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		b, err := d.Next()
		if err == io.EOF { //nolint:errorlint // the bare io.EOF alone is an orderly end
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Discard reads and drops what is left.
func (d *Data) Discard() error {
	_, err := d.WriteTo(io.Discard)
	return err
}
