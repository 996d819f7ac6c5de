package assoc

import "pelago/dimse/pdu"

// state is a state of the upper-layer protocol machine (PS3.8 tables 9-1 to 9-5).
type state byte

// The states; sta4 never rests here, since connections come opened.
const (
	sta1  state = iota + 1 // idle
	sta2                   // transport connection open, awaiting A-ASSOCIATE-RQ
	sta3                   // awaiting local A-ASSOCIATE response
	sta4                   // awaiting transport connection
	sta5                   // awaiting A-ASSOCIATE-AC or -RJ
	sta6                   // association established
	sta7                   // awaiting A-RELEASE-RP
	sta8                   // awaiting local A-RELEASE response
	sta9                   // release collision, requestor: awaiting local A-RELEASE response
	sta10                  // release collision, acceptor: awaiting A-RELEASE-RP
	sta11                  // release collision, requestor: awaiting A-RELEASE-RP
	sta12                  // release collision, acceptor: awaiting local A-RELEASE response
	sta13                  // awaiting the transport connection's close
)

// event is an event of PS3.8 table 9-10.
type event byte

// The events.
const (
	evt1  event = iota + 1 // A-ASSOCIATE request (local user)
	evt2                   // transport connection confirmation
	evt3                   // A-ASSOCIATE-AC PDU
	evt4                   // A-ASSOCIATE-RJ PDU
	evt5                   // transport connection indication
	evt6                   // A-ASSOCIATE-RQ PDU
	evt7                   // A-ASSOCIATE response, accept (local user)
	evt8                   // A-ASSOCIATE response, reject (local user)
	evt9                   // P-DATA request (local user)
	evt10                  // P-DATA-TF PDU
	evt11                  // A-RELEASE request (local user)
	evt12                  // A-RELEASE-RQ PDU
	evt13                  // A-RELEASE-RP PDU
	evt14                  // A-RELEASE response (local user)
	evt15                  // A-ABORT request (local user)
	evt16                  // A-ABORT PDU
	evt17                  // transport connection closed
	evt18                  // ARTIM timer expired
	evt19                  // unrecognized or invalid PDU
)

// effect is what an action asks of the driver; several are or-ed.
type effect uint32

// The effects, in the order in which the driver carries them out.
const (
	stopARTIM      effect = 1 << iota
	connect               // TRANSPORT CONNECT request
	sendRQ                // A-ASSOCIATE-RQ
	sendAC                // A-ASSOCIATE-AC
	sendRJ                // A-ASSOCIATE-RJ
	sendData              // P-DATA-TF
	sendReleaseRQ         // A-RELEASE-RQ
	sendReleaseRP         // A-RELEASE-RP
	sendAbort             // A-ABORT, source service-user
	sendPAbort            // A-ABORT, source service-provider
	indicate              // indication or confirmation to the local user
	indicateAbort         // A-ABORT or A-P-ABORT indication
	startARTIM            // (re)start the timer
	closeTransport        // close the connection
)

// facts are what some actions depend on beside state and event.
type facts struct {
	requestor  bool // we asked for the association (AR-8)
	acceptable bool // the provider accepts the A-ASSOCIATE-RQ (AE-6)
}

// step is the machine: the action for an event in a state, its effects and the
// next state. It reports false for a cell that the standard leaves empty: the
// event cannot occur, or the local user may not ask for it now.
func step(s state, e event, f facts) (action, effect, state, bool) {
	a := transitions[s][e]
	if a == none {
		return none, 0, s, false
	}
	row := actions[a]
	switch {
	case a == ae6 && !f.acceptable:
		return a, stopARTIM | sendRJ | startARTIM, sta13, true
	case a == ar8 && !f.requestor:
		return a, row.effects, sta10, true
	}
	return a, row.effects, row.next, true
}

// received returns the event of a PDU's arrival.
func received(t pdu.Type) event {
	switch t {
	case pdu.TypeAssociateRQ:
		return evt6
	case pdu.TypeAssociateAC:
		return evt3
	case pdu.TypeAssociateRJ:
		return evt4
	case pdu.TypeData:
		return evt10
	case pdu.TypeReleaseRQ:
		return evt12
	case pdu.TypeReleaseRP:
		return evt13
	case pdu.TypeAbort:
		return evt16
	}
	return evt19
}
