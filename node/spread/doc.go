// Package spread turns this node's packs into stripes: it encodes them, brings their
// shards to the nodes of the row, and has the network learn of it (DESIGN §7, Pack,
// Code, Receipts, Growth).
//
//	archive (a pack rests) → plan → encode → upload ⇢ receipts → rows → journal ⇢ catalogue
//
// A pack in a network of several sites has one stripe at a time, or two while it
// grows. Its row (docs/formats/spread.md) has the stripe's head, who holds which
// shard by a receipt, and what the network was told. Nothing else is remembered: a
// crash costs the work since the last row and nothing more, for every step may be
// done again. The ciphertext of a pack never changes, so the same generation has the
// same root whenever it is encoded; a shard that is offered twice is known; facts are
// absolute. What a crash kept from having a row is found by comparing all packs with
// the rows (survey), and so are packs from before the network had other sites.
//
// What the network must learn of keys and packs are numbered rows, for the journal
// (journal.Packs): [Spread.Tell] writes those of others (repair) too, so that one
// node speaks with one voice. What the network refuses is compared with the catalogue
// and told anew from what is committed there, or the pack is striped as the next
// generation.
//
// # Invariants
//
//   - A receipt bit is told only after the row with it is durable, and that only
//     after the holder's signed receipt came; or, for the shard that is cut from this
//     node's copy, after the whole copy was encoded.
//   - Two shards of a stripe are never told to be at one site.
//   - A former generation is told to be withdrawn only by one with receipts for the
//     loss of as many sites.
//   - A row's number is above all that were given before, and a key has one below
//     the seals that need it.
//
// # Pace
//
// While instances arrive nothing is begun but what has waited for a minute, or what
// somebody waits for ([Spread.Hurry]); and what is under way makes pauses.
//
// # Concurrency
//
//	goroutine   task            what it does
//	drive       spread          plans and encodes, one pack or batch at a time
//	flight      by drive        uploads of one round: at most maxFlights
//	survey      spread_survey   compares packs with rows when the placement has changed
//	upload      by a flight     of shards that come to rest at this node itself
//
// The lock of the ledger is held while rows are written: that is what keeps the order
// of numbers. All methods are safe for concurrent use.
//
// # What it does not do
//
// It does not serve the shard that stays virtual (node/virtual), move shards whose
// row has changed or that were lost (node/repair), or stripe packs of other nodes,
// although they are gone, or of which this node's copy is lost. One whose copy was
// evicted it reads from its shards (decision 0059).
package spread
