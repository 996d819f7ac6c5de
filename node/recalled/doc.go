// Package recalled reads what another node stores from the shards of its packs, when
// that node is gone and nobody keeps a copy (DESIGN §7, Reads).
//
//	Series   → the catalogue's seals of a series and node → head and tail of each pack,
//	           one round trip (shard/recall) → opened by the study key → entries
//	           → which of them count → node/far's manifest, as its node would tell it
//	ReadPack → ranges of a pack's ciphertext from its shards, for node/far, which
//	           authenticates, shares, reads ahead and keeps them like those of a node
//
// It stands between shard/recall, which proves bytes and knows nothing of packs, and
// node/reach, which asks it where a node would have been asked.
//
// # Invariants
//
//   - Nothing comes out that does not lead to a root in a committed seal. What a holder
//     sends instead is told to [Options.Doubt] and never used.
//   - A manifest is whole if its instances are the set that the catalogue says that the
//     node has; else it comes with an error. It is never partial in silence.
//   - What a tombstone covers is not read, but for what was accepted over it.
//   - Bytes are written to nowhere, and nothing is allocated by a claimed length.
//
// # Concurrency
//
// All methods of [Client] may be used by many goroutines. It has none of its own but
// those of a call. Those who want the head of the same pack wait for one of them to get
// it. Client.mu is a leaf.
//
// # What it does not do
//
// It does not keep anything but the heads of packs that are being read, decides not
// who may read, and repairs nothing. Which version of an instance counts it reads from
// what was packed (decision 0050): an operator's later decision is not in it.
package recalled
