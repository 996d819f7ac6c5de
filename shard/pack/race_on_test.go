//go:build race

package pack

// corpusStep thins the corpus out where every byte takes ten times as long.
const corpusStep = 20
