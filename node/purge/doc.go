// Package purge has what was deleted go for good (DESIGN §2, §7 Purge), everywhere and
// in an order in which a crash at any step loses nothing and leaves nothing behind.
//
//	Delete → tombstone, with the network's time
//	Clock  ⇢ ticks; members ⇢ how far they are          seconds that have passed
//	Propose → archive.Parting ⇢ PurgeFact                the pack's origin; others if it is gone
//	Drop   ← Catalog.Gone: held shards, copies, own packs
//	members ⇢ that they dropped it; Propose ⇢ ForgetFact → Drop ← study keys, last
//
// The catalogue judges every step (replication/catalog, PurgeFact), alike on every node;
// this package proposes, and does what was decided.
//
// # Invariants
//
//   - Time passes by the monotonic clocks of nodes only. A node adds what has passed
//     since it saw the clock where it stands, and only if it still stands there: a wall
//     clock that jumps, another leader, a network that was off make it slower, and never
//     faster.
//   - Nothing is dropped here but what the catalogue says was purged, by its name. That
//     something is not found, not referenced or late is no reason, at no start either.
//   - That a member is past a tombstone, or has dropped what was purged, is what it has
//     committed itself, after it was durable.
//   - A key is given up when every member that counts has dropped what was under it.
//
// # Concurrency
//
//	goroutine        task            what it does
//	Purger.Clock     network_clock   ticks; says how far this node is
//	Purger.Propose   purge_decisions proposes what may go
//	Purger.Drop      purged          drops what was purged
//
// The other methods, and those of Graces and Holds, are safe for concurrent use.
//
// # What it does not do
//
// It deletes nothing that was not deleted by a client or an operator, and it does not
// decide what in a pack is deleted: its origin's archive does. Formats are in
// docs/formats/purge.md.
package purge
