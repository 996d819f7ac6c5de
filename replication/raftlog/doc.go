// Package raftlog is the durable side of Raft: its log and its votes, in a
// Pebble of their own (raft/, DESIGN §4 and §6). It implements the LogStore and
// the StableStore of hashicorp/raft.
//
// # What it promises
//
// StoreLogs is one synced commit: all entries of a call are durable when it
// returns, or none is. The log is dense: entries follow each other, and only a
// prefix or a suffix is deleted. A crash leaves a prefix of what was handed
// over, and all that was acknowledged.
//
// A vote is one row. The library writes the term and the candidate of a vote by
// two calls (its issue 661); a crash between them would leave a vote for a
// candidate of an earlier term, which is then granted again without a look at
// the candidate's log. Here the term is held back until the candidate is named,
// and reads answer with the vote that is on disk.
//
// Every row carries a checksum over its key and its value, and a bound on its
// length. What fails is a [CorruptError] with the range of indexes, never a
// missing entry: the library takes a missing entry for one that was cut off.
// [Store.Check] finds all such ranges and [Store.Replace] puts in what a peer
// has.
//
// A file outside the folder, the mark, tells whether the log is the latest one or an
// earlier copy that was put back ([Store.Older]).
//
// # Watching
//
// Every operation is timed. [Store.Stalled] tells for how long the oldest one
// under way has been, so that a disk that hangs, rather than fails, is noticed by
// those who do not wait for it: the library's own main loop does.
//
// # Concurrency
//
// All methods may be called at once. Writers take a lock over their commit, so
// that bounds and rows agree; reads do not wait for them.
package raftlog
