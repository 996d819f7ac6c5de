// Package group is a node's part in the network (DESIGN §6): it runs Raft between
// real nodes, over cluster/port and cluster/call, and is what the rest of the node
// proposes to and asks.
//
// # Where it stands
//
//	journal, decisions → Propose, Decide → leader (here, or POST /raft/propose)
//	  → consensus → the catalogue of every node → AwaitApplied here → results
//
// # What it owns
//
//   - the streams: one Raft transport for what this node asks, and one for each
//     node that asks it, so that every message is known to come from the node
//     that its certificate names. Nodes are each other's candidates by id, never
//     by address;
//   - the log in raft/, copies that are being made in copy/, and checkpoints that
//     others copy in checkpoints/ of the data directory;
//   - admission: who leads asks the catalogue before it puts an entry into the
//     order, because what is in the log stays: whether its node is a member and has
//     signed it, whether it is the next of its journal, and whether all nodes can read
//     it, for one that they cannot stops them. What a member may put into the order at
//     most, and in vain, is bounded ([shares]);
//   - the membership: while it leads, it makes Raft's members those of the
//     catalogue, and chooses who votes. What is due next is decided by [plan], which
//     is pure;
//   - freshness: the leader is asked for its commit index, which it confirms with
//     a majority, once for all who ask at the same time;
//   - comparing: nodes compare the hashes of their states at equal indexes. One that
//     differs from most is fenced, over restarts too: it applies and proposes nothing
//     more, does not lead, and says so, until it has taken the catalogue anew from a
//     node that agrees with most. It does so by itself once;
//   - verifying: a copied catalogue is walked through once it is in use. One that is
//     broken is fenced as well, and nobody copies what is not verified.
//
// # Failure
//
// Without a majority proposals are fault.Unavailable; one that may yet be committed
// says so by consensus.ErrUnknownOutcome, and may be proposed again: the catalogue
// knows what it has taken. A node that the log does not lead to any more copies the
// catalogue of another: files by their hashes, in pieces that survive a cut and a
// crash, and put in place in one step. A network that has lost its majority for good
// goes on in a new generation ([Group.Recover]), in which the old one has no say.
//
// # Goroutines
//
// [Group.Run] owns consensus, and one goroutine each for confirming leadership, for
// polling the commit index, for the membership, for comparing, for verifying a
// copied catalogue, for taking a fenced one anew, for telling that somebody leads, and for expiring checkpoints. [Open] starts those of the transport, which end with [Group.Close]:
// one that accepts, one for each node that talks to this one, and the library's. A
// proposal that is forwarded has one while it waits.
package group
