// Package virtual is where this node's shards come from (DESIGN §7, Code): those that
// rest here as such, and those that are cut, when somebody asks for them, from the
// hot copies of the packs that arrived here.
//
//	asker → held.Handler → [Source.Shard] → held.Store
//	                                      → node/archive, the pack's ciphertext → stripe.Copy, verified → the shard
//	[Scrub] → every hot copy against its root, within 30 days
//
// # Invariants
//
//   - Nothing is cut from a copy before all of it was read and led to the stripe's
//     root, and nothing leaves that does not lead to the shard's. A copy that was
//     marked as lost, went or rests elsewhere since counts as not verified.
//   - A copy that fails is not taken for rotten before it was read twice, and its own
//     record's root was compared: the head may be what is wrong.
//   - Reading for others, or for scrub, touches no list of what readers opened last.
//   - Memory for what was verified is bounded by Options.Bytes, whatever is asked for.
//
// # Concurrency
//
// A [Source] may be used from anywhere. A copy is verified once for all who wait, by
// a goroutine of the source, of which few run at one time; [Source.Close] ends them.
// [Scrub] has the one goroutine of its task. Locks are leaves, never held over I/O.
//
// # What it does not do
//
// It does not know which shard of a stripe counts as this node's (the seal says so),
// writes nothing but scrub's place, and repairs nothing: Options.Rotten is told.
package virtual
