// Package world is a wide-area network between real processes on one machine:
// what lies between sites, with its delay, its bandwidth, its losses and its
// cuts, which tests and measurements change while it runs.
//
// # Use
//
// A [World] is laid over a [Network]: [TCP], the loopback, for processes, or
// [Memory] for nodes in one process on virtual time. A node listens at an
// address of its own and gives out another, that of its [Gate]; what is dialled
// there travels from the dialler's site to the node's. Gates tell diallers apart
// by themselves, because nodes learn each other's addresses from each other, and
// there is one for all: processes by [SiteVariable] in their environment, which
// restarts inherit.
//
//	w, err := world.New(world.Options{Link: world.Both(80*time.Millisecond, 100*world.Mbps)})
//	g, err := w.Gate(ctx, "north", "")
//	... start the node with world.Environ("north"), telling it to advertise g.Addr() ...
//	g.Target(where it listens)
//	err = w.Cut("north", "south", world.BlackHole)
//	sent := w.Traffic("north", "south").Sent
//
// Only what goes through gates is in the world. Who dials a node's own address
// goes past it, as a workstation in the same building would.
//
// # The model
//
// Each ordered pair of sites is a direction with a [Link] of its own, shared by
// the connections that use it. A segment, which is what one read of a sender
// gives and at most a millisecond of the link or 64 KiB:
//
//   - waits in the bottleneck's queue, which serves all connections in the order
//     of arrival at the link's rate, and beside it in those that its sites share
//     among their links. When the queue is full, nothing more is read
//     from senders, who feel it once their kernel's buffers are full. No packet is
//     dropped for lack of room;
//   - travels for the delay and jitter, not overtaking its own connection;
//   - if one of its packets is lost, stands still at the far end for the
//     retransmission timeout, with all that follows it on its connection. It
//     never is lost twice by chance, and retransmissions take no bandwidth;
//   - is written to the receiver. What the receiver does not take stays in the
//     connection's window, which opens again when the acknowledgement is back.
//
// A direction that is a black hole loses every retransmission too, so that a
// connection that survives it goes on at the sender's next attempt, up to
// [Link.RTOMax] after healing. Acknowledgements and ends go the same ways: when
// only one direction is cut, the other stops after a window, and the end of a
// process that was cut off is not heard of.
//
// Connecting takes a round trip: connect itself returns at once, because the
// kernel of this machine answers it, but nothing that the dialler sends leaves
// before a round trip has passed, and the node is dialled after the way there. A
// refusal is therefore not an error of connect but a reset of what follows.
//
// # What it is not
//
// It does not emulate packets or congestion control. Loss costs a timeout where
// TCP would often recover by fast retransmission in a round trip, and narrows
// the window only with [Link.SlowStart], which is Reno's; competing connections
// share by turns. Where several bottlenecks lie in a row, a link's and those of
// the sites' accesses ([World.SetAccess]), only the slowest makes a segment wait.
// Nothing
// is turned over, duplicated or corrupted: TCP hides that. A connection is never
// given up by the network, however long the cut. Headers take no bandwidth.
// Beside the queue, the kernel holds up to 256 KiB of each sender for us, and of
// each receiver and sender what its sockets hold anyway.
//
// The kernel's netem would be closer to packets, but needs privileges, a module
// that many kernels lack (tc: "Specified qdisc kind is unknown"), and a network
// namespace for each site.
//
// # Accuracy and cost
//
// On virtual time the model is exact. On sockets, everything is early by nothing
// and late by what the machine lets us wait: half a millisecond when idle. What
// leaves is planned in absolute time, so that lateness up to 100 ms costs delay,
// but not bandwidth. `go test -bench . ./chaos/world` measures it: relaying takes
// about 1.4 ms of CPU a mebibyte (a sixth of a core at 1 Gb/s).
//
// # Concurrency
//
// [World] and [Gate] may be used from any goroutine. A connection has four
// goroutines, a reading and a writing one for each direction; a gate has one that
// accepts. All end before [World.Close] returns. No lock is held over I/O.
package world
