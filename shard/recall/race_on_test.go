//go:build race

package recall_test

// quick leaves out what is long and about time, where everything takes ten times as
// long and time is virtual.
const quick = true
