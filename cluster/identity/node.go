package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

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
)

// stores are folders of a data directory that hold what only its keys open.
// Beside them a key folder is never made anew.
var stores = []string{"bulk", "store", "catalog", "raft", "staging"}

// Node is a node's identity.
type Node struct {
	id      string
	signing ed25519.PrivateKey
	sealing hpke.PrivateKey

	fs  vfs.FS
	dir string

	adding sync.Mutex // held while the epoch keys are written, which is rare
	epochs atomic.Pointer[epochs]
}

// Open reads the key folder dir (keys/ in the data directory) or, in a fresh
// data directory, makes the node's signing key (Ed25519) and its sealing key (HPKE,
// X25519), and syncs them before it returns. Files are 0600, the folder 0700.
// Epoch keys that are not there are not held: see the package comment.
// fault.Corrupt if keys are rotten, or the node's own are missing where there is
// something that they open.
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
	n := &Node{id: IDOf(signing.Public().(ed25519.PublicKey)), signing: signing, sealing: sealing, fs: fs, dir: dir}
	all, err := readEpochs(fs, dir, sealing)
	if err != nil {
		return nil, err
	}
	n.epochs.Store(all)
	return n, nil
}

// readEpochs opens the epoch keys that are there; none, if none are.
func readEpochs(fs vfs.FS, dir string, sealing hpke.PrivateKey) (*epochs, error) {
	sealed, err := ReadFramed(fs, fs.PathJoin(dir, epochFile), epochMagic)
	if errors.Is(err, os.ErrNotExist) {
		return &epochs{keys: map[uint32][epochBytes]byte{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("identity: read the epoch keys: %w", err)
	}
	all, err := parseEpochs(sealed, sealing)
	if err != nil {
		return nil, err
	}
	// A process that ended between the file's rename and the folder's sync leaves a
	// name that is read, and not durable: from here on what is held is said to be.
	if err := SyncDir(fs, dir); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return all, nil
}

// mayFound refuses to make keys where something exists that needs the lost ones.
func mayFound(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, tempSuffix) {
			return fault.New(fault.Corrupt, "identity: %s is missing and %s is here: restore the key folder", nodeFile, name)
		}
	}
	return nothingBeside(fs, dir)
}

// nothingBeside refuses a key folder beside which there is something that keys open.
func nothingBeside(fs vfs.FS, dir string) error {
	beside, err := fs.List(fs.PathDir(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("identity: %w", err)
	}
	for _, name := range beside {
		if slices.Contains(stores, name) {
			return fault.New(fault.Corrupt, "identity: the key folder lacks keys and %s/ is here: restore the key folder", name)
		}
	}
	return nil
}

// found makes the node's keys: with them the identity exists.
func found(fs vfs.FS, dir string) error {
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	var private [sealingBytes]byte
	rand.Read(private[:])
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
