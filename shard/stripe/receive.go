package stripe

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"

	"pelago/cluster/fault"
)

// Receive copies one shard as it comes from r to w, byte for byte, and returns its
// head and index once body, tail and hashes agree; whether it is the shard that was
// expected, the caller compares: the head's root with the seal's, and the index.
// It reads nothing behind the shard. Nothing of what was written counts before.
//
// limit bounds the bytes: a longer shard is fault.Full, before its body is read.
// fault.Corrupt for what is not whole, fault.Unsupported for a version that is not
// known. It ends when r does, and keeps 32 bytes for each leaf that came.
func Receive(r io.Reader, w io.Writer, limit int64) (head *Head, index int, err error) {
	lead, head, index, err := readLead(r)
	if err != nil {
		return nil, 0, err
	}
	f := head.form(index)
	if f.end > limit {
		return nil, 0, fault.New(fault.Full, "stripe: a shard of %d bytes where %d have room", f.end, limit)
	}
	if err := writeFull(w, lead); err != nil {
		return nil, 0, err
	}
	ctx, p := context.Background(), newPass() // what cancels r ends this
	leaves, err := p.copy(ctx, w, r, f.tail-f.body, nil)
	if err != nil {
		return nil, 0, err
	}
	tail, err := p.copy(ctx, w, r, f.leaves-f.tail, nil)
	if err != nil {
		return nil, 0, err
	}
	if err := head.receiveTrailer(r, w, leaves); err != nil {
		return nil, 0, err
	}
	if _, err := head.checkLeaves(index, leaves); err != nil {
		return nil, 0, err
	}
	if len(tail) > 0 {
		if err := head.checkTail(tail); err != nil {
			return nil, 0, err
		}
	}
	return head, index, nil
}

// receiveTrailer copies what follows body and tail, compares it with the hashes of
// the leaves that came, and completes the head.
func (h *Head) receiveTrailer(r io.Reader, w io.Writer, leaves [][32]byte) error {
	sum := crc32.New(castagnoli())
	both := io.MultiWriter(w, sum)
	var stored [hashBytes]byte
	buf := make([]byte, 0, min(len(leaves)*hashBytes, batchBytes))
	for len(leaves) > 0 {
		n := min(len(leaves), cap(buf)/hashBytes)
		if err := readFull(r, buf[:n*hashBytes]); err != nil {
			return err
		}
		for i, leaf := range leaves[:n] {
			if copy(stored[:], buf[:n*hashBytes][i*hashBytes:]); stored != leaf {
				return fault.New(fault.Corrupt, "stripe: a leaf of %v does not match its hash", h.Stripe)
			}
		}
		if err := writeFull(both, buf[:n*hashBytes]); err != nil {
			return err
		}
		leaves = leaves[n:]
	}
	end := make([]byte, h.rootsBytes()+checkBytes)
	if err := readFull(r, end); err != nil {
		return err
	}
	roots := end[:h.rootsBytes()]
	sum.Write(roots)
	if !bytes.Equal(end[len(roots):], binary.BigEndian.AppendUint32(nil, sum.Sum32())) {
		return fault.New(fault.Corrupt, "stripe: the hashes of %v fail their checksum", h.Stripe)
	}
	if err := h.parseRoots(roots); err != nil {
		return err
	}
	return writeFull(w, end)
}
