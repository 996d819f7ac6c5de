//go:build !unix

package far

import "errors"

// mapBytes leaves blocks in the heap.
func mapBytes(int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmapBytes([]byte) error { return nil }
