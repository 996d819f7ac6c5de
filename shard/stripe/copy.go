package stripe

import (
	"context"
	"io"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// Copy is a full copy of a ciphertext that was verified against a stripe's head,
// and can stand for every shard of it. Safe for concurrent use if the ciphertext
// is. It keeps 32 bytes for each leaf.
type Copy struct {
	coder  *Coder
	head   *Head
	g      shard.Geometry
	from   io.ReaderAt
	leaves [][32]byte
}

// Copy reads a full copy of the ciphertext and verifies it against a head, whose
// root the caller compared with the seal's: only then may a shard count that is cut
// from it. fault.Corrupt for another ciphertext, fault.Invalid for no head.
func (c *Coder) Copy(ctx context.Context, ciphertext io.ReaderAt, head *Head) (*Copy, error) {
	if err := head.check(); err != nil {
		return nil, fault.New(fault.Invalid, "stripe: %w", err)
	}
	g, err := head.Geometry()
	if err != nil {
		return nil, err
	}
	leaves, err := newPass().copy(ctx, io.Discard, io.NewSectionReader(ciphertext, 0, g.Size), g.Size, nil)
	if err != nil {
		return nil, err
	}
	pack, err := seal.NewTree(leaves, g.Size)
	if err != nil {
		return nil, err
	}
	if pack.Root() != head.Pack {
		return nil, fault.New(fault.Corrupt, "stripe: a copy of %v does not match its root", head.Stripe)
	}
	y := &Copy{coder: c, head: head, g: g, from: ciphertext, leaves: leaves}
	for i := range g.K {
		if _, err := head.checkLeaves(i, y.column(i)); err != nil {
			return nil, err
		}
	}
	offset, _ := head.TailRange()
	if err := head.checkTail(leaves[offset/seal.LeafBytes:]); err != nil {
		return nil, err
	}
	return y, nil
}

// column are the leaves of column i.
func (y *Copy) column(i int) [][32]byte {
	offset, length := y.g.Column(i)
	first := offset / seal.LeafBytes
	return y.leaves[first : first+leavesOf(length)]
}

// Shard is shard index, cut from the copy: a column costs the inner nodes of its
// tree; parity is computed, all of it at once for its tree, and again for what is
// read of it.
func (y *Copy) Shard(ctx context.Context, index int) (*Shard, error) {
	if index < 0 || index >= y.g.N() {
		return nil, fault.New(fault.Invalid, "stripe: shard %d of %v", index, y.g.Code)
	}
	s := &Shard{head: y.head, index: index}
	var leaves [][32]byte
	if index < y.g.K || y.g.K == 1 {
		body, err := Column(y.from, y.head, index)
		if err != nil {
			return nil, err
		}
		s.body, leaves = body, y.column(min(index, y.g.K-1))
	} else {
		body, err := y.parity(index)
		if err != nil {
			return nil, err
		}
		size := y.g.ShardBytes(index)
		if leaves, err = newPass().copy(ctx, io.Discard, io.NewSectionReader(body, 0, size), size, nil); err != nil {
			return nil, err
		}
		s.body = body
	}
	tree, err := y.head.checkLeaves(index, leaves)
	if err != nil {
		return nil, err
	}
	s.tree = tree
	if length := y.head.tailBytes(index); length > 0 {
		offset, _ := y.head.TailRange()
		s.tail = io.NewSectionReader(y.from, offset, length)
	}
	return s, nil
}

func (y *Copy) parity(index int) (io.ReaderAt, error) {
	columns := make(map[int]io.ReaderAt, y.g.K)
	for i := range y.g.K {
		offset, length := y.g.Column(i)
		columns[i] = io.NewSectionReader(y.from, offset, length)
	}
	return y.coder.Body(y.g, index, columns)
}

// Column reads the body of a shard from a ciphertext, as it is: for who opens what
// is read, which authenticates it, or has it verified otherwise. fault.Invalid for
// parity, unless that is the ciphertext.
func Column(ciphertext io.ReaderAt, head *Head, index int) (*io.SectionReader, error) {
	g, err := head.Geometry()
	if err != nil {
		return nil, err
	}
	if index < 0 || index >= g.N() || index >= g.K && g.K > 1 {
		return nil, fault.New(fault.Invalid, "stripe: shard %d of %v is no column", index, g.Code)
	}
	offset, length := g.Column(min(index, g.K-1))
	return io.NewSectionReader(ciphertext, offset, length), nil
}
