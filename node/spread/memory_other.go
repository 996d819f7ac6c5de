//go:build !unix

package spread

import "errors"

// mapBytes leaves blocks in the heap.
func mapBytes(int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmapBytes([]byte) error { return nil }
