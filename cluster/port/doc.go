// Package port is the one TCP port between nodes (DESIGN §5): TLS 1.3, mutual, and
// ALPN decides which [Service] gets a connection: Raft, gossip, or peer calls over
// HTTP/2. Join is the one protocol without a client certificate; there the joining
// node knows the server by the pin of its token.
//
// A connection's way in:
//
//	accept → limits by source and in all → handshake under a deadline
//	→ certificate of this network, node not revoked → the service's listener
//
// Whoever does not pass is closed and told nothing but a TLS alert, which is the
// same for all reasons; the reason is one line in the log, and of a flood a few
// lines and a count. A [Port] knows every authenticated connection, dialled ones
// too, by node: [Port.Drop] closes those of a node when it is revoked.
//
// In TLS 1.3 a client is through before the server has seen its certificate: a
// [Port.Dial] that returned says who the other node is, not that it takes us. A
// refusal shows at the first read.
//
// Listening and dialling are given from outside, so that networks run in memory
// (porttest) on the virtual time of testing/synctest.
//
// [Port.Run] owns the accepting goroutine and one for each handshake; nothing else
// is started. All methods are safe for concurrent use. Certificates are taken from
// authority.Credentials at each handshake, so a renewed one is used at once.
package port
