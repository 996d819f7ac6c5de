// Package stripe makes, checks and reads the bytes of shards (DESIGN §7, Code and
// Integrity). It stands between shard/seal, whose ciphertext is a codeword's data,
// and whatever keeps shards or sends them.
//
// A [Coder] encodes a ciphertext into shards, reading it once, and makes any leaves
// of any shard from k others. A shard describes itself: the same bytes rest at a
// holder ([Open]) and travel ([Receive]). Its [Head] is the same for all shards of
// a stripe, and checked by the stripe root, which is all that a seal has to carry.
// A full copy of the ciphertext serves every shard as if it were stored ([Copy]).
//
// Invariants:
//   - Nothing counts before its call returned without an error: what was written
//     until then is void.
//   - Parity was decoded again, from a subset that holds all of it, and compared
//     with the data, before [Coder.Encode] returns; what was encoded has the root
//     that the ciphertext had when it was sealed.
//   - What leaves a [Shard] leads to the shard's root.
//   - The zeros that stand for what a column lacks are in no shard and are taken
//     from no one: bytes beyond a shard's end are refused, and what is recovered
//     there must be zeros.
//   - Memory is bounded by windows of rows, and by 32 bytes for each leaf that was
//     really read; never by what a length claims.
//
// It does not know who holds what, opens nothing that is encrypted, and keeps
// nothing: there is no clock, no disk and no goroutine. A [Coder], a [Copy] and a
// [Shard] are safe for concurrent use. The bytes are specified in
// docs/formats/shard.md.
package stripe
