// Package keyring sees to it that the network's keys are where they are to be
// (DESIGN §7, Keys): its epoch keys at every member that may open what is stored,
// and every node's study keys, wrapped, beside this node's own.
//
//	First | turn ⇢ registry ⇢ Follow → keys/epochs      epoch keys, sealed to members
//	catalogue's study keys ⇢ Studies → keys/studies     wrapped study keys of others
//	Handler                                             what of both is durable here
//
// The network's memory is the catalogue's registry: a record for each epoch, which
// tells its key from any other, and an envelope for each epoch and member: the key,
// sealed to that member. Who holds an epoch gives it to members that lack it
// ([Keeper.Give]); [Keeper.Follow] opens what was sealed to this node. A member that
// joins gets all epochs that ever were. A witness gets none, nor does a node whose
// sealing key is not proved to be its own, or that was removed.
//
// When a node is removed the epoch is turned: one decision makes a new epoch and
// seals it to the members that are left. New study keys are wrapped under it; what
// the removed node held it holds.
//
// All changes are decisions made from records that they name (package member), so
// that of several nodes that do the same work one does it, and a crash leaves
// nothing by half: what a decision has not done, the next one does. The leader goes
// first, others wait a few seconds.
//
// # Concurrency
//
//	goroutine        task         what it does
//	Keeper.Follow    epochs       reads the records, keeps what is sealed to this node
//	Keeper.Give      envelopes    proposes what is lacking
//	Studies.Run      study_keys   keeps other nodes' study keys
//
// All other methods are safe for concurrent use. Records are in
// docs/formats/network.md, what rests in keys/ in docs/formats/keys.md.
package keyring
