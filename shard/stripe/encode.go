package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// windowBytes is about what the rows take that are encoded together, of all
// shards: they are read, coded, hashed and written while the processor's second
// cache holds them, or nearly.
const windowBytes = 1 << 20

// ErrMiscoded is the error of an encoding that did not prove itself: parity that
// does not decode to the data. Memory or processor cannot be trusted; the
// ciphertext may well be whole.
var ErrMiscoded = errors.New("stripe: what was encoded does not decode to what it was encoded from")

// Encode makes the shards of a stripe. It reads the ciphertext once, row by row
// (its tail, of the manifest alone, once more), writes shard i to to[i] as it rests
// and travels, those of nil writers not at all, and returns the complete head. In
// head the plan is set, and Pack, the root that the ciphertext had when it was
// sealed; a Pack of zeros is not compared, and filled in.
//
// What was written is void unless the error is nil: by then all parity was decoded
// from a subset of shards that holds it and compared with the data, and the data
// was what was sealed. fault.Corrupt for another ciphertext, [ErrMiscoded] for
// parity that failed; an error of a writer ends it, so that a caller who can do
// without one hides its errors from here.
func (c *Coder) Encode(ctx context.Context, ciphertext io.ReaderAt, head Head, to []io.Writer) (*Head, error) {
	e, err := c.newEncoding(ciphertext, head, to)
	if err != nil {
		return nil, err
	}
	for i := range to {
		if err := e.write(i, e.head.appendLead(nil, i)); err != nil {
			return nil, err
		}
	}
	for row := int64(0); row < e.g.Rows(); row += e.rows {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("stripe: %w", err)
		}
		if err := e.window(row, min(e.rows, e.g.Rows()-row)); err != nil {
			return nil, err
		}
	}
	if err := e.complete(); err != nil {
		return nil, err
	}
	if err := e.end(ctx); err != nil {
		return nil, err
	}
	complete := e.head // and not the windows with it
	return &complete, nil
}

// encoding is one call of Encode.
type encoding struct {
	coder *Coder
	g     shard.Geometry
	head  Head
	from  io.ReaderAt
	to    []io.Writer
	hash  *seal.LeafHasher
	// leaves are the hashes of each column's and parity shard's, so far.
	leaves [][][32]byte

	// The window: so many rows, of k columns, m parity shards, and what is decoded
	// to be compared.
	rows                 int64
	data, parity, proved [][]byte
	windows              int      // before this one
	factors              [][]byte // by which parity is made of columns
}

func (c *Coder) newEncoding(ciphertext io.ReaderAt, head Head, to []io.Writer) (*encoding, error) {
	head.Roots = nil
	if err := head.checkPlan(0); err != nil {
		return nil, fault.New(fault.Invalid, "stripe: %w", err)
	}
	g, err := head.Geometry()
	if err != nil {
		return nil, err
	}
	if len(to) != g.N() {
		return nil, fault.New(fault.Invalid, "stripe: %d writers for %v", len(to), g.Code)
	}
	e := &encoding{coder: c, g: g, head: head, from: ciphertext, to: to, hash: seal.NewLeafHasher()}
	parity := g.M
	if g.K == 1 {
		parity = 0 // every shard is the column
	}
	e.leaves = make([][][32]byte, g.K+parity)
	e.rows = min(g.Rows(), max(1, windowBytes/seal.LeafBytes/int64(len(e.leaves))))
	e.data, e.parity, e.proved = e.buffers(g.K), e.buffers(parity), e.buffers(min(g.K, parity))
	for i := range e.parity {
		e.factors = append(e.factors, generatorRow(g.K, g.K+i))
	}
	return e, nil
}

func (e *encoding) buffers(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, e.rows*seal.LeafBytes)
	}
	return out
}

// window takes a few rows from the ciphertext to the writers. The order in which
// bytes are hashed and compared leaves no moment in which a bit may change that
// nobody looks at afterwards: parity is hashed before it is decoded, data after;
// and whoever receives a shard hashes it again.
func (e *encoding) window(row, rows int64) error {
	if err := e.read(row, rows); err != nil {
		return err
	}
	data, parity := cut(e.data, rows), cut(e.parity, rows)
	if len(parity) > 0 {
		if err := e.coder.multiply(e.g.K, indexes(0, e.g.K), data, indexes(e.g.K, e.g.M), parity); err != nil {
			return err
		}
		for i, b := range parity {
			e.leaves[e.g.K+i] = e.hash.Append(e.leaves[e.g.K+i], b)
		}
		if err := e.prove(data, parity); err != nil {
			return err
		}
	}
	for i := range data {
		data[i] = data[i][:rangeBytes(e.g, i, row, rows)]
		e.leaves[i] = e.hash.Append(e.leaves[i], data[i])
	}
	e.windows++
	shards := append(data, parity...)
	for i := range e.to {
		if err := e.write(i, shards[min(i, len(shards)-1)]); err != nil {
			return err
		}
	}
	return nil
}

// read fills the window's columns, and what a column lacks with zeros.
func (e *encoding) read(row, rows int64) error {
	for i, b := range cut(e.data, rows) {
		n := rangeBytes(e.g, i, row, rows)
		offset, _ := e.g.Column(i)
		if n > 0 {
			if err := readFullAt(e.from, b[:n], offset+row*seal.LeafBytes); err != nil {
				return err
			}
		}
		clear(b[n:])
	}
	return nil
}

