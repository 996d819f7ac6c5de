package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"

	"pelago/cluster/fault"
)

// Labels that separate the uses of HKDF. They are part of the format.
const (
	packLabel = "pelago pack key v1\x00"
	wrapLabel = "pelago study key wrap v1\x00"
)

const (
	keyBytes    = 32
	nonceBytes  = 12
	wrapVersion = 1
	// WrappedBytes is the length of every wrapped key: version, nonce, the key,
	// and the tag.
	WrappedBytes = 1 + nonceBytes + keyBytes + Overhead
)

// Key is a 256-bit secret.
type Key [keyBytes]byte

// String hides the key from logs and errors.
func (Key) String() string { return "[secret key]" }

// GoString hides the key from %#v.
func (Key) GoString() string { return "[secret key]" }

// NewKey returns a fresh random key.
func NewKey() Key {
	var k Key
	rand.Read(k[:]) // never fails: crypto/rand ends the process instead
	return k
}

// PackKey derives a pack's key: HKDF-SHA-256(study key, pack id). The pack id is
// random and never reused, so the key encrypts one pack only.
func PackKey(study Key, pack [16]byte) Key { return derive(study, packLabel, pack) }

// Wrap seals a study key under an epoch key, bound to its key id: it opens under
// that id only. Every wrap uses a key derived from the epoch key and the id.
func Wrap(epoch Key, id [16]byte, study Key) ([]byte, error) {
	out := make([]byte, 1+nonceBytes, WrappedBytes)
	out[0] = wrapVersion
	rand.Read(out[1:])
	return newAEAD(derive(epoch, wrapLabel, id)).Seal(out, out[1:1+nonceBytes], study[:], id[:]), nil
}

// Unwrap opens what Wrap made. It fails with fault.Corrupt if the bytes were
// changed, or belong to another id or epoch, and with fault.Unsupported for a
// version it does not know.
func Unwrap(epoch Key, id [16]byte, wrapped []byte) (Key, error) {
	var k Key
	if len(wrapped) != WrappedBytes {
		return k, fault.New(fault.Corrupt, "seal: a wrapped key has %d bytes, not %d", len(wrapped), WrappedBytes)
	}
	if wrapped[0] != wrapVersion {
		return k, fault.New(fault.Unsupported, "seal: wrapped key of version %d", wrapped[0])
	}
	body := wrapped[1+nonceBytes:]
	plain, err := newAEAD(derive(epoch, wrapLabel, id)).Open(nil, wrapped[1:1+nonceBytes], body, id[:])
	if err != nil {
		return k, fault.New(fault.Corrupt, "seal: a wrapped key does not open: %w", err)
	}
	copy(k[:], plain)
	return k, nil
}

func derive(secret Key, label string, id [16]byte) Key {
	out, err := hkdf.Key(sha256.New, secret[:], nil, label+string(id[:]), keyBytes)
	if err != nil {
		panic("seal: hkdf: " + err.Error()) // only for lengths above 8,160 bytes
	}
	return Key(out)
}

func newAEAD(k Key) cipher.AEAD {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic("seal: aes: " + err.Error()) // only for wrong key lengths
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("seal: gcm: " + err.Error()) // only for other block sizes
	}
	return aead
}
