// Package bulk is where packs rest: a Pebble of its own that is only ever
// written by ingesting whole tables with ascending keys, and deleted from by
// range (DESIGN §4). What Pebble holds is written once and never rewritten by
// it: no automatic compaction runs, nothing passes its log or its memtables.
//
// A [Table] gathers blobs (a pack's ciphertext, a shard) into a sorted table
// beside Pebble's folder, and Commit makes it part of the store. A [Ref] names a
// blob for as long as it lives, also after its table was rewritten to give back
// the space of dead neighbours ([Store.Reclaim]): the rewritten table holds the
// same keys and replaces the old one in one step.
//
// Beside Pebble stands the ledger, a small append-only log: which tables were
// begun and committed, the lengths of their blobs, and which blobs are dead. It
// is what knows the blobs of a table that went missing, and it keeps table
// numbers from ever being given twice. Without the ledger, tables are adopted
// from what they hold.
//
// Invariants:
//   - After Commit returns, its blobs survive a crash bit for bit; before, they
//     are there whole or not at all.
//   - Every byte read was checked against the checksum of its block. A rotten or
//     missing range is reported through Options.Lost, and only then forgotten;
//     everything else goes on being served.
//   - Nothing is removed because it was not found: only what was deleted, what
//     Options.Lost was told of, and tables whose Commit never returned.
//
// Locks: Store.mu guards the tables' state and is never held over I/O; the
// ledger's own lock is held while it writes, so that its order is the state's
// order. Callbacks run without locks. All methods of a [Store] are safe for
// concurrent use. It starts no goroutines beside Pebble's. The bytes are
// specified in docs/formats/bulk.md.
package bulk
