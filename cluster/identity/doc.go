// Package identity is who a node is and what it may unwrap: its key pairs, its
// id (the hash of its key), and the ring of epoch keys sealed to it, kept under
// keys/ in the data directory (DESIGN §5, §7 Keys).
//
// The node's private keys lie in one file, the epoch keys in another, sealed by
// HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// AES-256-GCM) to the node's sealing key. Both are written whole, synced and
// renamed into place, and carry a checksum. A data directory that has lost its
// key files is refused: a new identity could not open anything in it.
//
// A [Node] never changes once opened and is safe for concurrent use. The bytes
// are specified in docs/formats/keys.md.
package identity
