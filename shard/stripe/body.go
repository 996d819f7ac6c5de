package stripe

import (
	"io"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/seal"
)

// Body is the body of shard want, made from the bodies of at least k others by
// index while it is read: a lost shard from what is left, parity from the columns.
// What it reads from must be verified, or what comes out be compared ([Rebuild]).
// The errors are those of [Coder.Recover]. Reads of whole leaves, of many at a
// time, cost least. Safe for concurrent use if what it reads from is.
func (c *Coder) Body(g shard.Geometry, want int, from map[int]io.ReaderAt) (io.ReaderAt, error) {
	if _, err := shard.NewGeometry(g.Code, g.Size); err != nil {
		return nil, err
	}
	if want < 0 || want >= g.N() {
		return nil, fault.New(fault.Invalid, "stripe: shard %d of %v", want, g.Code)
	}
	has := func(i int) bool { return from[i] != nil }
	b := &body{coder: c, g: g, want: want, from: from}
	// No column lacks its first leaf, so that these are enough for any range.
	if b.use = choose(g, want, 0, 1, has); len(b.use) < g.K {
		return nil, fault.New(fault.Unavailable, "stripe: %d of the %d shards that shard %d is made from", len(b.use), g.K, want)
	}
	return b, nil
}

type body struct {
	coder *Coder
	g     shard.Geometry
	want  int
	from  map[int]io.ReaderAt
	use   []int
}

// ReadAt implements io.ReaderAt.
func (b *body) ReadAt(p []byte, off int64) (int, error) {
	size := b.g.ShardBytes(b.want)
	if off < 0 {
		return 0, fault.New(fault.Invalid, "stripe: read at %d", off)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= size {
			return done, io.EOF
		}
		first := at / seal.LeafBytes
		count := min(leavesOf(min(off+int64(len(p)), size))-first, batchLeaves)
		leaves, err := b.leaves(first, count)
		if err != nil {
			return done, err
		}
		done += copy(p[done:], leaves[at-first*seal.LeafBytes:])
	}
	return done, nil
}

func (b *body) leaves(first, count int64) ([]byte, error) {
	have := make(map[int][]byte, len(b.use))
	for _, i := range b.use {
		have[i] = make([]byte, rangeBytes(b.g, i, first, count))
		if err := readFullAt(b.from[i], have[i], first*seal.LeafBytes); err != nil {
			return nil, err
		}
	}
	return b.coder.Recover(b.g, b.want, first, count, have)
}
