// Package input makes what the benchmarks store, the same bytes every time:
// images that compress as real ones do, studies of people who do not exist, and
// variants of real files under invented UIDs.
//
// It knows nothing of servers. Instances are written as Part 10 files, since
// that is what unmodified senders take.
package input
