// Package member is a node's membership in its network (DESIGN §5): how it becomes
// a member, what it knows of the others, and what it decides about them.
//
//	Open | Found | Join → Membership        papers under keys/, certificate
//	Catalog → Registry                      members, revocations, addresses, in memory
//	Office ⇢ Decider → Catalog              tokens, admission, drain, removal, renewal
//
// The network's memory is the catalogue's registry: the kinds "member" and
// "revoked", which the catalogue reads itself, "ticket" and "signer". Every change
// is one decision of the network whose conditions name the records that it was
// made from, so that of two that cross one is made again. [Registry] keeps what is
// asked at every handshake in memory, as of a few milliseconds after the catalogue
// has applied it, and a removed node's connections are closed then.
//
// A node that has just joined knows nobody until the catalogue has come: until
// then it knows those whom the node that let it in named (keys/peers).
//
// Who may sign is in the catalogue too: the authority's key, sealed to the nodes
// that [Office] chooses, each of which lets others in. A node that may not sign
// carries requests to one that may.
//
// Goroutines are those of [Registry.Run] and of the office's tasks, which the
// caller runs: [Office.Serve], [Office.Keep], [Office.Renew], [Office.Watch].
// All methods are safe for concurrent use. Records are in docs/formats/network.md.
package member
