package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
)

const (
	nodeFile   = "node.key"
	nodeMagic  = "PelNode\x01"
	epochFile  = "epochs"
	epochMagic = "PelEpoc\x01"

	idBytes      = 20
	sealingBytes = 32
	firstEpoch   = 1
)

// stores are folders of a data directory that hold what only its keys open.
// Beside them a key folder is never made anew.
var stores = []string{"bulk", "store", "catalog", "raft", "staging"}

// Node is a node's identity.
type Node struct {
	id      string
	signing ed25519.PrivateKey
	sealing hpke.PrivateKey
	epochs  epochs
	current uint32
}

// Open reads the key folder dir (keys/ in the data directory) or, in a fresh
// data directory, makes the node's signing key (Ed25519), its sealing key (HPKE,
// X25519) and the first epoch key, and syncs them before it returns. Files are
// 0600, the folder 0700. fault.Corrupt if keys are rotten, or missing where
// there is something that they open.
func Open(fs vfs.FS, dir string) (*Node, error) {
	if err := makeFolder(fs, dir); err != nil {
		return nil, err
	}
	n, err := read(fs, dir)
	if !errors.Is(err, os.ErrNotExist) {
		return n, err
	}
	if err := mayFound(fs, dir); err != nil {
		return nil, err
	}
	if err := found(fs, dir); err != nil {
		return nil, err
	}
	return read(fs, dir)
}

func makeFolder(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return errors.Join(restrict(d, 0o700), d.Close())
}

// read opens what is there. The error is os.ErrNotExist if the node's key is
// not.
func read(fs vfs.FS, dir string) (*Node, error) {
	private, err := ReadFramed(fs, fs.PathJoin(dir, nodeFile), nodeMagic)
	if err != nil {
		return nil, fmt.Errorf("identity: read the node's key: %w", err)
	}
	if len(private) != ed25519.SeedSize+sealingBytes {
		return nil, fault.New(fault.Corrupt, "identity: %s holds %d bytes", nodeFile, len(private))
	}
	signing := ed25519.NewKeyFromSeed(private[:ed25519.SeedSize])
	sealing, err := sealingKey(private[ed25519.SeedSize:])
	if err != nil {
		return nil, fault.New(fault.Corrupt, "identity: sealing key: %w", err)
	}
	sealed, err := ReadFramed(fs, fs.PathJoin(dir, epochFile), epochMagic)
	if err != nil {
		return nil, fault.New(fault.Corrupt, "identity: the node's key is here, its epoch keys are not: %v", err)
	}
	all, err := parseEpochs(sealed, sealing)
	if err != nil {
		return nil, err
	}
	n := &Node{id: IDOf(signing.Public().(ed25519.PublicKey)), signing: signing, sealing: sealing, epochs: all}
	for number := range all {
		n.current = max(n.current, number)
	}
	return n, nil
}

// mayFound refuses to make keys where something exists that needs the lost ones.
// The epoch keys alone, without study keys wrapped under them, are what a crash
// while founding leaves.
func mayFound(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	for _, name := range names {
		if name != epochFile && !strings.HasSuffix(name, tempSuffix) {
			return fault.New(fault.Corrupt, "identity: %s is missing and %s is here: restore the key folder", nodeFile, name)
		}
	}
	beside, err := fs.List(fs.PathDir(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("identity: %w", err)
	}
	for _, name := range beside {
		if slices.Contains(stores, name) {
			return fault.New(fault.Corrupt, "identity: the key folder is empty and %s/ is here: restore the key folder", name)
		}
	}
	return nil
}

// found makes the keys. The node's key comes last: with it the identity exists.
func found(fs vfs.FS, dir string) error {
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	var private [sealingBytes]byte
	rand.Read(private[:])
	sealing, err := sealingKey(private[:])
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	sealed, err := sealEpoch(sealing.PublicKey(), firstEpoch, newEpoch())
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	entry := append(binary.BigEndian.AppendUint32(nil, firstEpoch), sealed...)
	if err := WriteFile(fs, dir, epochFile, Frame(epochMagic, entry)); err != nil {
		return err
	}
	if err := WriteFile(fs, dir, nodeFile, Frame(nodeMagic, slices.Concat(signing.Seed(), private[:]))); err != nil {
		return err
	}
	if parent := fs.PathDir(dir); parent != "" && parent != dir {
		if err := SyncDir(fs, parent); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	return nil
}

// IDOf is the id of the node that has a signing key: see [Node.ID].
func IDOf(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:idBytes]))
}

// ID is the node's id: the first 20 bytes of SHA-256 of its public key, in
// lower-case base32 without padding.
func (n *Node) ID() string { return n.id }

// Public is the node's public signing key.
func (n *Node) Public() ed25519.PublicKey {
	return bytes.Clone(n.signing.Public().(ed25519.PublicKey))
}

// Sign signs a message with the node's key (Ed25519). The same key proves the
// node in TLS, whose signed messages begin with 64 spaces (RFC 8446, 4.4.3), and
// in certificate requests, which begin with 0x30: every other kind of message
// begins with a text of its own, so that none can be taken for another.
func (n *Node) Sign(message []byte) []byte { return ed25519.Sign(n.signing, message) }

// Signer is the node's key for TLS and certificate requests.
func (n *Node) Signer() crypto.Signer { return n.signing }

// Epoch returns an epoch key by number; fault.NotFound for one that this node
// was never given.
func (n *Node) Epoch(number uint32) ([32]byte, error) {
	key, ok := n.epochs[number]
	if !ok {
		return key, fault.New(fault.NotFound, "identity: no key of epoch %d", number)
	}
	return key, nil
}

// Current is the newest epoch's number.
func (n *Node) Current() uint32 { return n.current }
