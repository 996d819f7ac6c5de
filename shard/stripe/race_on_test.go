//go:build race

package stripe

// raceEnabled thins out where every byte takes ten times as long.
const raceEnabled = true
