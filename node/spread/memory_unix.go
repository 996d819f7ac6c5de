//go:build unix

package spread

import "golang.org/x/sys/unix"

// mapBytes returns memory outside the Go heap, which takes room as it is written.
func mapBytes(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

func unmapBytes(b []byte) error { return unix.Munmap(b) }
