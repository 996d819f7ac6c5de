//go:build !amd64

package pack

// expand is expandPlain.
func expand(plane, mask, groups []byte) int { return expandPlain(plane, mask, groups) }
