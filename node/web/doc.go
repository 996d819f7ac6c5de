// Package web is the DICOMweb face of a node (PS3.18, DESIGN §9 Web): QIDO-RS
// searches, WADO-RS and WADO-URI retrieve, STOW-RS stores. Everything is an
// [http.Handler] over three small interfaces: [archive.Reads], [archive.Writes]
// and [query.Engine].
//
// # Where it stands
//
// A request passes CORS and the login hook, then one route:
//
//	search.go      /studies, /series, /instances           → query.Engine
//	retrieve.go    study, series, instance as Part 10       → archive.Reads
//	metadata.go    the same as JSON or XML                  → archive.Reads.Headers
//	frames.go      frames of one instance                   → archive.Reads.Open
//	bulkdata.go    one value, with ranges                   → archive.Reads.Open
//	rendered.go    frames as JPEG or PNG                    → archive.Reads.Open
//	store.go       STOW-RS                                  → archive.Writes
//	wadouri.go     /wado?requestType=WADO
//
// # Invariants
//
//   - Nothing is allocated by a length that a client claims; each body, header
//     list, part and cache has a limit in [Limits].
//   - The status line says whether the answer is whole. A failure after it cuts
//     the connection without the closing boundary or chunk, so that no client
//     takes a part for the whole.
//   - A part of a store request whose closing delimiter never came is reported to
//     the archive as cut short, so that nothing is stored by half.
//   - Errors and logs never hold patient data. Audit events may.
//
// # Concurrency
//
// A Handler is used by many goroutines; its only mutable state are bounded
// caches and counters behind their own locks. No lock is held over I/O.
//
// # What it does not do
//
// It neither transcodes between encapsulated syntaxes nor decodes them, except
// baseline JPEG for rendered answers; what it cannot make is 406.
package web
