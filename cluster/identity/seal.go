package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"slices"

	"pelago/cluster/fault"
)

// SealingBytes is the length of a public sealing key (X25519), ProofBytes that of
// the signature that binds it to its node.
const (
	SealingBytes = 32
	ProofBytes   = ed25519.SignatureSize
)

const proofContext = "pelago sealing key v1\x00"

// Sealing is the public key to which others seal what only this node may open.
func (n *Node) Sealing() [SealingBytes]byte {
	return [SealingBytes]byte(n.sealing.PublicKey().Bytes())
}

// SealingProof is the node's signature over its sealing key: who knows the node's
// id knows by it whom a secret is sealed to.
func (n *Node) SealingProof() [ProofBytes]byte {
	key := n.Sealing()
	return [ProofBytes]byte(n.Sign(slices.Concat([]byte(proofContext), key[:])))
}

// CheckSealing reports whether a sealing key is that of the node whose signing
// key is public: fault.Denied if the proof does not say so, fault.Invalid if
// nothing can be sealed to the key.
func CheckSealing(public ed25519.PublicKey, key [SealingBytes]byte, proof [ProofBytes]byte) error {
	if !ed25519.Verify(public, slices.Concat([]byte(proofContext), key[:]), proof[:]) {
		return fault.New(fault.Denied, "identity: the sealing key is not signed by its node")
	}
	_, err := SealTo(key, []byte("proof"), nil)
	return err
}

// SealTo seals a secret to a sealing key (HPKE as in the package comment, its
// encapsulated key first: 48 bytes longer than the secret). info says what it is
// and to whom it goes, and must be said again to open it. fault.Invalid for a key
// that is none.
func SealTo(key [SealingBytes]byte, info, secret []byte) ([]byte, error) {
	point, err := ecdh.X25519().NewPublicKey(key[:])
	if err != nil {
		return nil, fault.New(fault.Invalid, "identity: sealing key: %w", err)
	}
	to, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, fault.New(fault.Invalid, "identity: sealing key: %w", err)
	}
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), bytes.Clone(info), secret)
	if err != nil { // a point of low order
		return nil, fault.New(fault.Invalid, "identity: sealing key: %w", err)
	}
	return sealed, nil
}

// Unseal opens what [SealTo] sealed to this node under the same info;
// fault.Corrupt if it was sealed to another node, as something else, or changed.
func (n *Node) Unseal(info, sealed []byte) ([]byte, error) {
	secret, err := hpke.Open(n.sealing, hpke.HKDFSHA256(), hpke.AES256GCM(), bytes.Clone(info), sealed)
	if err != nil {
		return nil, fault.New(fault.Corrupt, "identity: a secret sealed to this node does not open: %w", err)
	}
	return secret, nil
}