// prove decodes columns from parity and compares them with what they were, so many
// at a time as there is parity, and others in each window. Where every parity shard
// is decoded from, no byte of it can be wrong unnoticed: wrong parity of a byte is
// a vector that is not zero, and the matrix by which it changes the decoded columns
// can be inverted. Where m > k this takes several rounds.
//
// Some bytes are also computed without vector instructions, the last ones of every
// row among them: a fault in those that encoding and decoding have in common would
// cancel itself out.
func (e *encoding) prove(data, parity [][]byte) error {
	k, m := e.g.K, e.g.M
	lost := min(k, m)
	for done := 0; done < m; done += lost {
		begin := min(done, m-lost) // the last round repeats some
		var from, want []int
		var in, was [][]byte
		for i := range k {
			if (i+e.windows)%k < lost {
				want, was = append(want, i), append(was, data[i])
			} else {
				from, in = append(from, i), append(in, data[i])
			}
		}
		from = append(from, indexes(k+begin, lost)...)
		in = append(in, parity[begin:begin+lost]...)
		proved := cut(e.proved, int64(len(data[0])/seal.LeafBytes))
		if err := e.coder.multiply(k, from, in, want, proved); err != nil {
			return err
		}
		for i := range proved {
			if !bytes.Equal(proved[i], was[i]) {
				return fmt.Errorf("column %d of %v: %w", want[i], e.head.Stripe, ErrMiscoded)
			}
		}
	}
	return e.sample(data, parity)
}

// sample computes two bytes of every leaf of parity slowly.
func (e *encoding) sample(data, parity [][]byte) error {
	for i := range parity {
		for leaf := 0; leaf < len(data[0]); leaf += seal.LeafBytes {
			inside := (e.windows*1009 + leaf/seal.LeafBytes*64) % seal.LeafBytes
			for _, at := range []int{leaf + inside, leaf + seal.LeafBytes - 1} {
				var sum byte
				for column, factor := range e.factors[i] {
					sum ^= product(factor, data[column][at])
				}
				if sum != parity[i][at] {
					return fmt.Errorf("parity %d of %v: %w", i, e.head.Stripe, ErrMiscoded)
				}
			}
		}
	}
	return nil
}

// complete computes the hashes of the head from those of the leaves. Columns and
// tail begin on leaves of the ciphertext, so that theirs are its own.
func (e *encoding) complete() error {
	all := slices.Concat(e.leaves[:e.g.K]...)
	pack, err := seal.NewTree(all, e.g.Size)
	if err != nil {
		return err
	}
	if e.head.Pack != ([32]byte{}) && e.head.Pack != pack.Root() {
		return fault.New(fault.Corrupt, "stripe: the ciphertext of %v is not what was sealed", e.head.Stripe)
	}
	e.head.Pack = pack.Root()
	offset, length := e.head.TailRange()
	tail, err := seal.NewTree(all[offset/seal.LeafBytes:], length)
	if err != nil {
		return err
	}
	e.head.Tail = tail.Root()
	for i := range e.g.N() {
		if e.g.K == 1 {
			e.head.Roots = append(e.head.Roots, e.head.Pack)
			continue
		}
		tree, err := seal.NewTree(e.leaves[i], e.g.ShardBytes(i))
		if err != nil {
			return err
		}
		e.head.Roots = append(e.head.Roots, tree.Root())
	}
	return nil
}

// end writes tails and trailers.
func (e *encoding) end(ctx context.Context) error {
	offset, length := e.head.TailRange()
	if slices.ContainsFunc(indexes(0, e.g.N()), e.copiesTail) {
		known := slices.Concat(e.leaves[:e.g.K]...)[offset/seal.LeafBytes:]
		_, err := newPass().copy(ctx, tails{e}, io.NewSectionReader(e.from, offset, length), length, known)
		if err != nil {
			return err
		}
	}
	for i, w := range e.to {
		if w == nil {
			continue
		}
		if err := writeTrailer(w, &e.head, e.leaves[min(i, len(e.leaves)-1)]); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

func (e *encoding) copiesTail(i int) bool { return e.to[i] != nil && e.head.tailBytes(i) > 0 }

// tails writes to all shards that copy the tail.
type tails struct{ *encoding }

func (t tails) Write(b []byte) (int, error) {
	for i := range t.to {
		if t.copiesTail(i) {
			if err := t.write(i, b); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

func (e *encoding) write(i int, b []byte) error {
	if e.to[i] == nil || len(b) == 0 {
		return nil
	}
	if err := writeFull(e.to[i], b); err != nil {
		return fmt.Errorf("shard %d: %w", i, err)
	}
	return nil
}

// cut returns the first rows of each buffer.
func cut(buffers [][]byte, rows int64) [][]byte {
	out := make([][]byte, len(buffers))
	for i, b := range buffers {
		out[i] = b[:rows*seal.LeafBytes]
	}
	return out
}

// indexes are count numbers from first on.
func indexes(first, count int) []int {
	out := make([]int, count)
	for i := range out {
		out[i] = first + i
	}
	return out
}
