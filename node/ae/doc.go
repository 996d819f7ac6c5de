// Package ae is the node's DIMSE face: which application entities may do what
// here, and the providers that turn C-STORE, C-FIND, C-MOVE, C-GET and storage
// commitment into calls of the archive and the query engine.
//
// In the flow of a store it stands between dimse/scp, which speaks the
// protocol, and node/archive, which keeps the bytes. It holds no state of its
// own but two durable things: the registry of AEs (records of the catalogue)
// and the storage commitment requests that wait for their result.
//
// Concurrency: one [Face] serves all associations. Its background work, the
// delivery of storage commitment results, runs in [Face.Run].
package ae
