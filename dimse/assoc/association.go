package assoc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/pdu"
)

// Association is an established association. One goroutine may read while
// others send; sends are serialised message by message.
type Association struct {
	conn      net.Conn
	config    Config
	requestor bool
	quickAck  func() // nil where the connection has none

	// Set while the association is negotiated, then constant.
	request   *Request
	contexts  []Context
	accepted  [256]byte // context id → index in contexts plus one, when accepted
	extended  map[string][]byte
	peer      UserInfo
	refused   bool // the provider does not accept the A-ASSOCIATE-RQ (AE-6)
	sendMax   int  // longest P-DATA-TF body that we send
	invoked   uint16
	performed uint16
	idle      time.Duration

	reading chan struct{} // holds one token while someone reads from conn
	in      input         // of whoever reads
	writing chan struct{} // holds one token while someone writes to conn
	out     output        // of whoever writes

	done chan struct{}

	mu     sync.Mutex
	state  state
	cause  error     // of the end; nil before
	last   effect    // what the end asks for; carried out by finish
	timer  time.Time // when ARTIM expires, or the wait for a release
	active time.Time // last PDU either way, or the last call of Receive
	hurry  bool      // nobody waits for the peer's close

	finishing bool // someone carries out the end; done tells when he has

	stopData func() bool // ends the watch over the last message with a data set
}

// longAgo is a deadline that wakes whoever reads or writes.
var longAgo = time.Unix(1, 0)

// open returns the driver of a connection that nothing was said over.
func open(conn net.Conn, config Config, requestor bool) *Association {
	config = config.withDefaults()
	return &Association{
		conn: conn, config: config, requestor: requestor, quickAck: tune(conn), idle: config.Idle,
		reading: make(chan struct{}, 1), writing: make(chan struct{}, 1), done: make(chan struct{}),
		in: input{buf: make([]byte, readSmall)}, state: sta1,
	}
}

// Request returns what was proposed.
func (a *Association) Request() *Request { return a.request }

// Contexts returns the agreed and refused contexts in the order proposed.
func (a *Association) Contexts() []Context { return a.contexts }

// Context returns an accepted context by id.
func (a *Association) Context(id byte) (Context, bool) {
	if i := a.accepted[id]; i > 0 {
		return a.contexts[i-1], true
	}
	return Context{}, false
}

// Extended returns the acceptor's extended negotiation answers.
func (a *Association) Extended() map[string][]byte { return a.extended }

// Window returns the negotiated asynchronous operations window as seen by the
// requestor: invoked, performed; 0 = unlimited.
func (a *Association) Window() (invoked, performed uint16) { return a.invoked, a.performed }

// Peer returns what the other end said of itself.
func (a *Association) Peer() UserInfo { return a.peer }

// Done is closed when the association has ended, whatever the reason, and its
// connection is closed.
func (a *Association) Done() <-chan struct{} { return a.done }

// Err returns why the association ended: nil while it has not, [io.EOF] after
// an orderly release by either end.
func (a *Association) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cause
}

// happen gives an event to the state machine. When it ends the association,
// cause is recorded as its cause and returned, everyone who reads or writes is woken, and
// whoever called must let go of his rights and call finish. An event that the
// table does not allow is fault.Protocol and changes nothing.
func (a *Association) happen(e event, cause error) (effect, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.happenLocked(e, cause)
}

func (a *Association) happenLocked(e event, cause error) (effect, error) {
	if a.cause != nil {
		return 0, a.cause
	}
	_, effects, next, ok := step(a.state, e, facts{requestor: a.requestor, acceptable: !a.refused})
	if !ok {
		return 0, fault.New(fault.Protocol, "association in state Sta%d: not possible now", a.state)
	}
	a.state = next
	if effects&startARTIM != 0 {
		a.timer = time.Now().Add(a.config.ARTIM)
	}
	if next != sta1 && next != sta13 {
		return effects, nil
	}
	a.cause, a.last = cause, effects
	if effects&sendReleaseRP == 0 { // an orderly end lets a write in progress finish
		// Errors: the connection is gone, and everyone is awake already.
		_ = a.conn.SetDeadline(longAgo)
	}
	return effects, cause
}

// interrupt ends the association because the local user wants no more of it.
func (a *Association) interrupt(cause error) {
	a.mu.Lock()
	e := evt15
	if a.state == sta2 { // no association to abort yet: as if the timer expired
		e = evt18
	}
	if a.cause != nil { // what is left is the wait for the peer's close
		a.hurry = true
		_ = a.conn.SetReadDeadline(longAgo)
	}
	_, _ = a.happenLocked(e, cause) // it is the cause, or there is one already
	a.mu.Unlock()
	a.finish()
}

// watch interrupts the association when ctx ends, until unwatch is called with
// the function returned.
func (a *Association) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { a.interrupt(canceled(ctx)) })
}

// unwatch ends a watch, and returns the cause if the association has ended. The
// caller holds no right.
func (a *Association) unwatch(stop func() bool) error {
	if stop() {
		return nil
	}
	<-a.done
	return a.Err()
}

