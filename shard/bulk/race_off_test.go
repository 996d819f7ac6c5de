//go:build !race

package bulk

// crashPoints is how many operations of a history are crashed at, for each share
// of unsynced data that survives.
const crashPoints = 40
