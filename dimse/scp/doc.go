// Package scp serves DICOM associations: C-ECHO, C-STORE, C-FIND, C-MOVE, C-GET
// and storage commitment (PS3.4, PS3.7), for providers that do the work.
//
// It stands between [pelago/dimse/assoc], which moves messages, and node/ae,
// which knows who may do what. A [Server] asks its [Admitter] about each
// association request; the [Session] it gets holds the providers of that
// association, one method each. What the session does not provide is refused in
// negotiation ([Negotiate]).
//
// Invariants:
//   - Every request is answered by exactly one final response, or the
//     association ends.
//   - A C-STORE data set streams from the connection into the [Storer] in the
//     goroutine that reads; what a storer leaves unread is dropped before the
//     answer, so that a refused instance costs no association.
//   - Reading never waits for a C-FIND, C-MOVE, C-GET or N-ACTION: they run
//     beside it, at most as many as the negotiated window, so that C-CANCEL and
//     the responses of C-GET sub-operations are seen.
//   - Failures turn into statuses by one table, [dimse.KindStatus].
//   - A panic of a provider ends its association and nothing else.
//
// Goroutines: one per listener in [Server.Serve]; per association one that
// reads and serves C-STORE, one per running operation, and for a retrieval one
// that sends pending responses and one per sub-operation on its way. Serve
// returns when all of them have ended.
package scp
