package assoc

import (
	"errors"
	"io"
	"net"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/pdu"
)

// input is the receive buffer and the place inside the current P-DATA-TF. It
// belongs to whoever holds the right to read.
type input struct {
	buf  []byte
	r, w int // buf[r:w] has arrived and is not yet parsed

	data  uint32         // bytes of the current P-DATA-TF behind the current fragment
	left  uint32         // bytes of the current fragment not yet handed out
	head  pdu.DataHeader // of the current fragment
	stall time.Duration  // how much longer the peer may keep us waiting inside a PDU
	open  *Data          // whose data set has not been read to its end
}

// wait tells what a read waits for, and with that how long.
type wait byte

const (
	forPDU  wait = iota // the next PDU between messages: Config.Idle
	forRest             // the rest of a PDU or of a message: Config.Stall
)

// armRead sets the deadline of a read, and returns it.
func (a *Association) armRead(w wait) (time.Time, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cause != nil {
		return time.Time{}, a.cause
	}
	var deadline time.Time
	switch {
	case a.state != sta6: // negotiating, or a release is under way
		deadline = a.timer
	case w == forPDU:
		deadline = a.active.Add(a.idle)
	default:
		deadline = time.Now().Add(a.in.stall)
	}
	return deadline, a.conn.SetReadDeadline(deadline)
}

// fill reads once into the free end of the buffer.
func (a *Association) fill(w wait) error {
	in := &a.in
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	for {
		if _, err := a.armRead(w); err != nil {
			return a.lost(err, "reading")
		}
		if w == forRest && a.quickAck != nil {
			// The rest may wait until what has come of it is acknowledged. Between
			// messages nothing does: there our response acknowledges.
			a.quickAck()
		}
		start := time.Now()
		free := len(in.buf) - in.w
		n, err := a.conn.Read(in.buf[in.w:])
		if w == forRest {
			in.stall -= time.Since(start)
		}
		if n > 0 { // an error with it comes again
			in.w += n
			if n == free && len(in.buf) < readFull {
				full := make([]byte, readFull)
				in.w = copy(full, in.buf[in.r:in.w])
				in.buf, in.r = full, 0
			}
			return nil
		}
		if err == nil {
			continue
		}
		// What was sent meanwhile counts against idleness: the deadline may have moved.
		if deadline, armed := a.armRead(w); armed == nil && isTimeout(err) && time.Now().Before(deadline) {
			continue
		}
		return a.lost(err, "reading")
	}
}

// isTimeout reports whether a deadline was exceeded.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// need makes at least n bytes available; n is at most readSmall. w is what the
// first of them waits for.
func (a *Association) need(n int, w wait) ([]byte, error) {
	in := &a.in
	for in.w-in.r < n {
		if in.w > in.r {
			w = forRest
			if in.r+n > len(in.buf) {
				in.w = copy(in.buf, in.buf[in.r:in.w])
				in.r = 0
			}
		}
		if err := a.fill(w); err != nil {
			return nil, err
		}
	}
	return in.buf[in.r : in.r+n], nil
}

// nextPDU reads the head of the next PDU, and of a short PDU its body, gives
// its arrival to the state machine, and returns it when the association goes on.
func (a *Association) nextPDU(w wait) (pdu.Header, effect, error) {
	in := &a.in
	in.stall = a.config.Stall
	b, err := a.need(pdu.HeaderBytes, w)
	if err != nil {
		return pdu.Header{}, 0, err
	}
	h := pdu.ParseHeader(b)
	if err := h.Check(a.config.MaxPDU); err != nil {
		reason := abortInvalidValue
		if received(h.Type) == evt19 {
			reason = abortUnrecognizedPDU
		}
		return h, 0, a.violated(fault.Protocol, reason, "%w", err)
	}
	in.r += pdu.HeaderBytes
	var body []byte
	switch h.Type {
	case pdu.TypeAssociateRJ, pdu.TypeReleaseRQ, pdu.TypeReleaseRP, pdu.TypeAbort:
		if body, err = a.need(int(h.Length), forRest); err != nil {
			return h, 0, err
		}
		in.r += len(body)
	}
	e := received(h.Type)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active = time.Now()
	effects, err := a.happenLocked(e, a.causeLocked(e, h.Type, body))
	return h, effects, err
}

// errData is the cause of an end by P-DATA-TF out of place; made beforehand,
// since most PDUs are data in place.
var errData = outOfPlace(pdu.TypeData)

// outOfPlace is the cause of an end by a PDU that the state does not allow.
func outOfPlace(t pdu.Type) error {
	return aborted(fault.Protocol, Aborted{Source: abortByProvider, Reason: abortUnexpectedPDU}, "%v out of place", t)
}

// causeLocked returns what the end's cause will be if the event ends the
// association; body is that of a short PDU.
func (a *Association) causeLocked(e event, t pdu.Type, body []byte) error {
	switch t {
	case pdu.TypeData:
		return errData
	case pdu.TypeAbort:
		abort, err := pdu.ParseAbort(body)
		if err != nil {
			return err
		}
		return fault.New(fault.Unavailable, "%w", &Aborted{Source: abort.Source, Reason: abort.Reason, Remote: true})
	}
	_, effects, _, _ := step(a.state, e, facts{requestor: a.requestor, acceptable: !a.refused})
	if effects&(sendAbort|sendPAbort) != 0 {
		return outOfPlace(t)
	}
	switch t {
	case pdu.TypeReleaseRP:
		return io.EOF
	case pdu.TypeAssociateRJ:
		reject, err := pdu.ParseReject(body)
		if err != nil {
			return err
		}
		return (&Reject{Result: reject.Result, Source: reject.Source, Reason: reject.Reason}).fault()
	case pdu.TypeAssociateRQ:
		return (&Reject{Result: RejectPermanent, Source: RejectByACSE, Reason: ReasonNone}).fault()
	}
	return nil
}
