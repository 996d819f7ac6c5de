// Package recall reads a pack's ciphertext back from its shards (DESIGN §7,
// Reads). It stands between whoever reads packs (node/far) and the calls to the
// nodes that hold shards ([Holders]).
//
//	Open    → head and tail of any of shards 0..m, one round trip → checked by the seal's root
//	ReadAt  → the columns of the range → leaves of one shard from one node
//	        → that node is dead, slow or rotten: the same leaves of any k others, decoded
//
// # Invariants
//
//   - No leaf is returned, or decoded from, that has not led to the root of its
//     shard in the head, whose own root is in the seal. Leaves that were decoded
//     have no proof of their own: they are made of proven ones, and the reader's key
//     authenticates them.
//   - What a node sends instead is told to [Options.Rotten] and never used.
//   - What can be recovered is: when fewer than k shards have all leaves of a range,
//     it is halved, down to single leaves.
//   - Bytes that are asked for twice to be sooner are at most a twentieth of the
//     others ([budget]). Other attempts take the place of one that failed, or of one
//     at a node known to be dead or slow, or that is long overdue.
//   - Nothing is allocated by a claimed length. A read takes memory for its range,
//     rounded out to leaves; decoding takes that k times and is bounded for all
//     reads together.
//
// # Choice
//
// [Peers] has an estimate for each way to a node, from what its answers took. A
// range is asked of the node of its column unless another way is far cheaper; the
// k others are the cheapest. A node that failed, lost two races in a row, or is
// suspected by gossip is avoided. After a pause, which doubles from a second to a
// minute, one request tries it beside those to others, until it answers as it should.
//
// # Concurrency
//
// [Client], [Pack] and [Peers] may be used by many goroutines. Readers who want the
// same leaves at the same time share one fetch, which lasts as long as one of them
// waits. No goroutine outlives the calls that need it. Locks are leaves and not held
// over I/O. There is no clock but time's, so tests run on virtual time.
//
// # What it does not do
//
// It keeps nothing, reads nothing ahead and opens nothing: that is for its caller. It
// does not know where shards are: the caller lists their places. It repairs nothing.
package recall
