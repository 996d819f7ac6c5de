// Package archive is where bytes and DICOM meet: it takes instances in, finds
// and opens them, deletes and restores them, and moves them from staging into
// packs. Its faces are node/ae (DIMSE) and node/web.
//
// # Where it stands
//
//	Store  → dicom header, read from the stream → node/staging, one shared fdatasync
//	       → rows in store/, unsynced → replication/journal → the catalogue
//	packer → node/staging → shard/pack → shard/seal → shard/bulk
//	Open   → node/staging, or shard/bulk → shard/seal → shard/pack
//
// # Invariants
//
//   - Store returns without an error only after the commit frame is synced. The
//     rows of store/ follow from it: a start writes what a crash kept of them.
//   - A byte leaves staging, or a pack, only after a synced batch says that the
//     instance rests elsewhere, or was dropped. It is dropped only because a
//     tombstone covers it or an operator discarded it, and the grace has passed,
//     or because it is the canonical one in another encoding.
//   - A table in bulk/ is dropped at a start only if a row announced it and none
//     names its packs: never because it is not known.
//   - The blob of a pack that is evicted goes after a synced batch says so; whoever
//     reads it at that moment goes on from its shards.
//   - Of the instances under a SOP Instance UID at most one that no tombstone
//     covers is canonical, and only canonical ones are listed and retrieved.
//   - Local numbers ascend in the order of commits and are never used twice.
//   - What must follow a synced change (a fact made anew, keys forgotten, an
//     empty pack deleted) is itself a row until it is done.
//
// # Concurrency
//
// All methods of [Archive] may be called from anywhere, Backup and Verify too.
//
//	goroutine    owned by            what it does, what feeds it
//	disk_watch   Tasks, work.Group   ends the node when staging or Pebble cannot write
//	journal      Tasks               facts of series, named by Store, Decide and Delete
//	finish_left  Tasks               what the last process left, and decisions that failed: facts, comparisons
//	mend         Tasks               header rows where store/ was found rotten
//	pack         Tasks               staging to packs: the queue every 5 s, and Pack
//	purge        Tasks, hourly       what is past its grace; keys of what is gone
//	reclaim      Tasks, 10 min       rewrites tables of which 30 % is dead
//	the caller's Store               reads the body, waits for the shared fdatasync
//
// Locks, in the order in which they are taken:
//
//	inflight    one arrival or decision at a time under a SOP Instance UID; held
//	            over its I/O, for that is what it orders
//	still       whoever moves or drops bytes: a table, a slice of a purge, the
//	            moment in which a backup takes hold of all files; held over I/O
//	changing    whoever changes the state or the place of an instance that was
//	            committed before, or the row of a pack, up to the synced batch;
//	            arrivals under new UIDs never take it
//	headers.choosing   arrivals for reading, over the batch that refers to a header
//	            row, which is not synced; for writing, and for a moment, whoever
//	            drops an instance
//	headers.mending    one instance at a time that is read for its lost header;
//	            held over that reading, and taken before changing
//	space.mu, recent   leaf locks; statfs under the first
//
// # What it does not do
//
// It does not speak DICOM's protocols, match queries or decide who may do what.
package archive
