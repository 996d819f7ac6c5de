package assoc

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/pdu"
)

// Accept reads the request from conn, asks decide, answers, and returns the
// association; on rejection or any failure the connection is closed and the
// error tells why (*Reject, *Aborted, or fault.Invalid/Protocol). ctx governs
// the negotiation only. A TLS handshake that has not happened yet falls under ARTIM like
// the request itself.
func Accept(ctx context.Context, conn net.Conn, config Config, decide func(context.Context, *Request) Decision) (*Association, error) {
	a := open(conn, config, false)
	stop := a.watch(ctx)
	err := a.established(a.accept(ctx, decide))
	if late := a.unwatch(stop); err == nil {
		err = late
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// established ends the association if it could not be negotiated, whatever
// the reason. The caller holds no right.
func (a *Association) established(err error) error {
	if err != nil && a.Err() == nil {
		err = a.giveUp(err)
	}
	return a.ended(err)
}

// accept negotiates as acceptor.
func (a *Association) accept(ctx context.Context, decide func(context.Context, *Request) Decision) error {
	a.reading <- struct{}{}
	rq, err := a.readRequest()
	<-a.reading
	if err != nil {
		return err
	}
	request := requestOf(rq)
	request.Remote, request.TLS = a.conn.RemoteAddr(), tlsState(a.conn)
	a.request, a.peer = request, request.UserInfo
	if err := a.setSendMax(rq.User.MaxLength); err != nil {
		return err
	}
	asked := *request
	asked.Contexts = slices.Clone(request.Contexts) // decide may fill in its answers there
	d := decide(ctx, &asked)
	if d.Reject != nil {
		_, err := a.happen(evt8, d.Reject.fault()) // AE-8: finish sends it
		return err
	}
	ac, agreed, err := answer(rq, request, d, a.config)
	if err != nil {
		return a.giveUp(err)
	}
	b, err := ac.AppendAC(nil)
	if err != nil {
		return a.giveUp(err)
	}
	if d.Idle > 0 {
		a.idle = d.Idle
	}
	a.setAgreed(agreed, ac)
	a.writing <- struct{}{}
	defer func() { <-a.writing }()
	if _, err := a.happen(evt7, nil); err != nil { // AE-7
		return err
	}
	return a.write(b)
}

// readRequest reads the A-ASSOCIATE-RQ. The caller has the right to read.
func (a *Association) readRequest() (*pdu.Associate, error) {
	if _, err := a.happen(evt5, nil); err != nil { // AE-5: the timer runs
		return nil, err
	}
	a.in.stall = a.config.ARTIM
	b, err := a.need(pdu.HeaderBytes, forPDU)
	if err != nil {
		return nil, err
	}
	h := pdu.ParseHeader(b)
	if h.Type != pdu.TypeAssociateRQ {
		_, _, err := a.nextPDU(forRest)
		return nil, err
	}
	if err := h.Check(a.config.MaxPDU); err != nil {
		return nil, a.violated(fault.Invalid, abortInvalidValue, "%w", err)
	}
	a.in.r += pdu.HeaderBytes
	body, err := a.body(int(h.Length))
	if err != nil {
		return nil, err
	}
	rq, err := pdu.ParseAssociateRQ(body)
	if err != nil {
		return nil, a.violated(fault.Invalid, abortInvalidValue, "%w", err)
	}
	var refusal *Reject
	switch {
	case rq.Version&pdu.Version == 0: // PS3.8 table 9-11: only bit 0 is looked at
		refusal = &Reject{RejectPermanent, RejectByACSE, ReasonProtocolVersion}
	case rq.Application != pdu.ApplicationContext:
		refusal = &Reject{RejectPermanent, RejectByUser, ReasonApplicationContext}
	default:
		_, err := a.happen(evt6, nil) // AE-6, acceptable
		return rq, err
	}
	a.refused = true
	_, err = a.happen(evt6, refusal.fault()) // AE-6, not acceptable: finish sends it
	return nil, err
}

// body reads the body of an A-ASSOCIATE of n bytes; what it takes grows with
// what arrives, not with n.
func (a *Association) body(n int) ([]byte, error) {
	in := &a.in
	var body []byte
	for len(body) < n {
		if in.r == in.w {
			if err := a.fill(forRest); err != nil {
				return nil, err
			}
		}
		take := min(n-len(body), in.w-in.r)
		body = append(body, in.buf[in.r:in.r+take]...)
		in.r += take
	}
	return body, nil
}

// giveUp ends the association because of a fault of our own.
func (a *Association) giveUp(err error) error {
	_, err = a.happen(evt15, &ending{err: err, abort: Aborted{Source: abortByUser}})
	return err
}

// setSendMax takes the peer's maximum length.
func (a *Association) setSendMax(peer uint32) error {
	a.sendMax = sendCap
	if peer == 0 {
		return nil
	}
	if peer < leastPeerMax {
		return a.violated(fault.Invalid, abortInvalidValue, "the peer takes PDUs of no more than %d bytes", peer)
	}
	a.sendMax = int(min(peer, sendCap))
	return nil
}

// setAgreed takes what was negotiated.
func (a *Association) setAgreed(agreed []Context, ac *pdu.Associate) {
	a.contexts = agreed
	for i, c := range agreed {
		if c.Result == Acceptance {
			a.accepted[c.ID] = byte(i + 1)
		}
	}
	a.extended = extendedMap(ac.User.Extended)
	a.invoked, a.performed = 1, 1
	if w := ac.User.Window; w != nil {
		a.invoked, a.performed = w.Invoked, w.Performed
	}
}

// tlsState returns the connection's TLS state, or nil.
func tlsState(conn net.Conn) *tls.ConnectionState {
	for {
		if t, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
			state := t.ConnectionState()
			return &state
		}
		under, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = under.NetConn()
	}
}

// Dial requests an association over conn. A rejection is a *Reject, an abort an
// *Aborted; the connection is closed then. ctx governs the negotiation only, which the
// peer must end within ARTIM.
func Dial(ctx context.Context, conn net.Conn, config Config, request Request) (*Association, error) {
	a := open(conn, config, true)
	rq, sent, err := propose(request, a.config)
	var b []byte
	if err == nil {
		b, err = rq.AppendRQ(nil)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	a.request = sent
	stop := a.watch(ctx)
	err = a.established(a.requestAssociation(b))
	if late := a.unwatch(stop); err == nil {
		err = late
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// requestAssociation negotiates as requestor; b is the A-ASSOCIATE-RQ.
func (a *Association) requestAssociation(b []byte) error {
	a.writing <- struct{}{}
	err := a.sendRequest(b)
	<-a.writing
	if err != nil {
		return err
	}
	a.reading <- struct{}{}
	defer func() { <-a.reading }()
	ac, err := a.readAnswer()
	if err != nil {
		return err
	}
	a.peer = UserInfo{ac.User.ImplementationClassUID, ac.User.ImplementationVersion}
	a.setAgreed(agree(a.request, ac), ac)
	return a.setSendMax(ac.User.MaxLength)
}

// sendRequest sends the A-ASSOCIATE-RQ. The caller has the right to write.
func (a *Association) sendRequest(b []byte) error {
	for _, e := range []event{evt1, evt2} { // AE-1: conn is open already; AE-2
		if _, err := a.happen(e, nil); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.timer = time.Now().Add(a.config.ARTIM)
	a.mu.Unlock()
	return a.write(b)
}

// readAnswer reads the A-ASSOCIATE-AC. The caller has the right to read.
func (a *Association) readAnswer() (*pdu.Associate, error) {
	h, _, err := a.nextPDU(forRest)
	if err != nil {
		return nil, err
	}
	if h.Type != pdu.TypeAssociateAC { // the state machine lets nothing else by
		return nil, io.ErrUnexpectedEOF
	}
	body, err := a.body(int(h.Length))
	if err != nil {
		return nil, err
	}
	ac, err := pdu.ParseAssociateAC(body)
	if err != nil {
		return nil, a.violated(fault.Invalid, abortInvalidValue, "%w", err)
	}
	return ac, nil
}
