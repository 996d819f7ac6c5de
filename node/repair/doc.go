// Package repair brings a node the shards that its rows give it, and lets go of those
// that others have proved to hold (DESIGN §3, A site dies; §7 Repair, rebalance).
//
//	layout, seals, held.Store → walk → what is lacking here, most exposed first
//	  → who holds the same shard (1×), else k others, decoded → stripe.Rebuild, against the root
//	  → held.Store.Land → news of the seal
//	what is here and belongs to another → its receipt and proof → held.Store.Drop
//	rot that anybody met → that node looks → lost → in line before all others
//
// A lost site, a site that came, a node that is drained, a shard that rotted and one
// that a substitute took in are the same to it: a row says that a shard belongs here,
// and it is not here. Every node does this for itself.
//
// # Invariants
//
//   - There are no locks between nodes, and no durable queue: what is lacking follows
//     from layout, seals and store at any moment. Every step may be taken twice, by two
//     nodes, or not to its end.
//   - Nothing is written that does not lead to the stripe's root in the seal. Each leaf
//     that a shard is made from has led to its own root before.
//   - Nothing is dropped but by a reason that was checked now: another node, at which
//     the committed seal counts the shard, gave a receipt for it and proved a leaf that
//     was chosen at random; or a later generation has taken the stripe's place, and as
//     many holders of that one as the network promises said now that they have it.
//     That a shard is not known, not referenced or late is no reason. While a layout
//     changes nothing is dropped at all.
//   - A class of exposure has its own room in the queue, and what could not be had
//     waits, so nothing that cannot be brought keeps what can be from being brought.
//   - That this node has what a version of the layout gives it is said after one whole
//     walk that found nothing lacking, under that version.
//   - News is worked out from what is committed at the moment when it is told, and
//     again until the catalogue says it. A shard that is gone, and cannot be had again
//     within moments, is told of.
//   - Others go first: beside readers and stores it takes little, less when the
//     processors are busy, and comes to an end none the less ([pacer], [Behind]). Small
//     shards land together then.
//     A link is asked for no more at a time than it carries ([flights]), and what came
//     of a large shard is not asked for again while the attempt lasts (decision 0061).
//   - Memory is bounded: the queue, what waits, news, doubts; windows on their way by
//     Options.Memory.
//
// # Concurrency
//
//	task             goroutines  what they do
//	repair           1           walks
//	                 Workers     bring a shard each; of each some read windows ahead
//	repair_news      1           tells
//	repair_doubts    1           tells nodes to look, looks, asks sources for their load
//	repair_surplus   1           asks for proofs, and drops
//
// Locks are leaves, never held over I/O but that of Rows, which is memory. Doubt, OnLost
// and Status may be called from anywhere.
//
// # What it does not do
//
// It does not decide layouts or who is lost (node/placement), seal packs (node/spread),
// or purge. It does not stripe packs anew whose origin is gone: they keep the code that
// they have, whole, until the origin is back. What peers call is specified in
// docs/formats/repair.md.
package repair
