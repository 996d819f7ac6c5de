package assoc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/command"
	"pelago/dimse/pdu"
)

const (
	// sendSmall is the send buffer of an association that has sent no large data
	// set: commands and query responses.
	sendSmall = 4 << 10

	// sendBatch is how many bytes of PDUs go out in one write at most, unless one
	// PDU alone is longer: many peers take no more than 16 KiB, and a system call
	// and a wake-up for each would cost more than the bytes.
	sendBatch = 128 << 10

	// soonBatch is how many bytes of messages wait for one another at most: some
	// thirty query responses, of which the first is early enough at the peer for it
	// to work while the next are made.
	soonBatch = 16 << 10

	// soonDelay is how long a message waits for others at most.
	soonDelay = time.Millisecond

	// sendGrowth is how much the send buffer grows at a time.
	sendGrowth = 4

	// maxEmptyReads is how often a source may give nothing before it counts as
	// broken, as in bufio.
	maxEmptyReads = 100
)

// output is the send buffer. It belongs to whoever holds the right to write.
type output struct {
	buf   []byte // P-DATA-TFs that wait, and the one being made, heads included
	whole int    // how many bytes of buf are of whole messages: see SendSoon
	start int    // of the P-DATA-TF being made
	ahead []byte // at most one byte read ahead of the PDU, to know its end
	sent  bool   // a PDU of the current message is out
	torn  bool   // a write went out in part: the stream may have no boundary any more

	wrote time.Time    // when the last write began
	soon  bytes.Reader // over the data set of a message for SendSoon
	late  *time.Timer  // writes whole messages that wait; nil before the first
}

// Send sends one message; data may be nil. PDUs fill the peer's maximum
// length, and small ones share a write; a small command and its data set share a
// PDU where they fit.
//
// data is read while the right to send is held. If it fails before anything was
// sent, the association goes on; later, nothing can repair the message and the
// association is aborted (see Done). The same holds for the end of ctx.
func (a *Association) Send(ctx context.Context, contextID byte, command []byte, data io.Reader) error {
	return a.writeMessage(ctx, contextID, func() error {
		if data != nil { // it may be slow to come
			if err := a.flushWhole(); err != nil {
				return err
			}
		}
		if err := a.makeMessage(contextID, command, data); err != nil {
			return err
		}
		return a.flush()
	})
}

// SendSoon is [Association.Send] for one of many small messages, such as pending
// responses: those that come soon after one another share a write. A message
// goes out at once when nothing was written within the last millisecond, else no
// later than that after the last write, and sooner when 16 KiB wait or anything
// else is sent or the association is released. The right to write is not held
// meanwhile, so that nobody waits for a message that waits.
//
// nil means that the message will be written, unless the association ends first
// otherwise than by a release. A write that fails later ends the association, and
// every call after it returns why.
func (a *Association) SendSoon(ctx context.Context, contextID byte, command, data []byte) error {
	return a.writeMessage(ctx, contextID, func() error {
		if _, err := a.happen(evt9, nil); err != nil { // what may not be sent must not wait
			return err
		}
		o := &a.out
		var source io.Reader
		if data != nil {
			o.soon.Reset(data)
			defer o.soon.Reset(nil)
			source = &o.soon
		}
		if err := a.makeMessage(contextID, command, source); err != nil {
			return err
		}
		wait := soonDelay - time.Since(o.wrote)
		if wait <= 0 || len(o.buf) >= soonBatch {
			return a.flush()
		}
		if o.whole == 0 {
			a.flushAfter(wait)
		}
		o.whole = len(o.buf)
		return nil
	})
}

// writeMessage calls write with the right to write.
func (a *Association) writeMessage(ctx context.Context, contextID byte, write func() error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if a.accepted[contextID] == 0 {
		return fault.New(fault.Unsupported, "presentation context %d was not accepted", contextID)
	}
	if err := a.claim(ctx, a.writing); err != nil {
		return err
	}
	stop := a.watch(ctx)
	err := write()
	<-a.writing
	err = a.ended(err)
	if late := a.unwatch(stop); err == nil {
		err = late
	}
	return err
}

// flushAfter has whole messages that wait written later. The caller has the
// right to write.
func (a *Association) flushAfter(wait time.Duration) {
	if o := &a.out; o.late == nil {
		o.late = time.AfterFunc(wait, a.flushLate)
	} else {
		o.late.Reset(wait)
	}
}

// flushLate writes whole messages that have waited long enough. An error has
// ended the association: whoever sends or receives next learns of it.
func (a *Association) flushLate() {
	if a.claim(context.Background(), a.writing) != nil {
		return
	}
	err := a.flushWhole()
	<-a.writing
	_ = a.ended(err)
}

// flushWhole writes whole messages that wait, if any. The caller has the right to
// write.
func (a *Association) flushWhole() error {
	if a.out.whole == 0 {
		return nil
	}
	a.out.buf = a.out.buf[:a.out.whole]
	return a.flush()
}

