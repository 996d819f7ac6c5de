// Package cached keeps copies of packs that other nodes store, so that what was
// opened once opens again without them: from the disk, and while they are away
// (DESIGN §1, cached copy).
//
// A pack that is read from afar is gathered in a file, segment by segment, so
// that nothing crosses the network twice. One that is whole and whose hash tree
// leads to its root is moved into bulk/, in a table with others that were opened
// about the same time, and named by a row in store/.
//
// Invariants:
//   - What is here is never the only copy. Anything may be dropped at any time,
//     and is fetched again; nothing but [bulk.Cached] is ever written or deleted.
//   - Copies and what is being gathered stay below Options.Limit together, but
//     for the moment in which a table is written. Those that were read longest
//     ago go first; while the disk is nearly full they give way to arrivals.
//   - A row is written after its table is durable, and dropped before its blob: a
//     start drops rows without a blob and blobs without a row.
//   - Only whole, verified packs count as kept ([Store.Has]). A range of one that
//     is being gathered is as good as the node that sent it: who reads it
//     authenticates every segment, and calls [Store.Discard] if one fails.
//
// Concurrency: all methods of [Store] may be called from anywhere. [Store.Run] is
// its only goroutine. Locks: room orders those who make room, over the I/O that
// it takes; Store.mu and gathering.mu are leaves, never held over I/O.
//
// It does not know where packs come from, nor what is in them.
package cached
