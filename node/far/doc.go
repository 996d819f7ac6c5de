// Package far is the protocol by which one node reads another's archive, both
// sides of it (DESIGN §7, Reads). It stands between node/archive, whose rows and
// packs it serves and whose remote instances it fetches, and cluster/call.
//
//	asker  Client.Open → POST /archive/open → manifest, what is read first before or behind it
//	       Reader.ReadAt → segments here? → fetches, several MiB in flight
//	                     → GET /archive/pack, /archive/staged, or Packs (shards)
//	                     → authenticated → blocks
//	holder Handler → Source (*archive.Archive) → rows, ciphertext, staged bytes
//
// # Invariants
//
//   - What travels of a pack is its ciphertext. Its study key goes sealed to the
//     asker alone, and only with a manifest, which is audited.
//   - Nothing of a pack is shown to a reader, or kept, before its segment is
//     authenticated; a peer that sends other bytes has failed, and another holder
//     is asked. The root is checked when the whole pack is here.
//   - While it stays in memory, a segment is fetched once, however many read it.
//   - An instance that a tombstone covers is in no manifest, be it of what a node
//     holds or of what another told it.
//   - All that comes from a peer is bounded and checked before it is believed;
//     nothing is allocated by a claimed length.
//
// # Concurrency
//
// [Handler], [Client], [Series] and [Reader] may be used by many goroutines. A
// fetch, the rest of an opening and the keeping of a pack each run in a goroutine
// of the [Client], which [Client.Close] ends and waits for. One lock, Client.mu,
// guards the bookkeeping of segments; it is never held over I/O, copying or
// decryption.
//
// # What it does not do
//
// It does not know who holds a series (the catalogue does), keep packs
// ([Keeper]), decode instances, or decide who may read what: members may. The
// bytes are specified in docs/formats/peer.md.
package far
