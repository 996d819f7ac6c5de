// Package identity is who a node is and what it may unwrap: its key pairs, its
// id (the hash of its key), and the ring of epoch keys sealed to it, kept under
// keys/ in the data directory (DESIGN §5, §7 Keys).
package identity

import "github.com/cockroachdb/pebble/v2/vfs"

// Node is a node's identity.
type Node struct{}

// Open reads keys/ or, in a fresh data directory, makes the node's signing key
// (Ed25519), its sealing key (HPKE, X25519) and the first epoch key, and syncs
// them before it returns. Files are 0600, the directory 0700.
func Open(fs vfs.FS, dir string) (*Node, error) { panic("identity") }

// ID is the node's id: the first 20 bytes of SHA-256 of its public key, in
// lower-case base32 without padding.
func (n *Node) ID() string { panic("identity") }

// Epoch returns an epoch key by number; Current the newest number.
func (n *Node) Epoch(number uint32) ([32]byte, error) { panic("identity") }
func (n *Node) Current() uint32                       { panic("identity") }
