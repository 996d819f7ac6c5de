package identity

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"

	"pelago/cluster/fault"
)

const (
	epochInfo   = "pelago epoch key v1\x00"
	epochBytes  = 32
	sealedBytes = 32 + epochBytes + 16 // encapsulated key, ciphertext, tag
	entryBytes  = 4 + sealedBytes
)

// epochs are the epoch keys by number, opened.
type epochs map[uint32][epochBytes]byte

// sealEpoch seals an epoch key to a node. The number is bound to it.
func sealEpoch(to hpke.PublicKey, number uint32, key [epochBytes]byte) ([]byte, error) {
	return hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), epochContext(number), key[:])
}

func openEpoch(k hpke.PrivateKey, number uint32, sealed []byte) (key [epochBytes]byte, err error) {
	b, err := hpke.Open(k, hpke.HKDFSHA256(), hpke.AES256GCM(), epochContext(number), sealed)
	if err != nil || len(b) != len(key) {
		return key, fault.New(fault.Corrupt, "identity: epoch key %d does not open: %w", number, err)
	}
	copy(key[:], b)
	return key, nil
}

func epochContext(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(epochInfo), number)
}

// parseEpochs opens the epoch file's payload: entries of a number and a sealed
// key, numbers ascending.
func parseEpochs(b []byte, k hpke.PrivateKey) (epochs, error) {
	if len(b) == 0 || len(b)%entryBytes != 0 {
		return nil, fault.New(fault.Corrupt, "identity: epoch keys of %d bytes", len(b))
	}
	all := epochs{}
	last := uint32(0)
	for ; len(b) > 0; b = b[entryBytes:] {
		number := binary.BigEndian.Uint32(b)
		if number <= last {
			return nil, fault.New(fault.Corrupt, "identity: epoch %d after %d", number, last)
		}
		key, err := openEpoch(k, number, b[4:entryBytes])
		if err != nil {
			return nil, err
		}
		all[number], last = key, number
	}
	return all, nil
}

func sealingKey(private []byte) (hpke.PrivateKey, error) {
	return hpke.DHKEM(ecdh.X25519()).NewPrivateKey(private)
}

func newEpoch() (key [epochBytes]byte) {
	rand.Read(key[:]) // never fails: crypto/rand ends the process instead
	return key
}
