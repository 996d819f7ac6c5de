// Package schedule lives through the whole life of a pack in a network of three sites,
// with a crash at every step of it (DESIGN §7):
//
//	store → pack → stripe, seal → place → receipts → commit → evict → read back degraded
//	→ delete, tombstone, grace → purge: packs, shards → keys are forgotten
//
// The parts are the real ones, assembled as cmd/pelago does: archive, journal,
// catalogue, spread, held, virtual, protect, evict, recalled, reach, purge and the rings
// of keys, each node on a disk in memory that loses power (shard/bulk/bulktest). Only the
// order of entries (Raft, whose crashes have tests of their own), gossip and the network
// are made up, and time is virtual (testing/synctest).
//
// It has tests only. A step is a write, sync, rename, link or removal at the disk of a
// node. For each of them one life is lived in which the node, or the whole network, loses
// power just there, starts again from what was synced, and goes on; invariants are held
// against it at each commitment and at the end. A table of deliberate bugs, each put in
// through the interfaces between the parts, shows that the suite catches what has cost
// others their data. Others live in the tests of node/protect, node/repair, node/purge and
// node/evict.
package schedule
