//go:build !race

package pack

// corpusStep takes every image of the corpus.
const corpusStep = 1
