// Package proc runs real nodes: `pelago serve` processes on free ports of the
// loopback, each on a data directory of its own, to be stopped, killed and
// started again on what they left behind.
//
// A [Node] starts with [Start], which returns once the node says that it is
// ready. [Node.Stop] asks it to end, [Node.Kill] takes it away without warning
// (SIGKILL: nothing is flushed that was not), and [Node.Restart] starts it on
// the same directory. [Node.Command] runs the command line against it, and
// [Node.Resident] reads what memory it holds.
//
// A node belongs to one goroutine; only its accessors may be called from
// others, and not while it is being started. It judges nothing: that is for
// tests and for pelago/chaos/check.
package proc
