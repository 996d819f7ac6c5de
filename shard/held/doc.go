// Package held is a node as a holder of other nodes' shards (DESIGN §4, §7): it
// takes them in, signs receipts, gives their bytes back by ranges, and looks after
// them.
//
//	sender  Client.Upload → POST /held/shards ⇢ Handler → Store.Land
//	holder  names admitted, room reserved → stripe.Receive, as they come → a table of
//	        bulk/, several uploads a commit → one synced batch of rows → receipt
//	reader  Client.Range, Tail, Prove, and Leaves for shard/recall ⇢ Handler → Store.Shard → verified leaves
//
// # Invariants
//
//   - A receipt is signed only after the shard's bytes and rows are synced. What has
//     one is given up only by [Store.Drop], by name and with a [Reason] that was
//     checked; no call of a peer deletes.
//   - Nothing is taken before it was verified against itself and its name; a name
//     stands for one stripe root for ever.
//   - A shard describes itself. What a crash leaves in bulk/ without rows is named by
//     the next start and held; only what a durable row gives up is deleted there.
//   - Nothing leaves that does not lead to the shard's root. Rot is noted durably and
//     told of once, whoever meets it: scrub, a reader, or bulk itself.
//   - Tables are as large as DESIGN §4 wants them: shards of small ones are moved into
//     others, verified, which readers do not notice; beside them it takes a small part
//     of the time.
//   - No byte is taken without room, and none allocated by a claimed length.
//
// # Concurrency
//
// [Store], [Handler] and [Client] may be used by many goroutines. [Store.Run] has
// two, one that scrubs and one that merges tables and forgets reasons; a commit runs in that of an upload, for all
// that wait. Locks: Store.moving is held by whoever moves shards or gives them up, until
// that is done in bulk/ too, and by a copy that must have both alike ([Store.Still]);
// below it Store.changing, by whoever changes rows, over their synced batch; mu and those of the small parts are leaves, never held over I/O. Callbacks
// run without locks.
//
// # What it does not do
//
// It does not know who should hold what, when a stripe is sealed or a pack purged:
// node/ does, and gives the reasons. It opens nothing that is encrypted. The bytes
// are specified in docs/formats/held.md and docs/formats/peer.md.
package held
