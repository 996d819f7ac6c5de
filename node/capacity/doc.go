// Package capacity tells how many bytes of shards each node owes: what the layout in
// force and the seals in the catalogue say that it is to hold; and how many it would have
// to take in if a site were lost (DESIGN §5, §7).
//
//	catalog.EachSlot (sums by group and position, kept by Apply) ─┐
//	placement.State (which node is at them)                      ─┼→ Count → Report → status, metrics
//	layout.Compute without one site, for each (what moves then)  ─┘         → Room → node/evict, node/cached
//
// Bytes owed are those of the columns and of parity: a shard at rest has hashes, and the
// first of them a manifest, of about a hundredth more. A shard that is cut from its
// origin's copy, at the site that its row names, is owed by nobody. What a node holds of
// what it owes, its repair knows, and gossip tells.
//
// Count is pure. A Report is never changed; Report never blocks, and may be called from
// anywhere. One goroutine (task capacity) makes the next one when the layout has
// changed, and every few seconds: nobody who looks has anything counted. It computes the
// layout of one more lost site a second, until it has all of them. It decides nothing,
// moves nothing, refuses nothing (decision 0064), and does not know what rests where.
package capacity
