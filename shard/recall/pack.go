package recall

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/stripe"
)

const (
	// maxAsk is how many leaves are asked for at once, 4 MiB: 33 ms of 1 Gb/s.
	maxAsk = 256
	// window is how much one read has on its way: 1 Gb/s over a round trip of 100 ms is
	// 12.5 MB, and a column is not asked for faster than its node sends.
	window = 32 << 20
	// maxPlaces bounds where the shards of a stripe may be: four each.
	maxPlaces = 4 * shard.MaxShards
)

// Pack reads the ciphertext of a pack from its shards. Make it by [Client.Pack]; it
// needs no closing, and is worth keeping while a series is read.
type Pack struct {
	client   *Client
	head     *stripe.Head
	geometry shard.Geometry
	places   []Place

	mu      sync.Mutex // guards what follows, and what flights say
	flights []*flight  // under way; no two have a leaf in common
	doubts  []doubt    // the last in front
}

// Pack returns the reader of a stripe. head was checked by the root that its seal
// has. places are where its shards may be, in the order that is preferred among
// equals; those of one index may be several.
func (c *Client) Pack(head *stripe.Head, places []Place) (*Pack, error) {
	g, err := head.Geometry()
	if err != nil {
		return nil, err
	}
	if len(head.Roots) != g.N() || len(places) > maxPlaces {
		return nil, fault.New(fault.Invalid, "recall: %d roots of %v at %d places", len(head.Roots), g.Code, len(places))
	}
	for _, p := range places {
		if p.Index < 0 || p.Index >= g.N() || p.Node == "" {
			return nil, fault.New(fault.Invalid, "recall: no shard %d of %v", p.Index, g.Code)
		}
	}
	return &Pack{client: c, head: head, geometry: g, places: slices.Clone(places)}, nil
}

// Size is the number of bytes of the ciphertext.
func (p *Pack) Size() int64 { return p.geometry.Size }

// ReadAt reads as io.ReaderAt does, but all or nothing. Of a range in one column
// one node is asked, unless it is longer than 4 MiB; long ranges are asked of all
// columns beside each other. fault.NotFound if no node has it, fault.Unavailable if
// too few answer, fault.Corrupt if too few have what they should.
func (p *Pack) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "recall: read at %d", off)
	}
	if off >= p.geometry.Size {
		if len(b) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var end error
	if int64(len(b)) > p.geometry.Size-off {
		b, end = b[:p.geometry.Size-off], io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	if err := p.read(ctx, b, off); err != nil {
		return 0, err
	}
	return len(b), end
}

// With returns the reader as an io.ReaderAt bound to a context.
func (p *Pack) With(ctx context.Context) io.ReaderAt { return bound{p, ctx} }

type bound struct {
	p   *Pack
	ctx context.Context //nolint:containedctx // that is its purpose
}

// ReadAt implements io.ReaderAt.
func (b bound) ReadAt(p []byte, off int64) (int, error) { return b.p.ReadAt(b.ctx, p, off) }

// span is leaves of a column.
type span struct {
	column       int
	first, count int64
}

// end is the leaf behind it.
func (s span) end() int64 { return s.first + s.count }

// spans cuts a range, which is not empty, into what is asked for at once, columns
// by turns.
func (p *Pack) spans(off, length int64) (all []span) {
	g := p.geometry
	from, in := g.Locate(off)
	to, last := g.Locate(off + length - 1)
	next := make([]span, 0, to-from+1) // what is left, by column
	for c := from; c <= to; c++ {
		s := span{c, 0, leavesOf(g.ShardBytes(c))}
		if c == to {
			s.count = last/shard.LeafBytes + 1
		}
		if c == from {
			s.first = in / shard.LeafBytes
			s.count -= s.first
		}
		next = append(next, s)
	}
	for left := true; left; {
		left = false
		for i := range next {
			if s := &next[i]; s.count > 0 {
				all = append(all, span{s.column, s.first, min(s.count, maxAsk)})
				s.first += min(s.count, maxAsk)
				s.count -= min(s.count, maxAsk)
				left = true
			}
		}
	}
	return all
}

func leavesOf(bytes int64) int64 { return (bytes + shard.LeafBytes - 1) / shard.LeafBytes }

// read fills b, which lies within the ciphertext.
func (p *Pack) read(ctx context.Context, b []byte, off int64) error {
	spans := p.spans(off, int64(len(b)))
	if len(spans) == 1 {
		return p.fetch(ctx, spans[0], b, off)
	}
	group, inner := errgroup.WithContext(ctx)
	room := semaphore.NewWeighted(window)
	for _, s := range spans {
		bytes := s.count * shard.LeafBytes
		if room.Acquire(inner, bytes) != nil {
			break
		}
		group.Go(func() error {
			defer room.Release(bytes)
			return p.fetch(inner, s, b, off)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// put copies what a range of b at off has of leaves.
func (p *Pack) put(b []byte, off int64, s span, leaves []byte) {
	column, _ := p.geometry.Column(s.column)
	from := column + s.first*shard.LeafBytes // of the leaves, in the ciphertext
	if from < off {
		leaves = leaves[min(off-from, int64(len(leaves))):]
		from = off
	}
	if from-off < int64(len(b)) {
		copy(b[from-off:], leaves)
	}
}

// recall gets leaves of a column: all, or by halves what can be had.
func (p *Pack) recall(ctx context.Context, s span) ([]byte, error) {
	data, rot, err := p.gather(ctx, s)
	if err == nil || !rot || s.count == 1 {
		return data, err
	}
	left, err := p.recall(ctx, span{s.column, s.first, s.count / 2})
	if err != nil {
		return nil, err
	}
	right, err := p.recall(ctx, span{s.column, s.first + s.count/2, s.count - s.count/2})
	if err != nil {
		return nil, err
	}
	return append(left, right...), nil
}

// gather gets leaves of a column from one node, or from those that can make them,
// and reports whether rot was met.
func (p *Pack) gather(ctx context.Context, s span) (data []byte, rot bool, err error) {
	g := p.geometry
	one := &gather{
		client: p.client, want: s.column, need: g.K, sites: p.sites(s), have: map[int]answer{},
		bytes: func(index int) int64 {
			return max(0, min(s.count*shard.LeafBytes, g.ShardBytes(index)-s.first*shard.LeafBytes))
		},
	}
	one.ask = func(ctx context.Context, at Place, x *exchange) (answer, error) {
		return p.leaves(ctx, at, s.first, leavesOf(one.bytes(at.Index)), x)
	}
	one.wrong = func(at Place, err error) { p.doubt(at, s, err) }
	if g.K == 1 {
		one.want = none // all are the same
	}
	for i := range g.K {
		if i != s.column && one.bytes(i) == 0 {
			one.have[i] = answer{}
		}
	}
	if err := one.run(ctx); err != nil {
		return nil, one.rot, fmt.Errorf("recall: stripe %s: leaves %d+%d of column %d: %w", p.head.Stripe, s.first, s.count, s.column, err)
	}
	if got, ok := one.have[one.want]; ok {
		return got.data, false, nil
	}
	have := make(map[int][]byte, len(one.have))
	for i, a := range one.have {
		if g.K == 1 {
			return a.data, false, nil
		}
		have[i] = a.data
	}
	data, err = p.client.o.Coder.Recover(g, s.column, s.first, s.count, have)
	if err != nil {
		return nil, false, fmt.Errorf("recall: stripe %s: %w", p.head.Stripe, err)
	}
	return data, false, nil
}
