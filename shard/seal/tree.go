package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/zeebo/blake3"
	"pelago/cluster/fault"
)

// Contexts of BLAKE3's derive-key mode, which keep a leaf, an inner node and a
// root from standing for one another. They are part of the format.
const (
	leafContext = "pelago 2026-11 ciphertext tree leaf v1"
	nodeContext = "pelago 2026-11 ciphertext tree node v1"
	rootContext = "pelago 2026-11 ciphertext tree root v1"
)

// LeafBytes is what a leaf of the tree covers: one sealed segment.
const LeafBytes = sealedBytes

// hashes builds a tree's root from its leaves, left to right, keeping one node
// for every bit of their number.
type hashes struct {
	leaf, node, top *blake3.Hasher
	stack           [][32]byte
	count           uint64
}

func newHashes() hashes {
	return hashes{leaf: blake3.NewDeriveKey(leafContext), node: blake3.NewDeriveKey(nodeContext),
		top: blake3.NewDeriveKey(rootContext)}
}

// add adds a leaf's bytes to the tree.
func (h *hashes) add(leaf []byte) { h.push(h.hash(leaf)) }

// hash is a leaf's hash.
func (h *hashes) hash(leaf []byte) [32]byte { return sum(h.leaf, leaf, nil) }

func (h *hashes) push(leaf [32]byte) {
	h.stack = append(h.stack, leaf)
	h.count++
	for range bits.TrailingZeros64(h.count) {
		h.merge()
	}
}

func (h *hashes) merge() {
	n := len(h.stack)
	h.stack[n-2] = h.join(h.stack[n-2], h.stack[n-1])
	h.stack = h.stack[:n-1]
}

func (h *hashes) join(left, right [32]byte) [32]byte { return sum(h.node, left[:], right[:]) }

// root is the root over what was added, size bytes in all. It ends the tree.
func (h *hashes) root(size int64) [32]byte {
	for len(h.stack) > 1 {
		h.merge()
	}
	return h.seal(h.stack[0], size)
}

// seal binds the top node to the length.
func (h *hashes) seal(top [32]byte, size int64) [32]byte {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(size))
	return sum(h.top, length[:], top[:])
}

func sum(h *blake3.Hasher, a, b []byte) (out [32]byte) {
	h.Reset()
	h.Write(a)
	h.Write(b)
	h.Sum(out[:0])
	return out
}

// LeafHasher hashes leaves for trees that are built elsewhere: of strings that come
// in another order than their leaves, or of several strings at a time. It is for
// one goroutine.
type LeafHasher struct{ h *blake3.Hasher }

// NewLeafHasher returns one; it takes 10 KB, and is worth keeping.
func NewLeafHasher() *LeafHasher { return &LeafHasher{blake3.NewDeriveKey(leafContext)} }

// Append cuts data, which begins on a leaf, into leaves and appends their hashes.
func (h *LeafHasher) Append(leaves [][32]byte, data []byte) [][32]byte {
	for len(data) > 0 {
		leaf := data[:min(sealedBytes, len(data))]
		data = data[len(leaf):]
		leaves = append(leaves, sum(h.h, leaf, nil))
	}
	return leaves
}

// Tree holds the nodes of a byte string's tree, so that any range can be proved: 64
// bytes of memory for each 16 KiB. It is immutable and safe for concurrent use.
type Tree struct {
	// levels[0] are the leaves; each level has the parents of the pairs of the one
	// below, and its odd last node as it is. The subtree of the leaves [lo, hi) in a
	// walk from the root is therefore a node: lo is a multiple of the next power of
	// two from hi-lo.
	levels [][][32]byte
	size   int64
	root   [32]byte
}

// ReadTree reads size bytes and returns their tree. Its root is that of
// Writer.Close for the same ciphertext.
func ReadTree(r io.ReaderAt, size int64) (*Tree, error) {
	if size < 1 || size > maxBytes {
		return nil, fault.New(fault.Invalid, "seal: a tree over %d bytes", size)
	}
	h := NewLeafHasher()
	var leaves [][32]byte
	buf := make([]byte, min(size, batch*sealedBytes))
	for off := int64(0); off < size; off += int64(len(buf)) {
		buf = buf[:min(size-off, int64(len(buf)))]
		if err := readFull(r, buf, off); err != nil {
			return nil, err
		}
		leaves = h.Append(leaves, buf)
	}
	return NewTree(leaves, size)
}

