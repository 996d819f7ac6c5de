// Package reconcile compares what two nodes hold of one series (DESIGN §2,
// Duplicates). Each keeps its own; where one SOP Instance UID has other content at
// the other, that is a conflict that operators of every site should see.
//
// Of two nodes the one that announced the series later compares, by the manifests
// of both: equal hashes are equal instances. What differs is recorded in the
// registry, under kind "conflict", and dropped again once nothing differs any more.
// What was compared is remembered in store/ and compared again when either has
// announced something new of the series.
//
// It compares hashes of data sets as they were received: a rendition, or the same
// in another transfer syntax, differs, and the record says that its syntax does.
package reconcile
