// Package consensus is hashicorp/raft behind an interface of ours: it puts
// entries into one order on all nodes and applies them to a [StateMachine]
// (DESIGN §6).
//
// # What it owns
//
// One Raft member: its settings for links of 20 to 150 ms, its log and votes
// (package raftlog, given from outside), and the library's faults:
//
//   - heartbeats are handled in the main loop, like everything else: the
//     transport ignores SetHeartbeatHandler (issue 695), so that a follower whose
//     disk hangs is seen to hang;
//   - a leader whose disk hangs would keep its followers quiet (503, 612, 614),
//     because its heartbeats do not come from its main loop: after
//     [Settings.Stall] the transport falls silent, and others elect;
//   - VerifyLeader counts answers of non-voters, and answers to what was sent
//     before it was asked: [Node.CommitIndex] counts voters itself, by when the
//     heartbeat that they answered was sent;
//   - the library's applied index runs ahead of what is applied: [Node.Applied]
//     does not.
//
// # Snapshots
//
// The state machine is on disk and knows its [Position], which it writes
// together with what it applies. So a snapshot is a Position: it costs nothing
// to take, is taken only after the state machine has been synced, and lets the
// log be cut. A member that lags behind the cut is sent a Position; it stops
// Raft, lets the [Peers] copy a state machine that is at least as far, and
// starts again there. A newcomer does so as soon as it hears that much was
// committed, whether the log has it all or not.
//
// # Failure
//
// An entry that the state machine cannot apply stops applying, never Raft: the
// member goes on to store and vote, gives leadership away, keeps its log, and
// starts again where it stopped. Entries that rotted in the log are fetched from
// peers before the member takes part. A member that has lost its whole log, or
// whose log is an earlier copy, says nothing until the network has taken its vote, and
// comes back like a new one. A leader knows a member that has forgotten what it had
// confirmed ([Heard]).
//
// # Goroutines
//
// [Node.Run] starts and ends the library's and owns restarts, the watch over the
// log, its mark, and the cutting of it; each pipeline to a follower has one that notes
// answers. Proposals and verifications that wait hold a
// goroutine each, at most [maxWaiting].
package consensus
