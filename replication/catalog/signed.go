package catalog

import (
	"crypto/subtle"

	"github.com/zeebo/blake3"
)

// SignedBy returns the hash of a batch that follows the one with the hash
// previous, and whether a signer has signed just that. It is for the signer's own
// batches: Ed25519 gives a message one signature, so to sign again is to verify.
func (e *Entry) SignedBy(s Signer, previous [32]byte) (hash [32]byte, ok bool) {
	if e.Batch == nil {
		return hash, false
	}
	message := batchMessage(previous, e.body)
	return blake3.Sum256(message), subtle.ConstantTimeCompare(s.Sign(message), e.signature) == 1
}
