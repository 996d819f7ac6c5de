package stripe

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"

	"pelago/cluster/fault"
	"pelago/shard/seal"
)

// Shard is one that can be read: as it rests ([Open]), or cut from a full copy of
// the ciphertext ([Copy.Shard]). Safe for concurrent use if what it reads from is.
type Shard struct {
	head  *Head
	index int
	body  io.ReaderAt
	tail  io.ReaderAt // nil if it has no copy of it
	tree  *seal.Tree
}

// Open opens a shard of size bytes as [Coder.Encode] wrote it. It reads beginning
// and end, and checks them against each other; the body is checked when it is read.
// fault.Corrupt for what is no shard or has another length, fault.Unsupported for a
// version that is not known.
func Open(r io.ReaderAt, size int64) (*Shard, error) {
	lead := io.NewSectionReader(r, 0, min(size, maxLeadBytes))
	_, head, index, err := readLead(lead)
	if err != nil {
		return nil, err
	}
	f := head.form(index)
	if size != f.end {
		return nil, fault.New(fault.Corrupt, "stripe: shard %d of %v has %d bytes, not %d", index, head.Stripe, size, f.end)
	}
	trailer := make([]byte, f.end-f.leaves)
	if err := readFullAt(r, trailer, f.leaves); err != nil {
		return nil, err
	}
	hashes, check := trailer[:len(trailer)-checkBytes], trailer[len(trailer)-checkBytes:]
	if binary.BigEndian.Uint32(check) != crc32.Checksum(hashes, castagnoli()) {
		return nil, fault.New(fault.Corrupt, "stripe: the hashes of %v fail their checksum", head.Stripe)
	}
	if err := head.parseRoots(hashes[f.roots-f.leaves:]); err != nil {
		return nil, err
	}
	tree, err := head.checkLeaves(index, slices.Collect(hashesIn(hashes[:f.roots-f.leaves])))
	if err != nil {
		return nil, err
	}
	s := &Shard{head: head, index: index, tree: tree, body: io.NewSectionReader(r, f.body, f.tail-f.body)}
	if f.leaves > f.tail {
		s.tail = io.NewSectionReader(r, f.tail, f.leaves-f.tail)
	}
	return s, nil
}

// Head is the stripe's. It must not be changed.
func (s *Shard) Head() *Head { return s.head }

// Index is which shard of the stripe it is.
func (s *Shard) Index() int { return s.index }

// bodyBytes is the length of the body.
func (s *Shard) bodyBytes() int64 {
	g, err := s.head.Geometry()
	if err != nil {
		panic(err) // it was checked
	}
	return g.ShardBytes(s.index)
}

// Range reads count leaves of the body from first on, verifies them, and returns
// with them the proof that [seal.VerifyRange] wants, beside the shard's root in the
// head and the body's length. It takes as much memory as it returns: who asks for
// others bounds count. fault.Invalid for leaves that the body does not have,
// fault.Corrupt for bytes that are not the shard's.
func (s *Shard) Range(first, count int64) (data []byte, proof [][32]byte, err error) {
	proof, err = s.tree.Proof(first, count)
	if err != nil {
		return nil, nil, err
	}
	at := first * seal.LeafBytes
	data = make([]byte, min(count*seal.LeafBytes, s.bodyBytes()-at))
	if err := readFullAt(s.body, data, at); err != nil {
		return nil, nil, err
	}
	got := seal.NewLeafHasher().Append(make([][32]byte, 0, count), data)
	for i, want := range s.tree.Leaves()[first : first+count] {
		if got[i] != want {
			return nil, nil, fault.New(fault.Corrupt, "stripe: leaf %d of shard %d of %v does not match its hash", first+int64(i), s.index, s.head.Stripe)
		}
	}
	return data, proof, nil
}

// Tail reads the stripe's tail, or is nil if this shard does not carry it. Its
// bytes are those of sealed segments, and not verified here: their root is in the
// head, and who can open them authenticates each.
func (s *Shard) Tail() *io.SectionReader {
	offset, length := s.head.TailRange()
	switch {
	case s.head.Code.K == 1:
		return io.NewSectionReader(s.body, offset, length)
	case s.tail != nil:
		return io.NewSectionReader(s.tail, 0, length)
	}
	return nil
}

// Verify reads all of the shard: fault.Corrupt if anything of it is not what it
// was. Of a shard that rests, the parts that Open read are taken as they were.
func (s *Shard) Verify(ctx context.Context) error { return s.Write(ctx, io.Discard) }

// Write writes the shard as it rests and travels, verified: nothing that does not
// match is written, and what was written is void unless the error is nil.
func (s *Shard) Write(ctx context.Context, w io.Writer) error {
	return write(ctx, w, s.head, s.index, s.body, s.tail, s.tree.Leaves())
}

// Rebuild writes shard index of a stripe as it rests and travels, from its body,
// which may be made from others ([Coder.Body]), and a tail, which is not read where
// the shard has no copy of it. Both are read once and compared with the head, whose
// root the caller compared with the seal's. fault.Corrupt if they differ; what was
// written is void unless the error is nil.
func Rebuild(ctx context.Context, w io.Writer, head *Head, index int, body, tail io.ReaderAt) error {
	if err := head.check(); err != nil {
		return fault.New(fault.Invalid, "stripe: %w", err)
	}
	if err := head.checkPlan(index); err != nil {
		return fault.New(fault.Invalid, "stripe: %w", err)
	}
	return write(ctx, w, head, index, body, tail, nil)
}

func write(ctx context.Context, w io.Writer, head *Head, index int, body, tail io.ReaderAt, known [][32]byte) error {
	f, p := head.form(index), newPass()
	if err := writeFull(w, head.appendLead(nil, index)); err != nil {
		return err
	}
	leaves, err := p.copy(ctx, w, io.NewSectionReader(body, 0, f.tail-f.body), f.tail-f.body, known)
	if err != nil {
		return err
	}
	if _, err := head.checkLeaves(index, leaves); err != nil {
		return err
	}
	if length := f.leaves - f.tail; length > 0 {
		copied, err := p.copy(ctx, w, io.NewSectionReader(tail, 0, length), length, nil)
		if err != nil {
			return err
		}
		if err := head.checkTail(copied); err != nil {
			return err
		}
	}
	return writeTrailer(w, head, leaves)
}
