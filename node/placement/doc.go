// Package placement is where the network's shards belong, as this node knows it, and
// this node's part in deciding it (DESIGN §5, Layout; §7).
//
//	registry → Follow → State               layouts that are valid, code, t, who is lost
//	store.pledge → Pledge ⇢ registry        what this node will hold
//	registry → due → Propose ⇢ registry     the next layout, a better code, a change's end
//	repair → Complete ⇢ registry            this node has all that a version gives it
//	gossip → Watch | operator → Lose ⇢ registry
//
// A [State] is a snapshot that is never changed: whoever places, reads, repairs or
// vouches for shards takes one and asks it where they are. One of an old version may
// be in use at a node for as long as that node has not said [Placement.Complete] of
// the next.
//
// What is due is chosen by a pure function of the records (facts.due), and done by a
// decision that names what it was made from (package member): of several nodes that
// do the same one does it, and a crash leaves nothing by half. There are two layouts
// at most; t and the code never fall but by an operator's word; nothing here deletes
// anything but records. Decisions 0044 and 0045; docs/formats/layout.md.
//
// # Concurrency
//
//	goroutine          task            what it does
//	Placement.Follow   layout          reads the records, publishes the state
//	Placement.Propose  layout_changes  has the network decide what is due
//	Placement.Pledge   pledge          tells what this node will hold
//	Placement.Watch    losses          at the leader: who is absent, who is back
//
// All methods are safe for concurrent use, and State, Changed, Status and Holding
// never block. It moves no shard and does not know any.
package placement
