// Package journal is a node's outbox: the durable, densely numbered,
// hash-chained log of facts that the catalogue must learn (DESIGN §6). In a
// network of one it feeds the catalogue itself.
//
// The archive calls Dirty for every instance that it has made durable. One
// goroutine ([Journal.Run]) asks the Source for absolute facts of the series
// that are due, writes them as a batch, synced, into the node's store, and then
// applies the batch to the catalogue under the batch's number. So
//
//   - a batch that was logged and not applied is applied by the next Open;
//   - a batch that was applied is skipped, for the catalogue knows its number;
//   - a series that was never logged lies beyond the durable cursor, and the next
//     Run announces it again. Facts are absolute: to hear one twice is harmless.
//
// The cursor is a local number: every instance up to it is in a logged fact. It
// stops before the lowest number that waits and before a gap, which may be an
// instance whose Dirty is still to come; a gap that stays open for gapGrace is
// taken for a number that was never used. Local numbers are therefore given when
// an instance is committed, and Dirty is called soon after.
//
// # Coalescing
//
// The first fact of a series goes out within 250 ms, which lets many series
// share a sync and an apply, then at most one a second, doubling to 30 s while the
// series keeps growing. Flush lets all out now. Settle does too, and waits; it
// waits for what was dirty when it was called, so that those who keep storing
// do not starve it.
//
// # Rows
//
// Under "j/" in the store: j/m is the state, j/b and the number (8 bytes, big
// endian) a batch: a protobuf Batch followed by its BLAKE3, to which the next
// batch refers. Rows that the catalogue has applied and synced are dropped.
package journal
