// Package relay goes around a cut link: a node that reaches both ends passes a
// connection on (DESIGN §7, Reads).
//
//	reader ── service [port.Relay]: "to node C" ──▶ relay ── TCP ──▶ C's port
//	   └───────────── TLS, mutual, the reader's certificate ─────────────┘
//
// [Server] is the relay, [Ways] the reader: an http.RoundTripper of peer calls that
// goes the direct way, and by a relay only to nodes that could not be dialled, until
// [Ways.Run] has dialled them again.
//
// # Invariants
//
//   - The two ends authenticate each other over the relay, as over the port: whoever is
//     asked knows the reader by its certificate and decides, audits and bounds as if it
//     had come by itself. The relay has no say in it, and reads nothing.
//   - A relay connects members to members only, at the addresses that it dials itself,
//     and passes on each byte once. It never asks another relay, so that there is one
//     hop, and no loop.
//   - What it has under way is bounded, in all and for each node, and ends when nothing
//     moves, when the node that asked is revoked, and with the port.
//
// # Concurrency
//
// [Server.Serve] owns a goroutine for each connection, and two more for one that is
// passed on. [Ways.Run] owns those that try direct ways again. Locks are leaves and not
// held over I/O.
//
// # What it does not do
//
// It does not know who reaches whom: [Options.Relays] tells, by gossip, which is a hint.
// It does not carry Raft or gossip, and does not say what is worth a detour: that is for
// who chooses to call over [Ways].
package relay
