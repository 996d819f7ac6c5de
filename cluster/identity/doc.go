// Package identity is who a node is and what it may unwrap: its key pairs, its
// id (the hash of its key), and the network's epoch keys that it holds, kept under
// keys/ in the data directory (DESIGN §5, §7 Keys).
//
// The node's private keys lie in one file, the epoch keys in another, sealed by
// HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// AES-256-GCM) to the node's sealing key. Both are written whole, synced and
// renamed into place, and carry a checksum. A data directory that has lost its
// node's key is refused: a new identity could not open anything in it.
//
// A node begins without epoch keys. Who founds a network makes the first
// ([Node.FirstEpoch]); all others come from the network, sealed to the node
// ([Node.SealEpoch] there, [Node.OpenEpoch] and [Node.AddEpochs] here), which also
// gives back those that were lost. What needs one waits for it. An epoch key is
// never dropped, and never another one under the same number.
//
// A [Node] is safe for concurrent use; nothing of it changes but the epochs that it
// holds. The bytes are specified in docs/formats/keys.md.
package identity