// makeMessage puts a message behind those that wait; of one too long for a write
// only the last piece stays in the buffer. After an error nothing of it does. The
// caller has the right to write.
func (a *Association) makeMessage(contextID byte, set []byte, data io.Reader) error {
	if len(set) > command.MaxBytes {
		return fault.New(fault.Invalid, "a command set of %d bytes is longer than %d", len(set), command.MaxBytes)
	}
	o := &a.out
	o.begin()
	for {
		n := min(len(set), o.room(a.sendMax))
		last := n == len(set)
		o.buf = pdu.AppendDataHeader(o.buf, pdu.DataHeader{Length: uint32(n), Context: contextID, Command: true, Last: last})
		o.buf = append(o.buf, set[:n]...)
		set = set[n:]
		if last {
			break
		}
		if err := a.endPDU(); err != nil {
			return err
		}
	}
	if data == nil {
		o.endPDU()
		return nil
	}
	for {
		if o.room(a.sendMax) < min(leastShare, a.sendMax/2) {
			if err := a.endPDU(); err != nil {
				return err
			}
		}
		at := len(o.buf)
		o.buf = pdu.AppendDataHeader(o.buf, pdu.DataHeader{})
		room := a.sendMax - (at - o.start - pdu.HeaderBytes) - pdu.DataHeaderBytes
		last, err := o.take(data, room)
		if err != nil {
			return a.sourceFailed(err)
		}
		n := len(o.buf) - at - pdu.DataHeaderBytes
		pdu.PutDataHeader(o.buf[at:], pdu.DataHeader{Length: uint32(n), Context: contextID, Last: last})
		if last {
			break
		}
		if err := a.endPDU(); err != nil {
			return err
		}
	}
	o.endPDU()
	return nil
}

// leastShare is how many bytes of a data set must fit behind a command for the
// two to share a PDU.
const leastShare = 256

// sourceFailed handles an error of the reader that gives the data set.
func (a *Association) sourceFailed(err error) error {
	err = fmt.Errorf("reading the data set to send: %w", err)
	if !a.out.sent {
		return err
	}
	_, _ = a.happen(evt15, &ending{err: err, abort: Aborted{Source: abortByUser}})
	return err
}

// begin starts the first PDU of a message, behind the whole messages that wait.
func (o *output) begin() {
	if o.buf == nil {
		o.buf = make([]byte, 0, sendSmall)
	}
	o.buf = o.buf[:o.whole]
	o.sent, o.ahead = false, o.ahead[:0]
	o.next()
}

// next starts a PDU behind those that wait.
func (o *output) next() {
	o.start = len(o.buf)
	o.buf = pdu.AppendHeader(o.buf, pdu.Header{Type: pdu.TypeData})
}

// room is how many bytes a further fragment of the PDU may have; even, since
// fragments are (PS3.8 Annex E), and negative when not even its head fits.
func (o *output) room(limit int) int {
	return (limit - (len(o.buf) - o.start - pdu.HeaderBytes) - pdu.DataHeaderBytes) &^ 1
}

// take reads up to room bytes of data into the PDU, and reports whether that
// is its end, for which it reads a byte ahead.
func (o *output) take(data io.Reader, room int) (bool, error) {
	end := len(o.buf) + room&^1
	o.buf = append(o.buf, o.ahead...)
	o.ahead = o.ahead[:0]
	for empty := 0; ; {
		if len(o.buf) == cap(o.buf) {
			size := min(cap(o.buf)*sendGrowth, end+1)
			o.buf = append(make([]byte, 0, size), o.buf...)
		}
		n, err := data.Read(o.buf[len(o.buf):min(cap(o.buf), end+1)])
		if n < 0 || n > cap(o.buf)-len(o.buf) {
			return false, fmt.Errorf("the reader returned an impossible count %d", n)
		}
		o.buf = o.buf[:len(o.buf)+n]
		if len(o.buf) > end {
			o.ahead = append(o.ahead, o.buf[end])
			o.buf = o.buf[:end]
			if err != nil && err != io.EOF {
				return false, err
			}
			return false, nil
		}
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, err
		case n > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return false, io.ErrNoProgress
			}
		}
	}
}

// endPDU ends the PDU that was made.
func (o *output) endPDU() {
	pdu.PutHeader(o.buf[o.start:], pdu.Header{Type: pdu.TypeData, Length: uint32(len(o.buf) - o.start - pdu.HeaderBytes)})
}

// endPDU ends a PDU that is not the message's last, and begins the next. Those
// that wait are sent once another would be too much for one write.
func (a *Association) endPDU() error {
	o := &a.out
	o.endPDU()
	if len(o.buf)+pdu.HeaderBytes+a.sendMax > sendBatch {
		if err := a.flush(); err != nil {
			return err
		}
	}
	o.next()
	return nil
}

// flush sends the PDUs that wait.
func (a *Association) flush() error {
	o := &a.out
	if o.whole > 0 {
		o.late.Stop() // or it finds nothing, or what came meanwhile
	}
	a.mu.Lock()
	_, err := a.happenLocked(evt9, nil) // DT-1, AR-7
	a.mu.Unlock()
	if err != nil {
		return err
	}
	o.sent = true
	if err := a.write(o.buf); err != nil {
		return err
	}
	o.buf, o.whole = o.buf[:0], 0
	return nil
}

// write writes PDUs, in one write unless the peer is so slow that a
// deadline passes with only a part gone. The caller has the right to write.
func (a *Association) write(b []byte) error {
	for whole := len(b); ; {
		a.mu.Lock()
		err := a.cause
		if err == nil {
			now := time.Now()
			a.active, a.out.wrote = now, now
			err = a.conn.SetWriteDeadline(now.Add(a.config.Stall))
		}
		a.mu.Unlock()
		if err != nil {
			return a.lost(err, "writing")
		}
		n, err := a.conn.Write(b)
		b = b[n:]
		if len(b) == 0 {
			return nil
		}
		a.out.torn = len(b) < whole
		if n == 0 || !isTimeout(err) {
			return a.lost(err, "writing")
		}
		// Slow, but alive: the deadline is for the rest.
	}
}
