package shard

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
)

// LeafBytes is what a leaf of a shard's hash tree covers, and the unit in which
// shards are cut, asked for and made: a sealed segment (shard/seal).
const LeafBytes = 16_400

// Stripe names a codeword: a pack, and which time it is striped. Its placement
// group is of the pack alone, so that all generations are of one.
type Stripe struct {
	Pack       [16]byte
	Generation uint32 // from 1
}

func (s Stripe) String() string {
	return fmt.Sprintf("%s.%d", hex.EncodeToString(s.Pack[:]), s.Generation)
}

// Spread is the place of a pack among all, evenly random: packs of a placement
// group are neighbours in it, however many groups there are.
func Spread(pack [16]byte) uint64 {
	sum := blake3.Sum256(pack[:])
	return binary.BigEndian.Uint64(sum[:8])
}

// Group is the placement group of a pack among so many, a power of two: the upper
// bits of its [Spread].
func Group(pack [16]byte, groups int) int {
	return int(Spread(pack) >> (65 - bits.Len(uint(groups)))) //nolint:gosec // both are small
}

// Geometry is where the bytes of a ciphertext are in the shards of its stripe.
type Geometry struct {
	Code
	Size int64 // of the ciphertext, at least 1
}

// NewGeometry is checked: fault.Invalid for no code or no bytes, or for a
// ciphertext with fewer leaves than data shards.
func NewGeometry(c Code, size int64) (Geometry, error) {
	if err := c.Check(); err != nil {
		return Geometry{}, err
	}
	g := Geometry{Code: c, Size: size}
	if size < 1 || g.Leaves() < int64(c.K) {
		return Geometry{}, fault.New(fault.Invalid, "shard: %d bytes cannot be cut into %d columns", size, c.K)
	}
	return g, nil
}

// Leaves is how many the ciphertext has; the last may be shorter.
func (g Geometry) Leaves() int64 { return (g.Size + LeafBytes - 1) / LeafBytes }

// firstLeaf is the first one of a column, or the number of all for column k.
func (g Geometry) firstLeaf(column int) int64 {
	each, more := g.Leaves()/int64(g.K), g.Leaves()%int64(g.K)
	return int64(column)*each + min(int64(column), more)
}

// Column is the range of the ciphertext that a data shard, from 0, holds.
func (g Geometry) Column(i int) (offset, length int64) {
	offset = g.firstLeaf(i) * LeafBytes
	return offset, min(g.firstLeaf(i+1)*LeafBytes, g.Size) - offset
}

// Rows is how many leaves the longest shard has: leaf j of every shard, where it
// has one, belongs to row j.
func (g Geometry) Rows() int64 { return g.firstLeaf(1) }

// ShardBytes is the length of shard i from 0: of a column, or of parity, which is
// as long as the longest column.
func (g Geometry) ShardBytes(i int) int64 {
	if i >= g.K {
		i = 0 // none is longer than the first
	}
	_, length := g.Column(i)
	return length
}

// Locate returns the column that holds a byte of the ciphertext, and its offset
// in that. at is from 0 to Size-1.
func (g Geometry) Locate(at int64) (column int, offset int64) {
	each, more := g.Leaves()/int64(g.K), g.Leaves()%int64(g.K)
	leaf := at / LeafBytes
	if leaf < more*(each+1) {
		column = int(leaf / (each + 1))
	} else {
		column = int(more + (leaf-more*(each+1))/each)
	}
	return column, at - g.firstLeaf(column)*LeafBytes
}
