//go:build race

package bulk

// crashPoints is fewer where every operation takes ten times as long.
const crashPoints = 5
