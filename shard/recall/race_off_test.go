//go:build !race

package recall_test

// quick leaves out what is long.
const quick = false
