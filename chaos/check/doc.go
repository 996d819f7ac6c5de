// Package check judges what was seen of a network against what it promises
// (DESIGN §2, §6): a test records a history while the network is broken and
// healed, and a checker says which rules the history violates.
//
//   - [Instances]: what was acknowledged is returned, by every node, unchanged,
//     and nothing else is.
//   - [Journals]: every node applies each record of each journal once, in order,
//     as it was logged, and in the end all of them.
//   - [States]: nodes with the same applied index have the same state.
//   - [Staleness]: an answer lacks nothing that is older than it says it may be.
//
// A checker accuses only when no order of events within what was observed would
// be right: where the observer does not know when something happened, the
// history holds the end of the interval that is kind to the network, and each
// field says which.
//
// The package is pure: no clock, no I/O, no goroutine. Violations come in a fixed
// order. It does not collect histories; that is for pelago/chaos/proc, the
// tests, and what they ask of nodes.
package check
