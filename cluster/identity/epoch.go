package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"pelago/cluster/fault"
)

const (
	epochInfo  = "pelago epoch key v1\x00"
	checkInfo  = "pelago epoch check v1\x00"
	epochBytes = 32
	firstEpoch = 1

	// EnvelopeBytes is the length of a sealed epoch key: encapsulated key,
	// ciphertext, tag.
	EnvelopeBytes = 32 + epochBytes + 16
	entryBytes    = 4 + EnvelopeBytes

	// MaxEpochs bounds the epochs of a network: there is one more each time that a
	// node is removed, and a key file has room for three times as many.
	MaxEpochs = 4096
)

// epochs are the epoch keys that are held, opened. They are never changed: who
// adds some makes others.
type epochs struct {
	keys   map[uint32][epochBytes]byte
	newest uint32 // 0: there is none
}

// with returns the epochs and others. fault.Conflict if another key is held under
// one of the numbers, fault.Full for more than [MaxEpochs].
func (e *epochs) with(added map[uint32][epochBytes]byte) (*epochs, error) {
	next := &epochs{keys: maps.Clone(e.keys), newest: e.newest}
	for number, key := range added {
		if number == 0 {
			return nil, fault.New(fault.Invalid, "identity: an epoch without a number")
		}
		if held, ok := next.keys[number]; ok && held != key {
			return nil, fault.New(fault.Conflict, "identity: another key of epoch %d is held", number)
		}
		next.keys[number], next.newest = key, max(next.newest, number)
	}
	if len(next.keys) > MaxEpochs {
		return nil, fault.New(fault.Full, "identity: %d epochs", len(next.keys))
	}
	return next, nil
}

func (e *epochs) numbers() []uint32 { return slices.Sorted(maps.Keys(e.keys)) }

// Epochs are the numbers of the epochs whose keys this node holds, ascending. What
// is listed is durable.
func (n *Node) Epochs() []uint32 { return n.epochs.Load().numbers() }

// Epoch returns an epoch key by number; fault.NotFound for one that this node
// was never given.
func (n *Node) Epoch(number uint32) ([32]byte, error) {
	key, ok := n.epochs.Load().keys[number]
	if !ok {
		return key, fault.New(fault.NotFound, "identity: no key of epoch %d", number)
	}
	return key, nil
}

// Current is the newest epoch that this node holds; 0: none yet.
func (n *Node) Current() uint32 { return n.epochs.Load().newest }

// FirstEpoch makes the first epoch key of a network that this node founds. It is
// durable on return. A node that holds any has it, and keeps what it has.
// fault.Corrupt where there is something that a lost epoch key may open.
func (n *Node) FirstEpoch() error {
	if n.Current() != 0 {
		return nil
	}
	if err := nothingBeside(n.fs, n.dir); err != nil {
		return err
	}
	return n.AddEpochs(map[uint32][epochBytes]byte{firstEpoch: NewEpoch()})
}

// AddEpochs holds epoch keys from now on: all of them, durably, before it returns
// and before any of them counts; or none, with an error. Those that are held
// already are left. fault.Conflict if another key is held under one of the numbers.
func (n *Node) AddEpochs(added map[uint32][32]byte) error {
	n.adding.Lock()
	defer n.adding.Unlock()
	held := n.epochs.Load()
	next, err := held.with(added)
	if err != nil || len(next.keys) == len(held.keys) {
		return err
	}
	var payload []byte
	for _, number := range next.numbers() {
		sealed, err := SealEpochKey(n.Sealing(), number, next.keys[number])
		if err != nil {
			return err
		}
		payload = append(binary.BigEndian.AppendUint32(payload, number), sealed...)
	}
	if err := WriteFile(n.fs, n.dir, epochFile, Frame(epochMagic, payload)); err != nil {
		return err
	}
	n.epochs.Store(next)
	return nil
}

// SealEpoch seals an epoch key that this node holds to a sealing key, whose proof
// the caller has checked ([CheckSealing]): [EnvelopeBytes]. fault.NotFound for an
// epoch that is not held, fault.Invalid for a key to which nothing can be sealed.
func (n *Node) SealEpoch(to [SealingBytes]byte, number uint32) ([]byte, error) {
	key, err := n.Epoch(number)
	if err != nil {
		return nil, err
	}
	return SealEpochKey(to, number, key)
}

// SealEpochKey is [Node.SealEpoch] of a key that nobody holds yet. The number is
// bound to it.
func SealEpochKey(to [SealingBytes]byte, number uint32, key [32]byte) ([]byte, error) {
	return SealTo(to, epochContext(number), key[:])
}

// OpenEpoch opens an epoch key that was sealed to this node under a number; it is
// not held by that. fault.Corrupt if it was sealed to another node, under another
// number, or changed.
func (n *Node) OpenEpoch(number uint32, sealed []byte) ([32]byte, error) {
	return openEpoch(n.sealing, number, sealed)
}

func openEpoch(k hpke.PrivateKey, number uint32, sealed []byte) (key [epochBytes]byte, err error) {
	b, err := hpke.Open(k, hpke.HKDFSHA256(), hpke.AES256GCM(), epochContext(number), sealed)
	if err != nil {
		return key, fault.New(fault.Corrupt, "identity: epoch key %d does not open: %w", number, err)
	}
	if len(b) != len(key) {
		return key, fault.New(fault.Corrupt, "identity: epoch key %d of %d bytes", number, len(b))
	}
	copy(key[:], b)
	return key, nil
}

// CheckOf is what tells an epoch's key from any other, and nothing of the key: who
// opens an envelope knows by it whether the key in it is the network's.
func CheckOf(number uint32, key [32]byte) [sha256.Size]byte {
	b := binary.BigEndian.AppendUint32([]byte(checkInfo), number)
	return sha256.Sum256(append(b, key[:]...))
}

// NewEpoch returns a fresh random epoch key.
func NewEpoch() (key [32]byte) {
	rand.Read(key[:]) // never fails: crypto/rand ends the process instead
	return key
}

func epochContext(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(epochInfo), number)
}

// parseEpochs opens the epoch file's payload: entries of a number and a sealed
// key, numbers ascending.
func parseEpochs(b []byte, k hpke.PrivateKey) (*epochs, error) {
	if len(b)%entryBytes != 0 || len(b) > MaxEpochs*entryBytes {
		return nil, fault.New(fault.Corrupt, "identity: epoch keys of %d bytes", len(b))
	}
	all := &epochs{keys: map[uint32][epochBytes]byte{}}
	for ; len(b) > 0; b = b[entryBytes:] {
		number := binary.BigEndian.Uint32(b)
		if number <= all.newest {
			return nil, fault.New(fault.Corrupt, "identity: epoch %d after %d", number, all.newest)
		}
		key, err := openEpoch(k, number, bytes.Clone(b[4:entryBytes]))
		if err != nil {
			return nil, err
		}
		all.keys[number], all.newest = key, number
	}
	return all, nil
}

func sealingKey(private []byte) (hpke.PrivateKey, error) {
	return hpke.DHKEM(ecdh.X25519()).NewPrivateKey(private)
}
