// Package evict gives hot copies up when the disk fills, and only of packs that survive
// without them (DESIGN §4, §7 Eviction).
//
//	the disk above the high mark → packs not opened for long, the longest first
//	  1 checked   one stripe, all its receipts, no change of the layout, each holder at a site of its own
//	  2 proved    every other shard, by its holder, now
//	  3 written   the shard that is cut from the copy, at its owner of this site: a receipt
//	  4 told      that no shard is virtual any more; until the network has committed it, nothing goes
//	  5 proved    all shards, the one of 3 too; storage commitment's condition
//	  6 evicted   the archive's row, then its bytes
//
// # Invariants
//
//   - A copy goes only if, within Options.Fresh before, every shard of its stripe was
//     proved by its holder, all of them at different sites, and the committed seal
//     says that each is there and none is cut from the copy.
//   - What was read of seal and placement at the beginning is what they are at the
//     end; otherwise it begins anew.
//   - Nothing is remembered between steps but when packs were opened: what a crash
//     interrupts is found again by what is committed and what the holders say. Each
//     step may be done twice.
//   - Room that is kept for shards counts as used: while those of a lost site are made
//     anew the layout changes, and no copy may go. It makes copies go earlier, never one
//     that may not go.
//
// # Concurrency
//
// One goroutine, that of its task. All methods may be called from anywhere;
// [Evict.Touched] does no I/O.
//
// # What it does not do
//
// It reads nothing back: the archive reads an evicted pack through what the node gives
// it. It repairs nothing: a shard that is not proved is told to Options.Doubt.
package evict
