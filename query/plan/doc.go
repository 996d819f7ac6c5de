// Package plan decides which index answers a query. It is both sides of that:
// [Indexer] names the terms under which the catalogue files a study, [For] the
// terms under which the studies of a query must be filed. Every plan is a
// superset: what it finds is matched again by query/match, so that an index
// need not be exact, only never miss.
//
// Indexes are of two sorts. Grams (runs of a few characters, with marks for
// both ends) serve exact, prefix, suffix and infix patterns of values that are
// many: names and identifiers. Dictionaries (the whole value) serve patterns
// over values that are few, such as descriptions: their terms are enumerated.
//
// The package is pure: no clock, no I/O, no goroutine.
package plan
