// Package layout decides which node holds which shard: the explicit table of
// placement groups that a network agrees on (DESIGN §5).
//
// # The table
//
// Packs fall into placement groups by their spread, evenly random and theirs for
// ever ([Layout.Group]). A group has a row: an ordered list of min(sites, 16) sites,
// each with the one of its nodes that serves the group there.
//
//	group 17   mercy/a   lakes/a   st-olaf/a   north/a │ eastend/a   bayside/b
//	position      0         1          2          3    │     4           5
//	              shards 0 to 3 of a stripe of four    │      substitutes
//
// Shard i of a stripe is at position i. A stripe of n shards uses the first n
// positions; who holds a shard meanwhile while its node is away is taken from those
// after. A layout is made for stripes of [Layout.Shards]; those of fewer (small
// packs, older codes) use the beginnings of the same rows.
//
// # Compute
//
// [Compute] makes the next layout from the last one and from the nodes that hold
// shards, with what each pledges. Of what it makes,
//
//   - no site is in a row twice, so a lost site is at most one shard of a stripe;
//   - every node has the slots (group and position) that its pledge calls for, as
//     few a byte as any table of whole slots can have at its fullest node: target.go;
//   - no table with these numbers of slots moves fewer shards: augment.go. A shard
//     whose node stays in the row stays at its position, and whoever replaces a node
//     takes its position;
//   - each node has its slots at all positions alike, as far as that moves nothing:
//     data (the first positions) is read more than parity.
//
// A site cannot hold more than one shard of a stripe, so what a site pledges beyond
// 1/n of all cannot be used; where n is the number of sites the smallest pledge is
// the limit. [Layout.Capacity] says how much fits, and who is full then.
//
// # Change
//
// Two versions are readable during a change: [View]. Readers ask the node of the new
// row, then that of the old one ([View.Candidates]); [Diff] is what has to move. A
// network commits a version by a decision that finds the one before alone: one record
// in the catalogue is a layout, two are a change ([RecordName], docs/formats/layout.md).
// So there is no third version before the second is complete. Who has completed what
// is recorded elsewhere.
//
// The package is pure: no clock, no I/O, no goroutine, no state, and what it returns
// is the same to the byte on every machine. A [Layout] is never changed; methods are
// safe for concurrent use. It does not know packs, codes or who is alive.
package layout
