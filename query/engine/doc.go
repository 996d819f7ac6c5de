// Package engine answers queries of all four levels (PS3.4 C.4.1) over the
// catalogue and the headers of this node's own instances.
//
// # How
//
// Keys are compiled once (query/match) and sorted by who can answer them: a
// study record, a series record, or an instance's header. query/plan says in
// which indexes the studies must be found; their streams, all in the order of
// the answer, are intersected by seeking, and each study found is matched
// itself: its record for each of its patients, then its series if a key or the
// level asks for them, then its instances. So a limit stops the work, nothing is
// sorted, and an index may be wider than the keys.
//
// An object matches if one instance under it does, whatever the level of the
// keys: a study with a key of Modality or of a private attribute is one that
// holds such an instance. What is asked back of a lower level comes from the
// same instance. A patient with several studies is answered once, by the first
// study in order that matches.
//
// # Other nodes
//
// What the catalogue does not know of series that this node does not hold is asked
// of those that do, about the studies of a window at once ([query.Peers]). What
// they find stands beside this node's own instances, and is matched again. Nodes
// whose sets of instances have equal hashes stand for each other; of others the
// union is answered. Who was silent the answer says.
//
// # Order
//
// Studies by date and time, newest first, then by the order of their
// announcement; within a study by ascending Series and SOP Instance UID.
//
// # Concurrency
//
// Everything runs in the goroutine that ranges over the answer, but what other
// nodes are asked: a goroutine for each of them and window, all of which have ended
// when the answer has. Headers are read
// under a gate that is shared by all queries, first come first served, one header
// at a time, so that a search through a million headers does not stand before a
// small one.
package engine
