// Package audit keeps who did what: every association, store, query, retrieve,
// delete and refusal is a durable event in the form of PS3.15 A.5, exportable as
// XML, as JSON lines, and by syslog (RFC 5424) over TLS (RFC 5425).
//
// # AUDIT EVENTS HOLD PATIENT DATA
//
// Events may name patients: ids, the key of a query, study UIDs. That is their
// purpose. Nothing of an event may reach a log line, a metric label or an error
// text, here or at a caller; the files under audit/ and whatever Export writes
// are to be protected like images.
//
// # Where it stands
//
// The faces (node/ae, node/web, node/admin) build events with the constructors
// of this package (A.5.3) and hand them to [Log.Record], which queues them.
// [Log.Run] writes them in groups, numbered without gaps, to segment files that
// docs/formats/audit.md specifies. [Syslog] follows the log with a durable
// cursor.
//
// # Invariants
//
//   - An event is durable at most a flush interval (100 ms) after Record took it,
//     unless the disk is full: then the queue holds events, and once it is full
//     Record waits for as long as its context lets it.
//   - Numbers grow by one and are never used again. A gap that a reader meets is
//     a loss, and told.
//   - Written segments are never changed. A torn tail is left behind: a start
//     goes on in a new segment.
//   - Retention removes whole segments, oldest first, and none that a cursor
//     given to [Log.Hold] has not passed.
//
// # Concurrency
//
//	goroutine        owned by    what it does
//	writer           Log.Run     takes the queue, writes, syncs, rotates, retires
//	sender, watcher  Syslog.Run  follows the log; notices that the receiver closed
//
// Record, Flush, Read, Export, Wait, Hold and Damage may be called from anywhere.
package audit
