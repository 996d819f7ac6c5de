// Package gossip tells a node which others are alive, how loaded and how far they
// are (DESIGN §5). It is hashicorp/memberlist (SWIM) over the gossip service of
// cluster/port: no UDP, no key of its own.
//
// Everything here is a hint. It never decides deletion, membership or commitment,
// and no right is taken from it: a member may say what it likes about another.
// What is sure is who spoke, as every connection is authenticated by node; nodes
// that the catalogue does not know are not listed.
//
// [Transport] carries memberlist's packets over one kept connection to each peer,
// from a bounded queue that drops when it is full, as UDP would; push/pull goes
// over connections of its own. It needs a listener and a way to dial, nothing
// else, so that porttest's network carries it on virtual time, and it never waits
// for a reader (memberlist's own MockTransport does, and hangs at shutdown).
//
// [Gossip.Run] owns memberlist and the transport, whose goroutines have ended when
// it returns: one accepts, one or two for each kept connection, one looks for
// members that gossip has lost. Methods are safe for concurrent use. The bytes are in docs/formats/network.md.
package gossip
