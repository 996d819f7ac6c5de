// Package journal is a node's outbox: the durable, densely numbered, signed and
// hash-chained log of facts that the network must learn (DESIGN §6).
//
// The archive calls Dirty for every instance that it has made durable. One
// goroutine ([Journal.Run]) asks the Source for absolute facts of the series that
// are due, writes them as batches, synced, into the node's store, and tells them
// to the catalogue here as facts ahead of what is committed. A second one, the
// sender, puts the batches into the network's order, one after another. Nobody
// else waits for the network: not Dirty, not Settle, not who stores.
//
// # Once
//
// The catalogue keeps a committed cursor of each node's journal: incarnation,
// number and hash of the last batch, and takes only the batch that follows. So
// the sender may propose a batch as often as it likes, and after a failure, or
// an answer that never came, asks the cursor what became of it and goes on behind
// it. A cursor that names what this log does not hold under these numbers, or
// lacks what this log has dropped, means that the two have different pasts: this
// node, or the network, was restored from a backup. Then a new incarnation begins,
// numbered from 1, that announces everything again from local number 0; nothing
// is ever logged under a number that may have been used. Facts are absolute, and
// their AsOf grows with the incarnation: to hear one twice is harmless, and to
// hear an old one late is, too.
//
// A network that refuses the node itself (fault.Denied) is not asked again until
// the node's membership changes; logging goes on.
//
// # Nothing is lost
//
// The durable cursor is a local number: every instance up to it is in a logged
// fact. It stops before the lowest number that waits and before a gap, which may
// be an instance whose Dirty is still to come; a gap that stays open for gapGrace
// is taken for a number that was never used. Local numbers are therefore given when
// an instance is committed, and Dirty is called soon after. A start tells the
// catalogue again what was logged and is not committed, and announces what lies
// beyond the cursor.
//
// # Rarely
//
// A fact costs bytes at every site, so a series is logged at first within 250 ms,
// which lets many series share a batch, then ever more rarely while it keeps
// growing, and once more when its association has ended (Ended). Settle makes the
// catalogue here know everything, and logs nothing that is not due.
//
// While the network takes nothing, for days perhaps, no more than maxBacklog
// batches are logged. What comes then is told here and left out: only the lowest
// local number is remembered, before which the durable cursor stays. Once the
// network takes batches again, the Source is walked from there, and each series is
// logged as it is by then, once. Pauses after failed proposals grow to 10 s, and end
// when the network seems to be there again ([Journal.Retry]).
//
// # Keys and seals
//
// What the network must learn of this node's packs are durable rows of its own
// ([Packs]), numbered as they are written; [Journal.Offer] says that there is a new
// one. They need no coalescing: a run of them is logged at once, but for what the
// catalogue has, under a cursor of their own, which is the number of the last row. A
// seal whose stripe is committed is told as what has changed of it. What is known of
// series goes first: rows are read only while no more than half of maxBacklog waits.
// A new incarnation goes through all rows again, and logs what is lacking.
//
// # Rows
//
// Under "j/" in the store (docs/formats/journal.md). Rows of batches that are
// committed, and applied by a catalogue that is synced, are dropped, but for the
// last one: a node that finds its catalogue behind asks the network with it.
//
// # Goroutines
//
// Run's owns the rows, the state and the coalescer's decisions; the sender reads
// rows, and asks Run to begin a new incarnation. Both end with Run.
package journal
