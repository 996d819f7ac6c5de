package stripe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// A shard is: lead (plan, index, checksum), body, tail, the hashes of the body's
// leaves, the hashes of the head, checksum of both.

const (
	checkBytes   = 4
	maxLeadBytes = fixedBytes + maxOrigin + 1 + checkBytes
	// batchLeaves are read, hashed and written at a time: 256 KiB, so that they are
	// in the cache when they are written.
	batchLeaves = 16
	batchBytes  = batchLeaves * seal.LeafBytes
)

// form is where the parts of a shard are, in bytes from its beginning.
type form struct {
	body, tail, leaves, roots, end int64
}

// form needs a checked plan and index.
func (h *Head) form(index int) form {
	g, err := h.Geometry()
	if err != nil {
		panic(err) // the plan was checked
	}
	var f form
	f.body = int64(fixedBytes + len(h.Origin) + 1 + checkBytes)
	f.tail = f.body + g.ShardBytes(index)
	f.leaves = f.tail + h.tailBytes(index)
	f.roots = f.leaves + leavesOf(g.ShardBytes(index))*hashBytes
	f.end = f.roots + int64(h.rootsBytes()) + checkBytes
	return f
}

func leavesOf(bytes int64) int64 { return (bytes + seal.LeafBytes - 1) / seal.LeafBytes }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func (h *Head) appendLead(b []byte, index int) []byte {
	from := len(b)
	b = append(h.appendPlan(b), byte(index))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli()))
}

// readLead reads and checks a lead. It returns its bytes too, and a head without
// its hashes.
func readLead(r io.Reader) (lead []byte, h *Head, index int, err error) {
	var buf [maxLeadBytes]byte
	fixed := buf[:fixedBytes]
	if err := readFull(r, fixed); err != nil {
		return nil, nil, 0, err
	}
	if err := checkVersion(fixed); err != nil {
		return nil, nil, 0, err
	}
	if originBytes(fixed) > maxOrigin {
		return nil, nil, 0, fault.New(fault.Corrupt, "stripe: an origin's id of %d bytes", originBytes(fixed))
	}
	lead = buf[:fixedBytes+originBytes(fixed)+1+checkBytes]
	if err := readFull(r, lead[fixedBytes:]); err != nil {
		return nil, nil, 0, err
	}
	checked := lead[:len(lead)-checkBytes]
	if binary.BigEndian.Uint32(lead[len(checked):]) != crc32.Checksum(checked, castagnoli()) {
		return nil, nil, 0, fault.New(fault.Corrupt, "stripe: a shard's first bytes fail their checksum")
	}
	h, rest, err := parsePlan(checked)
	if err != nil {
		return nil, nil, 0, err
	}
	index = int(rest[0])
	if err := h.checkPlan(index); err != nil {
		return nil, nil, 0, fault.New(fault.Corrupt, "stripe: %w", err)
	}
	return lead, h, index, nil
}

// writeTrailer writes what follows body and tail.
func writeTrailer(w io.Writer, h *Head, leaves [][32]byte) error {
	sum := crc32.New(castagnoli())
	buf := make([]byte, 0, min(len(leaves)*hashBytes, batchBytes)+h.rootsBytes()+checkBytes)
	for len(leaves) > 0 {
		n := min(len(leaves), batchBytes/hashBytes)
		buf = buf[:0]
		for _, leaf := range leaves[:n] {
			buf = append(buf, leaf[:]...)
		}
		if leaves = leaves[n:]; len(leaves) > 0 {
			sum.Write(buf)
			if err := writeFull(w, buf); err != nil {
				return err
			}
		}
	}
	buf = h.appendRoots(buf)
	sum.Write(buf)
	return writeFull(w, sum.Sum(buf))
}

// checkLeaves tells whether a body with these leaves is the shard's that a complete
// head describes. It returns its tree.
func (h *Head) checkLeaves(index int, leaves [][32]byte) (*seal.Tree, error) {
	g, err := h.Geometry()
	if err != nil {
		return nil, err
	}
	tree, err := seal.NewTree(leaves, g.ShardBytes(index))
	if err != nil {
		return nil, err
	}
	if tree.Root() != h.Roots[index] {
		return nil, fault.New(fault.Corrupt, "stripe: the body of shard %d of %v does not match its root", index, h.Stripe)
	}
	if h.Code.K == 1 {
		offset, _ := h.TailRange()
		if err := h.checkTail(leaves[offset/seal.LeafBytes:]); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// checkTail tells whether a tail with these leaves is the stripe's.
func (h *Head) checkTail(leaves [][32]byte) error {
	_, length := h.TailRange()
	tree, err := seal.NewTree(leaves, length)
	if err != nil {
		return err
	}
	if tree.Root() != h.Tail {
		return fault.New(fault.Corrupt, "stripe: the tail of %v does not match its root", h.Stripe)
	}
	return nil
}

// pass hashes bytes on their way. It is for one goroutine.
type pass struct {
	hash *seal.LeafHasher
	buf  []byte
}

func newPass() *pass { return &pass{hash: seal.NewLeafHasher()} }

// copy reads size bytes, writes them to w, and returns the hashes of their leaves.
// Where these are known, no bytes of another hash are written (fault.Corrupt).
func (p *pass) copy(ctx context.Context, w io.Writer, r io.Reader, size int64, known [][32]byte) ([][32]byte, error) {
	if need := int(min(size, batchBytes)); len(p.buf) < need {
		p.buf = make([]byte, need)
	}
	var leaves [][32]byte
	for size > 0 {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("stripe: %w", err)
		}
		b := p.buf[:min(size, batchBytes)]
		size -= int64(len(b))
		if err := readFull(r, b); err != nil {
			return nil, err
		}
		from := len(leaves)
		leaves = p.hash.Append(leaves, b)
		for i := from; known != nil && i < len(leaves); i++ {
			if i >= len(known) || known[i] != leaves[i] {
				return nil, fault.New(fault.Corrupt, "stripe: leaf %d does not match its hash", i)
			}
		}
		if err := writeFull(w, b); err != nil {
			return nil, err
		}
	}
	return leaves, nil
}

// readFull reads all of b. An end before it is broken bytes, unless the source gives
// it a kind of its own: an answer of another node that breaks off.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return ended(err)
}

// readFullAt is readFull of a range.
func readFullAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	return ended(err)
}

func ended(err error) error {
	switch {
	case err == nil:
		return nil
	case fault.KindOf(err) == fault.Other && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return fault.New(fault.Corrupt, "stripe: the bytes end too early: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("stripe: read: %w", err)
}

func writeFull(w io.Writer, b []byte) error {
	n, err := w.Write(b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("stripe: write: %w", err)
	}
	return nil
}
