package shard

import (
	"fmt"

	"pelago/cluster/fault"
)

// Bounds of a code: a row of the layout has so many sites (DESIGN §5).
const (
	MaxShards = 16
	// SmallBytes is the longest ciphertext that is repeated rather than cut: its
	// shards are small, and one of them is enough to read it.
	SmallBytes = 512 << 10
)

// Code is how many data and parity shards a stripe has.
type Code struct {
	K int // data shards, from 1; each is a column
	M int // parity shards, from 0; so many may be lost
}

// N is how many shards there are.
func (c Code) N() int { return c.K + c.M }

func (c Code) String() string { return fmt.Sprintf("%d+%d", c.K, c.M) }

// Check returns fault.Invalid for what is no code.
func (c Code) Check() error {
	if c.K < 1 || c.M < 0 || c.K > MaxShards || c.M > MaxShards || c.N() > MaxShards {
		return fault.New(fault.Invalid, "shard: no code %d+%d: at least one data shard, and at most %d in all", c.K, c.M, MaxShards)
	}
	return nil
}

// For is the code of a pack of so many bytes of ciphertext in a network of this
// code: a small one is repeated, so that it survives as much.
func (c Code) For(ciphertext int64) Code {
	if ciphertext <= SmallBytes {
		return Code{K: 1, M: c.M}
	}
	return c
}

// Default is the code of a network of so many sites that hold shards, and how
// many of them it may lose without losing anything committed (DESIGN §7).
func Default(sites int) (c Code, survives int) {
	switch {
	case sites <= 1:
		return Code{K: 1}, 0
	case sites == 2:
		return Code{K: 1, M: 1}, 1
	case sites == 3:
		return Code{K: 1, M: 2}, 1
	case sites == 4:
		return Code{K: 2, M: 2}, 1
	case sites == 5:
		return Code{K: 2, M: 2}, 2
	case sites <= 8:
		return Code{K: 3, M: 3}, 2
	case sites <= 14:
		return Code{K: 5, M: 4}, 3
	case sites <= 24:
		return Code{K: 8, M: 4}, 3
	default:
		return Code{K: 10, M: 4}, 3
	}
}
