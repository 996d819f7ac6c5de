// Package cache keeps values of up to a few megabytes in memory outside the Go
// heap, within a limit of bytes. shard/pack keeps decompressed chunks in it.
//
// Outside the heap, because the collector lets a heap grow to twice what is
// alive: a cache in it costs twice its limit, or constant collections under a
// memory limit. Small values, of which many would waste pages, are kept in the
// heap, and get a share of the limit that makes this harmless.
//
// What goes when the room is full is drawn at random, but rather something that
// nobody asked for while twice as many values as are kept were asked for. Studies
// are read from end to end, often and again: one that is a little larger than the
// cache would never find anything in a cache that lets go of what was used longest
// ago, and finds most of itself in this one; and one that fits is soon here whole,
// whatever was read before it.
//
// Invariants:
//   - A value is filled by one caller; who asks meanwhile waits for it.
//   - A value's memory is not given up or filled again while anyone looks at it.
//   - What is kept is within the limit. What is looked at but could not be kept
//     comes on top, and goes when the last looker leaves.
//
// Safe for concurrent use. Nothing here has a clock or a goroutine of its own,
// and no lock is held while a value is filled or looked at.
package cache