// NewTree makes the tree of a string of size bytes from the hashes of its leaves,
// which belong to the tree from now on. fault.Invalid if so many bytes have another
// number of leaves.
func NewTree(leaves [][32]byte, size int64) (*Tree, error) {
	if size < 1 || size > maxBytes || int64(len(leaves)) != (size+sealedBytes-1)/sealedBytes {
		return nil, fault.New(fault.Invalid, "seal: a tree of %d leaves over %d bytes", len(leaves), size)
	}
	h := hashes{node: blake3.NewDeriveKey(nodeContext), top: blake3.NewDeriveKey(rootContext)}
	t := &Tree{levels: [][][32]byte{leaves}, size: size}
	for level := leaves; len(level) > 1; {
		up := make([][32]byte, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			up = append(up, h.join(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		t.levels = append(t.levels, up)
		level = up
	}
	t.root = h.seal(t.levels[len(t.levels)-1][0], size)
	return t, nil
}

// Leaves are the hashes of the leaves, in their order. They must not be changed.
func (t *Tree) Leaves() [][32]byte { return t.levels[0] }

// Root is the tree's root.
func (t *Tree) Root() [32]byte { return t.root }

// Proof returns the hashes with which VerifyRange checks count leaves from
// first on: the subtrees to the left and right of them, in the order of a walk
// from the root, left before right. At most 2 log2(leaves) of them.
func (t *Tree) Proof(first, count int64) ([][32]byte, error) {
	all := int64(len(t.levels[0]))
	if first < 0 || count < 1 || count > all || first > all-count {
		return nil, fault.New(fault.Invalid, "seal: no leaves %d+%d in a tree of %d", first, count, all)
	}
	var proof [][32]byte
	var walk func(lo, hi int64)
	walk = func(lo, hi int64) {
		switch {
		case hi <= first || lo >= first+count:
			level := bits.Len64(uint64(hi - lo - 1))
			proof = append(proof, t.levels[level][lo>>level])
		case lo >= first && hi <= first+count:
		default:
			mid := lo + split(hi-lo)
			walk(lo, mid)
			walk(mid, hi)
		}
	}
	walk(0, all)
	return proof, nil
}

var errProof = errors.New("seal: the range does not lead to the root")

// VerifyRange checks that data are the bytes from leaf first on of the string of
// size bytes under root. The range must be whole leaves; only the string's last
// may be shorter. fault.Corrupt if data or proof do not lead to the root.
func VerifyRange(root [32]byte, size, first int64, data []byte, proof [][32]byte) error {
	if size < 1 || size > maxBytes || first < 0 || len(data) == 0 || first >= (size+sealedBytes-1)/sealedBytes {
		return fault.New(fault.Invalid, "seal: leaf %d and %d bytes in a string of %d", first, len(data), size)
	}
	at := first * sealedBytes
	end := at + int64(len(data))
	if end > size || (end != size && end%sealedBytes != 0) {
		return fault.New(fault.Invalid, "seal: the range %d+%d is not whole leaves", at, len(data))
	}
	h := newHashes()
	var leaves [][32]byte
	for rest := data; len(rest) > 0; {
		n := min(sealedBytes, len(rest))
		leaves = append(leaves, h.hash(rest[:n]))
		rest = rest[n:]
	}
	last := first + int64(len(leaves))
	var walk func(lo, hi int64) [32]byte
	walk = func(lo, hi int64) [32]byte {
		switch {
		case hi <= first || lo >= last:
			if len(proof) == 0 {
				return [32]byte{}
			}
			node := proof[0]
			proof = proof[1:]
			return node
		case lo >= first && hi <= last:
			return h.subtree(leaves[lo-first : hi-first])
		}
		mid := lo + split(hi-lo)
		left := walk(lo, mid)
		return h.join(left, walk(mid, hi))
	}
	top := walk(0, (size+sealedBytes-1)/sealedBytes)
	if h.seal(top, size) != root || len(proof) != 0 {
		return fault.New(fault.Corrupt, "leaf %d: %w", first, errProof)
	}
	return nil
}

// subtree is the top of a run of leaves.
func (h *hashes) subtree(leaves [][32]byte) [32]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	mid := split(int64(len(leaves)))
	left := h.subtree(leaves[:mid])
	return h.join(left, h.subtree(leaves[mid:]))
}

// split is where a run of n > 1 leaves divides: the largest power of two below n
// (the shape of RFC 6962).
func split(n int64) int64 { return 1 << (bits.Len64(uint64(n-1)) - 1) }

// VerifyRoot reads size bytes and checks them against a root: fault.Corrupt if
// they differ.
func VerifyRoot(r io.ReaderAt, size int64, root [32]byte) error {
	t, err := ReadTree(r, size)
	if err != nil {
		return fmt.Errorf("seal: verify: %w", err)
	}
	if t.root != root {
		return fault.New(fault.Corrupt, "seal: %d bytes do not match their root", size)
	}
	return nil
}
