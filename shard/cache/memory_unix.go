//go:build unix

package cache

import "golang.org/x/sys/unix"

// mapBytes returns zeroed memory of the system.
func mapBytes(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|populate)
}

func unmapBytes(b []byte) error { return unix.Munmap(b) }
