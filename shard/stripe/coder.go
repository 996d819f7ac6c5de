package stripe

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/reedsolomon"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// Coder makes shards. Safe for concurrent use; it keeps what it worked out about
// codes and losses, and is worth keeping.
type Coder struct {
	mu      sync.Mutex
	kernels map[kernelKey]reedsolomon.Encoder
}

// NewCoder returns a coder of all codes.
func NewCoder() *Coder { return &Coder{kernels: make(map[kernelKey]reedsolomon.Encoder)} }

// kernelKey says what is made of what; indexes are bits.
type kernelKey struct {
	k          int
	from, want uint16
}

// maxKernels is how many are kept, of 1 to 2 KB: what one network's losses need is
// far below, and a kernel takes some 10 µs to make.
const maxKernels = 1024

// kernel multiplies by the matrix that makes the wanted shards from k others. The
// library is only asked to multiply: its own matrices and its choice of what to
// decode from are not used.
func (c *Coder) kernel(k int, from, want []int) (reedsolomon.Encoder, error) {
	key := kernelKey{k: k, from: bitsOf(from), want: bitsOf(want)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.kernels[key]; found != nil {
		return found, nil
	}
	// One goroutine: rows are short, and the machine has other packs to encode.
	made, err := reedsolomon.New(k, len(want), reedsolomon.WithCustomMatrix(solve(k, from, want)),
		reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, fmt.Errorf("stripe: %w", err)
	}
	if len(c.kernels) >= maxKernels {
		clear(c.kernels)
	}
	c.kernels[key] = made
	return made, nil
}

func bitsOf(indexes []int) (bits uint16) {
	for _, i := range indexes {
		bits |= 1 << i
	}
	return bits
}

// multiply makes the wanted shards' bytes from those of k others; all slices are of
// one length, and both lists of indexes ascend.
func (c *Coder) multiply(k int, from []int, in [][]byte, want []int, out [][]byte) error {
	kernel, err := c.kernel(k, from, want)
	if err != nil {
		return err
	}
	if err := kernel.Encode(slices.Concat(in, out)); err != nil {
		return fmt.Errorf("stripe: %w", err)
	}
	return nil
}

var errPadding = errors.New("what stands for bytes behind the end is not zero")

// Recover makes the leaves [first, first+count) of the body of shard want from the
// same leaves of k others. have has them by index, each as far as the shard has
// them: the last leaf of the last column may be short, and a column may lack the
// last row, and need not be there then. What is in have must have been verified;
// of more than k, columns are used before parity.
//
// fault.Invalid for leaves that the shard does not have, and for bytes of another
// length than the geometry gives them; fault.Unavailable for fewer than k;
// fault.Corrupt if bytes beyond the shard's end would not be zeros, which tells
// that what it was made from is not of one stripe. A result has no other proof:
// whoever keeps a whole body compares its root, whoever opens it authenticates.
func (c *Coder) Recover(g shard.Geometry, want int, first, count int64, have map[int][]byte) ([]byte, error) {
	if _, err := shard.NewGeometry(g.Code, g.Size); err != nil {
		return nil, err
	}
	if want < 0 || want >= g.N() {
		return nil, fault.New(fault.Invalid, "stripe: shard %d of %v", want, g.Code)
	}
	if all := leavesOf(g.ShardBytes(want)); first < 0 || count < 1 || first >= all || count > all-first {
		return nil, fault.New(fault.Invalid, "stripe: leaves %d+%d of %d", first, count, all)
	}
	for i, b := range have {
		if i < 0 || i >= g.N() || int64(len(b)) != rangeBytes(g, i, first, count) {
			return nil, fault.New(fault.Invalid, "stripe: %d bytes for leaves %d+%d of shard %d", len(b), first, count, i)
		}
	}
	from := choose(g, want, first, count, func(i int) bool { _, ok := have[i]; return ok })
	if len(from) < g.K {
		return nil, fault.New(fault.Unavailable, "stripe: %d of the %d shards that shard %d is made from", len(from), g.K, want)
	}
	if g.K == 1 {
		return bytes.Clone(have[from[0]]), nil
	}
	length := int(count) * seal.LeafBytes
	in := make([][]byte, g.K)
	for j, i := range from {
		if in[j] = have[i]; len(in[j]) < length {
			in[j] = make([]byte, length)
			copy(in[j], have[i])
		}
	}
	out := make([]byte, length)
	if err := c.multiply(g.K, from, in, []int{want}, [][]byte{out}); err != nil {
		return nil, err
	}
	end := rangeBytes(g, want, first, count)
	for _, b := range out[end:] {
		if b != 0 {
			return nil, fault.New(fault.Corrupt, "stripe: shard %d: %w", want, errPadding)
		}
	}
	return out[:end], nil
}

// rangeBytes is how many bytes shard i has in leaves [first, first+count).
func rangeBytes(g shard.Geometry, i int, first, count int64) int64 {
	return max(0, min(count*seal.LeafBytes, g.ShardBytes(i)-first*seal.LeafBytes))
}

// choose lists k shards, in ascending order, that a range of another is made from,
// or fewer if there are not so many. A column without bytes in it is known.
func choose(g shard.Geometry, want int, first, count int64, have func(index int) bool) (from []int) {
	for i := 0; i < g.N() && len(from) < g.K; i++ {
		if i != want && (have(i) || rangeBytes(g, i, first, count) == 0) {
			from = append(from, i)
		}
	}
	return from
}
