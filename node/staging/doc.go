// Package staging is the log that arrivals land in (DESIGN §4): append-only
// segments of checksummed frames, in which several associations interleave. An
// instance exists once its commit frame is synced. The package knows bytes and
// records, nothing of DICOM.
//
// # Where it stands
//
// node/archive begins an arrival, writes the data set while it comes in and
// commits it with a record of its own (UIDs, hash, header). Later it packs the
// instance and releases the arrival. Pebble rows are written unsynced, because
// a start replays the segments. The bytes on disk are specified in
// docs/formats/staging.md.
//
// # Invariants
//
//   - Commit returns without an error only after an fdatasync that began when
//     every frame of the arrival was written, in whichever segments they rest,
//     and after the segment's name was synced into its directory.
//   - Frames are written in ascending offset, one write at a time, so a sync
//     covers a prefix of the log and one position says what is durable.
//   - After a failed write, fsync or directory sync (other than a write that
//     found no space) nothing is acknowledged any more: see [Log.Failed].
//   - A segment is never appended to by a later process. Each start begins a new
//     one and a new life; the verdict on an old segment depends on the bytes of
//     its own life alone, which makes a replay idempotent.
//   - A segment goes when it is full, no arrival in it is live or under way and
//     no reader has it open. A damaged segment stays until an operator moves it.
//     The newest segment always stays, so numbers are never used again.
//   - The file of a segment that went may be overwritten as a later one: only
//     once its name as a spare is durable, and only if it has no other name.
//     Frames of the earlier use fail the checksum that binds them to their
//     segment.
//
// # Concurrency
//
// A [Log] may be used by any number of goroutines, an [Arrival] by one.
// There are no background goroutines. Two locks: writeMu serialises appends and
// is held over the write (the kernel serialises writes to one file anyhow),
// never over an fdatasync; mu guards the state and is never held over I/O.
// Checksums and copies are made outside of both. Waiting commits elect a leader
// that syncs for all of them.
//
// # What it does not do
//
// It does not compress, encrypt, deduplicate or index. It does not lock the
// directory: the data directory's lock does.
package staging
