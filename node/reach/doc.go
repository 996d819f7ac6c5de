// Package reach opens any study of the network through the faces of this node: it
// is node/archive for what is stored here, and for the rest reads other nodes
// (DESIGN §7, Reads).
//
//	Select   → node/archive → the catalogue: who else holds the series → is it whole
//	           here? → manifests: in memory, in store/ (node/cached), or of node/far,
//	           one round trip a series, in which what is read first comes too
//	           ([archive.Hint]); of a silent node by the shards of its packs
//	           (node/recalled), or of others whom it had told → one list
//	Headers  → the manifest
//	Open     → what is here; if that is lost, the instance at another node, a copy that
//	           one keeps of our pack, or its shards; it is fetched back in the background
//	         → a copy in bulk/ (node/cached) → node/far: ranges of the pack, of its
//	           node, of one that keeps a copy, or of shards → the same instance at
//	           another node
//
// # Invariants
//
//   - A SOP Instance UID is listed once: the instance that is stored here, else that
//     of the node that announced its series first.
//   - What a tombstone covers is listed nowhere, whatever other nodes say.
//   - A listing is never silently partial: what nobody tells of now is an error with
//     [archive.Missing] in its tree, in its place.
//   - An opened instance could be had when it was opened: a copy was here, bytes of
//     it had come, or a node had just answered. One that is read whole and in order
//     was hashed: its last bytes come only if it is what was stored.
//   - In a network of one, and for what is whole here, nothing is asked of anybody.
//
// # Concurrency
//
// [Reader] may be used by many goroutines and has none of its own but those of a
// call, and one for each manifest that is coming, which those who want it share, whose
// time is bounded, and which [Reader.Close] waits for. Locks are leaves, but that of an
// opened instance: it is held while another source of its bytes is looked for.
//
// # What it does not do
//
// It does not carry bytes between nodes (node/far), keep them (node/cached), match
// queries (query), or decide who may do what.
package reach
