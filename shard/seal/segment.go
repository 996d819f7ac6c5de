package seal

import (
	"encoding/binary"

	"pelago/cluster/fault"
)

const (
	// SegmentBytes is the plaintext of a segment; Overhead what each grows by.
	SegmentBytes = 16 << 10
	Overhead     = 16

	// sealedBytes is a whole segment's ciphertext.
	sealedBytes = SegmentBytes + Overhead
	// maxBytes bounds a ciphertext so that no arithmetic on offsets overflows.
	maxBytes = 1 << 56
	// batch is how many segments are written or read at a time: 256 KiB keeps
	// the calls to the layer below few and the buffer small.
	batch = 16
)

// Size is the ciphertext's length for a plaintext's. An empty plaintext is one
// empty segment.
func Size(plaintext int64) int64 {
	segments := max(1, (plaintext+SegmentBytes-1)/SegmentBytes)
	return plaintext + segments*Overhead
}

// PlainSize is the plaintext's length for a ciphertext's; fault.Corrupt for a
// length that no ciphertext has.
func PlainSize(ciphertext int64) (int64, error) {
	if ciphertext < Overhead || ciphertext > maxBytes {
		return 0, fault.New(fault.Corrupt, "seal: no ciphertext has %d bytes", ciphertext)
	}
	segments := (ciphertext + sealedBytes - 1) / sealedBytes
	plain := ciphertext - segments*Overhead
	if plain < 0 || Size(plain) != ciphertext {
		return 0, fault.New(fault.Corrupt, "seal: no ciphertext has %d bytes", ciphertext)
	}
	return plain, nil
}

// nonce is 3 zero bytes, the segment's number in 8 bytes, big endian, and 1 for
// the last segment, else 0.
type nonce [nonceBytes]byte

func (n *nonce) set(segment int64, last bool) {
	binary.BigEndian.PutUint64(n[3:11], uint64(segment))
	n[11] = 0
	if last {
		n[11] = 1
	}
}
