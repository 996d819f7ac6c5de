// Package work runs a node's background tasks: named, supervised, and listed
// for the operator with what they do and how far they are.
//
// A [Group] starts its tasks in order and, when its context ends or a task fails
// for good, stops them in reverse, one after the other, so that a task may rely
// on those before it for as long as it lives. A task that is slow to stop is
// logged by name. [Group.Run] owns every goroutine and returns when all have
// ended.
//
// # Concurrency
//
//	goroutine        owned by  what it does
//	one a task       Group     runs it, restarts it with back-off, keeps its status
//	the caller's     Group.Run starts, waits, stops in reverse
//
// [Group.Statuses] and the methods of [Progress] may be called from anywhere at
// any time.
//
// # What it does not do
//
// It does not recover panics: a broken invariant ends the process, which a start
// repairs. It schedules nothing beyond [Every].
package work
