package seal

import (
	"crypto/cipher"

	"pelago/cluster/fault"
)

// Verifier authenticates segments of one ciphertext as they come, in any order,
// without giving their plaintext out. Safe for concurrent use.
type Verifier struct {
	size, segments int64
	aead           cipher.AEAD
}

// NewVerifier returns a verifier of a ciphertext of size bytes; fault.Corrupt for
// a size that no ciphertext has.
func NewVerifier(size int64, key Key) (*Verifier, error) {
	if _, err := PlainSize(size); err != nil {
		return nil, err
	}
	return &Verifier{size: size, segments: (size + sealedBytes - 1) / sealedBytes, aead: newAEAD(key)}, nil
}

// Verify checks that sealed are whole segments from first on: fault.Corrupt for
// the first that is not, fault.Invalid if they are not whole. scratch, of
// SegmentBytes, is where plaintext stands for a moment.
func (v *Verifier) Verify(first int64, sealed, scratch []byte) error {
	end := first*sealedBytes + int64(len(sealed))
	if first < 0 || first >= v.segments || end > v.size || end != v.size && end%sealedBytes != 0 {
		return fault.New(fault.Invalid, "seal: segment %d and %d bytes are not whole segments of %d", first, len(sealed), v.size)
	}
	var n nonce
	for segment := first; len(sealed) > 0; segment++ {
		one := sealed[:min(sealedBytes, len(sealed))]
		sealed = sealed[len(one):]
		n.set(segment, segment == v.segments-1)
		if _, err := v.aead.Open(scratch[:0], n[:], one, nil); err != nil {
			return fault.New(fault.Corrupt, "seal: segment %d: %w", segment, err)
		}
	}
	return nil
}
