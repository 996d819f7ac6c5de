// Package cached keeps copies of packs that other nodes store, and what they
// told of the series that the packs are of, so that what was opened once opens
// again without them: from the disk, and while they are away (DESIGN §1, cached
// copy).
//
//	node/far reads a pack whole, checks its root → [Store.Keep] → a table of bulk/
//	→ a row in store/ → node/reach opens it from [Store.Plaintext]; others get it
//	through node/far by [Store.Ciphertext]
//
// Invariants:
//   - What is here is never the only copy. Anything may be dropped at any time
//     and is fetched again. Of bulk/ nothing but [bulk.Cached] is written or
//     deleted.
//   - Copies stay below Options.Limit. Room is made and reserved before a pack is
//     written: those that were read longest ago go first. While the disk is nearly
//     full, copies give way to what it is for.
//   - A row is written after its table is durable, and dropped before its blob. A
//     start drops rows without a blob and blobs without a row; so a crash costs a
//     copy at most.
//   - A pack that is too long for node/far's memory comes while it is kept: into a
//     table of its own, whose root is checked before a row names it.
//   - Only whole packs are here. One whose bytes turn out rotten is dropped
//     ([Store.Discard], [Store.Verify]).
//
// Concurrency: all methods of [Store] may be called from anywhere; [Store.Run] is
// its only goroutine. Locks: writing is held by whoever writes the open table or
// evicts, over that I/O; mu below it is a leaf, never held over I/O.
//
// It does not know who stores a pack, nor what is in it.
package cached
