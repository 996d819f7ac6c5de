package far

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"pelago/shard/seal"
)

// What a series is read by: pieces, each an instance or a run of its chunks, in
// two orders that readers follow: that of the manifest, and that in which they
// lie in the packs, which is that of arrival.

// pieceBytes is what a piece has about: what is fetched for one read, since its
// reader will want the rest of it.
const pieceBytes = 1 << 20

// piece is units [from, to) of an object; up to next there is nothing that
// belongs to another piece of it.
type piece struct {
	object         int
	from, to, next int
}

const (
	byManifest = iota
	byPlace
	orders
)

// pieces are those of a series. They are immutable.
type pieces struct {
	all  []piece       // in the order of the manifest
	rank [orders][]int // of a piece, in an order
	at   [orders][]int // which piece has a rank
	of   [][]int       // of an object, in the order of place
}

// cut makes the pieces of a manifest.
func cut(m *Manifest) *pieces {
	p := &pieces{}
	objects := len(m.Packs)
	for i := range m.Instances {
		in := &m.Instances[i]
		if in.Pack < 0 {
			p.run(objects, 0, in.Record.Bytes, stagedBytes)
			objects++
			continue
		}
		from := -1
		for k := range in.Chunks {
			c := &in.Chunks[k]
			if from < 0 {
				from = k
			}
			end := c.At + c.Compressed
			if k+1 < len(in.Chunks) && in.Chunks[k+1].At == end && end-in.Chunks[from].At < pieceBytes {
				continue
			}
			p.run(in.Pack, in.Chunks[from].At, end, seal.SegmentBytes)
			from = -1
		}
	}
	p.of = make([][]int, objects)
	for i := range p.all {
		p.of[p.all[i].object] = append(p.of[p.all[i].object], i)
	}
	for o, of := range p.of {
		slices.SortFunc(of, func(a, b int) int {
			return cmp.Or(p.all[a].from-p.all[b].from, p.all[a].to-p.all[b].to)
		})
		units := 0
		if o < len(m.Packs) {
			units = int((m.Packs[o].Bytes + segmentBytes - 1) / segmentBytes)
		}
		for k, i := range of {
			next := max(units, p.all[i].to)
			if k+1 < len(of) {
				next = max(p.all[of[k+1]].from, p.all[i].to)
			}
			p.all[i].next = next
		}
	}
	for _, o := range inOrder(m, objects) {
		p.at[byPlace] = append(p.at[byPlace], p.of[o]...)
	}
	for i := range p.all {
		p.at[byManifest] = append(p.at[byManifest], i)
	}
	for o := range p.rank {
		p.rank[o] = make([]int, len(p.all))
		for rank, i := range p.at[o] {
			p.rank[o][i] = rank
		}
	}
	return p
}

// inOrder returns a manifest's objects in the order in which what they hold arrived
// at its node.
func inOrder(m *Manifest, objects int) []int {
	first := make([]uint64, objects) // number of an instance
	for o := range first {
		first[o] = math.MaxUint64
	}
	staged := len(m.Packs)
	for i := range m.Instances {
		in := &m.Instances[i]
		o := in.Pack
		if o < 0 {
			o = staged
			staged++
		}
		first[o] = min(first[o], in.Record.Number)
	}
	all := make([]int, objects)
	for o := range all {
		all[o] = o
	}
	slices.SortStableFunc(all, func(a, b int) int { return cmp.Compare(first[a], first[b]) })
	return all
}

// maxPieces bounds those of one run, whose length is only claimed.
const maxPieces = 4096

// run adds a run of plaintext as pieces.
func (p *pieces) run(object int, from, to, unit int64) {
	step := max(pieceBytes, (to-from)/maxPieces)
	for from < to {
		end := to
		if to-from > 2*step {
			end = from + step
		}
		p.all = append(p.all, piece{object: object, from: int(from / unit), to: int((end + unit - 1) / unit)})
		from = end
	}
}

// holding returns the piece of an object that a unit is in, or follows; -1: none.
func (p *pieces) holding(object, unit int) int {
	of := p.of[object]
	i := sort.Search(len(of), func(i int) bool { return p.all[of[i]].from > unit })
	if i == 0 {
		return -1
	}
	return of[i-1]
}

// pace follows a reader along one order.
type pace struct {
	at     int // the rank read last; -1: none yet
	streak int // steps forward one after the other
}

// nearby is how far from the piece read last a read still is in order: several
// readers, or one that reads ahead by itself, come a little out of it.
const nearby = 8

// step notes a read of a rank.
func (p *pace) step(rank int) {
	switch d := rank - p.at; {
	case p.at < 0: // one read is no order yet
		p.at = rank
	case d > 0 && d <= nearby:
		p.at, p.streak = rank, p.streak+1
	case d > 0 || d < -nearby:
		p.at, p.streak = rank, 0
	}
}

const (
	// maxWindow is on its way at most: 1 Gb/s over a round trip of 100 ms is 12.5 MB.
	maxWindow = 16 << 20
	// maxReach is how far ahead of the reader that may lie. It is more than the
	// window because streams share a link: all that is on its way comes at about the
	// same time, and while its first bytes are waited for more must be asked for.
	maxReach = 3 * maxWindow
	// minWindow is what the first step reads ahead; each further one four times as
	// much. Who reads single images loses little by it.
	minWindow = 512 << 10
)

// window is how much is read ahead.
func (p *pace) window() int64 {
	if p.streak == 0 {
		return 0
	}
	return min(maxWindow, int64(minWindow)<<min(2*(p.streak-1), 16))
}
