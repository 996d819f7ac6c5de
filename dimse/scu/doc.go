// Package scu asks other DICOM applications for services: C-ECHO, C-STORE,
// C-FIND, C-MOVE, C-GET and storage commitment (PS3.4, PS3.7 §9 and §10).
//
// [Dial] makes a [Client] over one association. A [Sender] stores into one
// destination over as many associations as the presentation contexts of its
// instances need, by a [StorePlan]. An [Invoker] is the part of a client that
// sends requests and waits for their responses; package scp uses it for the
// requests that an acceptor makes (C-GET sub-operations, N-EVENT-REPORT).
//
// Invariants:
//   - A data set that is stored goes out exactly as its reader gives it.
//   - At most as many operations are outstanding as the peer agreed to; a
//     further one waits.
//   - Every wait for a response ends: by the response, by ctx, by a named time
//     limit, or with the association.
//   - Errors carry kinds (pelago/cluster/fault); a status other than success,
//     pending or warning is a [dimse.StatusError] in the error's tree.
//
// Concurrency: a client has one goroutine, which reads. It runs the handlers of
// incoming C-STORE and N-EVENT-REPORT requests, so that these read a data set
// as it arrives and must not start an operation on the same client and wait for
// it. All methods of Client and Sender may be called from several goroutines.
package scu
