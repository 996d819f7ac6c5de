// Package protect knows what survives (DESIGN §2, storage commitment success).
//
//	node/ae  Committed → where the instance rests (archive.Resting)
//	  still staged → archive.PackSeries, now
//	  packs        → not sealed for the network's t: spread.Hurry, and wait for the seal
//	               → sealed: ask ⇢ its holders: receipt, leaf; the seal, the key
//	  found        → "committed", for some seconds
//	node/admin  Study, Studies: the same by receipts and hints, asking for no proof
//
// # The condition
//
// A pack survives the loss of any t sites when one stripe of it has k+t different
// shards on as many different sites, its manifest with t+1 of them, and t+1 sites of
// members that have its seal applied and can open its key ([lacks], which is pure).
// Every part of it is confirmed by a call that is answered after the question whether
// it survives came up: a receipt for that stripe root, a leaf chosen at that moment, the
// applied seal, the key that opens. What seals say, and gossip, choose whom to ask and
// never stand for an answer.
//
//   - A site counts once, and so does a shard.
//   - The virtual shard, which is cut from the origin's copy, counts for the origin's
//     site, under the index that the seal gives it, and only while the copy verifies:
//     at this node all of it is read again.
//   - Nodes that were removed, whose site is declared lost, and witnesses do not count.
//   - t and the layout are those of the end of the log, which the leader confirms
//     first. A node that cannot ask it commits nothing: its t may be an old one.
//   - Where there is one site only, t is 0, and the archive reads the instance back. As
//     soon as a member of another site is known that is not so any more, and while other
//     members are known the leader is asked first: a catalogue that is behind since
//     before there was a layout must not pass for a network of one.
//
// # Durable
//
// An applied seal is durable at that node: Raft's entries are synced to its log before
// they are applied, and a copied catalogue is durable when it is put in place. A key
// that opens is in the ring's files, synced, and so is its epoch. That it opens is
// tried; the place in the order of keys (keyring.Held) is not asked for, for after a
// recovery of the network the same place may be of another key.
//
// # Concurrency
//
//	task               what it does
//	pack_awaited       packs series that somebody waits for
//	protection         looks at packs that somebody waits for; up to four looks, each of
//	                   which asks every node in calls beside each other
//	protected_studies  counts
//
// All methods are safe for concurrent use, and [Protect.Committed] does not wait for
// other nodes, but for the leader where t may be 0. One lock guards what is waited for;
// it is not held over I/O. All times are those of package time (testing/synctest).
//
// # What it does not do
//
// It places, sends and repairs nothing, and it remembers nothing over a restart: who
// waits asks again. It does not answer for instances that other nodes store.
package protect
