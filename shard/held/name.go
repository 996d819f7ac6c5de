package held

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"pelago/cluster/fault"
	"pelago/shard"
)

const (
	nameBytes  = 16 + 4 + 1
	entryBytes = nameBytes + 32
)

// Name names a shard for ever: what is under it never changes.
type Name struct {
	shard.Stripe
	Index int // in the stripe, from 0
}

func (n Name) String() string { return fmt.Sprintf("%s/%d", n.Stripe, n.Index) }

// append appends pack id, generation and index, whose order as bytes is that of
// lists, requests and receipts.
func (n Name) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, n.Pack[:]...), n.Generation)
	return append(b, byte(n.Index))
}

// parseName reads the name at the beginning of b; fault.Invalid if there is none.
func parseName(b []byte) (n Name, err error) {
	if len(b) < nameBytes {
		return n, fault.New(fault.Invalid, "held: a shard's name is cut off")
	}
	copy(n.Pack[:], b)
	n.Generation, n.Index = binary.BigEndian.Uint32(b[16:]), int(b[20])
	return n, n.check()
}

func (n Name) check() error {
	if n.Generation == 0 || n.Index < 0 || n.Index >= shard.MaxShards {
		return fault.New(fault.Invalid, "held: no shard %d of generation %d", n.Index, n.Generation)
	}
	return nil
}

// Compare is the order of names in lists, requests and receipts.
func Compare(a, b Name) int {
	return bytes.Compare(a.append(make([]byte, 0, nameBytes)), b.append(make([]byte, 0, nameBytes)))
}

// Entry is a shard and the root of its stripe, which says what its bytes are.
type Entry struct {
	Name
	Root [32]byte
}

func (e Entry) append(b []byte) []byte { return append(e.Name.append(b), e.Root[:]...) }

func parseEntry(b []byte) (e Entry, err error) {
	if len(b) < entryBytes {
		return e, fault.New(fault.Invalid, "held: an entry is cut off")
	}
	e.Name, err = parseName(b)
	copy(e.Root[:], b[nameBytes:])
	return e, err
}

// SortEntries puts entries in the order in which requests and receipts have them.
func SortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return Compare(a.Name, b.Name) })
}

// inOrder checks that a list is not empty, not too long, ascending and without
// doubles.
func inOrder[E any](list []E, name func(*E) Name) error {
	if len(list) < 1 || len(list) > MaxBatch {
		return fault.New(fault.Invalid, "held: a batch of %d shards, at most %d", len(list), MaxBatch)
	}
	for i := range list {
		if err := name(&list[i]).check(); err != nil {
			return err
		}
		if i > 0 && Compare(name(&list[i-1]), name(&list[i])) >= 0 {
			return fault.New(fault.Invalid, "held: a batch whose shards do not ascend")
		}
	}
	return nil
}

func entryName(e *Entry) Name { return e.Name }