// canceled is the cause of an end by a context's end.
func canceled(ctx context.Context) error {
	return &ending{err: context.Cause(ctx), abort: Aborted{Source: abortByUser}}
}

// claim takes a right, unless ctx or the association ends first.
func (a *Association) claim(ctx context.Context, right chan struct{}) error {
	if err := a.Err(); err != nil {
		<-a.done
		return err
	}
	select {
	case right <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return a.Err()
	}
}

// ended returns err, after the end is complete if err or anything else has
// ended the association. The caller holds no right.
func (a *Association) ended(err error) error {
	cause := a.Err()
	if cause == nil {
		return err
	}
	a.finish()
	if err == nil {
		return cause
	}
	return err
}

// finish carries out what the state machine asked for when the association
// ended, once; everyone else waits until that is done. The caller holds no right.
func (a *Association) finish() {
	a.mu.Lock()
	mine := !a.finishing
	a.finishing = true
	effects, cause, timer, stopData := a.last, a.cause, a.timer, a.stopData
	a.mu.Unlock()
	if !mine {
		<-a.done
		return
	}
	defer close(a.done)
	defer a.conn.Close()
	if stopData != nil {
		stopData() // nobody may come to read that data set's end
	}
	a.config.Log.Debug("association ended", "requestor", a.requestor, "cause", cause)
	if b := farewell(effects, cause); b != nil && !a.sendLast(b, effects&sendReleaseRP != 0) {
		return
	}
	if effects&startARTIM != 0 {
		if effects&(sendRJ|sendReleaseRP) == 0 {
			timer = time.Now().Add(abortLinger)
		}
		a.awaitClose(timer)
	}
}

// sendLast takes both rights for good, and sends the association's last PDU.
// Whoever reads or writes was woken; for a sender that waits for its own source of data
// there is no waiting, and behind half a PDU there is nothing to say. What SendSoon
// has accepted goes before the end of an orderly one.
func (a *Association) sendLast(b []byte, orderly bool) bool {
	patience := time.NewTimer(abortLinger)
	defer patience.Stop()
	for _, right := range []chan struct{}{a.writing, a.reading} {
		select {
		case right <- struct{}{}:
		case <-patience.C:
			return false
		}
	}
	if a.out.torn || a.conn.SetDeadline(time.Now().Add(abortLinger)) != nil {
		return false
	}
	if orderly {
		b = append(a.out.buf[:a.out.whole], b...)
	}
	_, err := a.conn.Write(b)
	return err == nil
}

// farewell returns the PDU that an end sends, or nil.
func farewell(effects effect, cause error) []byte {
	abort := Aborted{Source: abortByUser}
	var reject *Reject
	switch {
	case effects&sendRJ != 0 && errors.As(cause, &reject):
		return pdu.Reject{Result: reject.Result, Source: reject.Source, Reason: reject.Reason}.Append(nil)
	case effects&sendReleaseRP != 0:
		return pdu.AppendReleaseRP(nil)
	case effects&sendPAbort != 0:
		var e *ending
		if errors.As(cause, &e) {
			abort = e.abort
		}
		return abort.pdu().Append(nil)
	case effects&sendAbort != 0:
		return abort.pdu().Append(nil)
	}
	return nil
}

// awaitClose is Sta13: until the peer closes, or the timer expires, what
// arrives is dropped (AA-6). A-ABORT (AA-2) needs no look, since its sender closes;
// a second A-ABORT of ours (AA-7) would go unread. The caller has the right to read.
func (a *Association) awaitClose(timer time.Time) {
	if half, ok := a.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // a peer that only waits for our close sees it
	}
	a.mu.Lock()
	if a.hurry {
		timer = longAgo
	}
	_ = a.conn.SetReadDeadline(timer)
	a.mu.Unlock()
	for {
		if _, err := a.conn.Read(a.in.buf); err != nil {
			return
		}
	}
}

// Abort sends A-ABORT (service user) and closes. An association that has ended
// already is left alone.
func (a *Association) Abort() error {
	abort := Aborted{Source: abortByUser}
	a.interrupt(&abort)
	return nil
}

// lost names the cause of a failed read or write, and the event it is.
func (a *Association) lost(err error, doing string) error {
	if cause := a.Err(); cause != nil {
		return cause
	}
	if isTimeout(err) {
		e := evt15
		a.mu.Lock()
		if a.state == sta2 {
			e = evt18
		}
		a.mu.Unlock()
		_, err = a.happen(e, aborted(fault.Unavailable, Aborted{Source: abortByUser}, "the peer is silent: %s: time is up", doing))
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	_, err = a.happen(evt17, fault.New(fault.Unavailable, "connection lost while %s: %w", doing, err))
	return err
}

// violated ends the association because the peer broke the protocol.
func (a *Association) violated(kind fault.Kind, reason byte, format string, args ...any) error {
	abort := Aborted{Source: abortByProvider, Reason: reason}
	_, err := a.happen(evt19, aborted(kind, abort, format, args...))
	return err
}
