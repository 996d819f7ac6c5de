// Package scrub paces reading all that rests on a disk, once within a period: rot that
// nobody reads is found while there is still something to mend it from.
//
// shard/held reads the shards of other nodes by it, node/virtual this node's own
// copies. What is read, in which order, and what becomes of rot is theirs; so is the
// row that says how far a pass is. A [Pace] makes each read take as long as it may, so
// that the pass ends in time and no sooner than need be, and lets those who are served
// go first while it is not late.
//
// It starts no goroutine; a Pass and its Pace are of one. Its clock is that of the
// machine, which a synctest bubble replaces.
package scrub
