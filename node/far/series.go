package far

import (
	"slices"

	"pelago/shard/seal"
)

// Series reads the instances of one manifest. What is read in order, in that of
// the manifest or of the packs, is read ahead, across packs.
type Series struct {
	client   *Client
	manifest *Manifest
	nodes    []string // that packs are asked of
	pieces   *pieces
	staged   []int // instances, in the order of their objects

	// Guarded by Client.mu:
	whole  bool
	paces  [orders]pace
	last   int   // piece that was read last
	flying int64 // bytes that were asked for ahead and are not here yet
	order  int   // that was read ahead in last
	calm   int64 // bytes that may be read in it before there is anything to ask for
}

// Read returns the readers of a manifest's packs and staged instances. nodes are
// those that may hold the packs, in the order in which they are asked, the
// manifest's own not among them (those that are known to cache it, usually); it
// is asked after them, and is the only one for what is staged. [Shards] among them
// stands for the packs' shards, which else are turned to when no node gives a pack.
// The manifest may be made of stored rows, whenever they were got.
func (c *Client) Read(m *Manifest, nodes ...string) *Series {
	s := &Series{client: c, manifest: m, pieces: cut(m), last: -1}
	s.nodes = append(slices.Clone(nodes), m.Node)
	if !slices.Contains(nodes, Shards) {
		s.nodes = append(s.nodes, Shards)
	}
	for i := range m.Instances {
		if m.Instances[i].Pack < 0 {
			s.staged = append(s.staged, i)
		}
	}
	for o := range s.paces {
		s.paces[o].at = -1
	}
	return s
}

// Whole says that all of the series will be read, as it rests unless reads show
// another order: it is read ahead with the first read already, as far as it may.
func (s *Series) Whole() {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.whole = true
}

// Begin says that an instance was read, by its index: with the bytes that came
// with its manifest, say. What follows it is read ahead.
func (s *Series) Begin(i int) {
	in := &s.manifest.Instances[i]
	index, unit := in.Pack, 0
	if in.Pack < 0 {
		k, _ := slices.BinarySearch(s.staged, i)
		index = len(s.manifest.Packs) + k
	} else if len(in.Chunks) > 0 {
		unit = int(in.Chunks[0].At / seal.SegmentBytes)
	}
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	piece := s.pieces.holding(index, unit)
	if piece < 0 || s.last >= 0 {
		return
	}
	for o := range s.paces {
		s.paces[o] = pace{at: s.pieces.rank[o][piece], streak: 1}
	}
	s.last = piece
	s.aheadLocked()
}

// Pack returns the reader of a pack's ciphertext, by its index in the manifest.
// Readers of one pack share what is fetched, over all series and manifests.
func (s *Series) Pack(i int) *Reader {
	return &Reader{series: s, index: i, size: s.manifest.Packs[i].Bytes, unit: segmentBytes}
}

// Staged returns the reader of the bytes of an instance that is not packed, by
// its index in the manifest. They come from wherever the node has them now. Its
// hash is checked before the last of its bytes are shown, if it is read whole and
// stays in memory: fault.Corrupt.
func (s *Series) Staged(i int) *Reader {
	k, ok := slices.BinarySearch(s.staged, i)
	if !ok {
		panic("far: the instance is in a pack")
	}
	return &Reader{series: s, index: len(s.manifest.Packs) + k, size: s.manifest.Instances[i].Record.Bytes, unit: stagedBytes}
}

// objectLocked returns one of the series' objects: its packs, then what is staged.
func (s *Series) objectLocked(index int) (*object, error) {
	key, make := s.object(index)
	o, err := s.client.objectLocked(key, make)
	if err != nil {
		return nil, err
	}
	if packs := len(s.manifest.Packs); index < packs {
		o.ask(s.nodes, false)
	} else {
		o.ask([]string{s.manifest.Node}, false)
	}
	return o, nil
}

func (s *Series) object(index int) (objectKey, func() (*object, error)) {
	m := s.manifest
	if index < len(m.Packs) {
		p := m.Packs[index]
		return objectKey{pack: p.ID}, func() (*object, error) { return packObject(p) }
	}
	in := &m.Instances[s.staged[index-len(m.Packs)]]
	return stagedKey(m.Node, in), func() (*object, error) { return stagedObject(m.Node, in), nil }
}

// demandLocked begins to fetch what a reader waits for: units [from, to), and the
// rest of the piece that the first is in. It returns the fetch of the first; nil
// if there is no room.
func (s *Series) demandLocked(index int, o *object, from, to int) *fetch {
	if i := s.pieces.holding(index, from); i >= 0 {
		to = max(to, min(s.pieces.all[i].to, o.units))
	}
	var first *fetch
	o.gaps(from, min(to, from+int(maxFetch/o.unit)), func(a, b int) bool {
		f := s.client.startLocked(o, a, b, true)
		if first == nil {
			first = f
		}
		return f != nil
	})
	return first
}

// readLocked notes that a unit is read, and reads ahead of it.
func (s *Series) readLocked(index, unit int) {
	i := s.pieces.holding(index, unit)
	if i < 0 || i == s.last {
		return
	}
	for o := range s.paces {
		s.paces[o].step(s.pieces.rank[o][i])
	}
	if rank := s.pieces.rank[s.order]; s.last < 0 || rank[i] != rank[s.last]+1 {
		s.calm = 0
	}
	one := &s.pieces.all[i]
	s.calm -= int64(one.next-one.from) * segmentBytes
	s.last = i
	if s.calm < 0 {
		s.aheadLocked()
	}
}

// aheadLocked keeps a window of bytes on their way, of those that come after the
// piece read last, as far as maxReach. It asks for runs of several MiB: not before
// there is room for one, unless the end is in sight.
func (s *Series) aheadLocked() {
	order := byManifest
	if d := s.paces[byPlace].streak - s.paces[byManifest].streak; d > 0 || d == 0 && s.whole {
		order = byPlace
	}
	window := s.paces[order].window()
	if s.whole {
		window = maxWindow
	}
	reach := window
	if window == maxWindow {
		reach = maxReach
	}
	window, reach = min(window, s.client.mem.limit/8), min(reach, s.client.mem.limit/4) // others read too
	room := window - s.flying
	if room < min(window/4, maxFetch) || window == 0 {
		return
	}
	runs, touched, end := s.nextLocked(order, reach, room)
	missing := int64(0)
	for _, r := range runs {
		missing += int64(r.to-r.from) * r.o.unit
	}
	s.order, s.calm = order, min(window/4, maxFetch)-missing
	if missing > 0 && (s.calm <= 0 || end) {
		s.calm = 0
		for _, r := range runs {
			r.o.gaps(r.from, r.to, func(a, b int) bool { // again: runs may share units
				return s.startLocked(r.o, a, b)
			})
		}
	}
	for _, o := range touched {
		s.client.forgetLocked(o)
	}
}

// startLocked begins to read units ahead.
func (s *Series) startLocked(o *object, from, to int) bool {
	if s.client.ahead == maxAhead {
		return false
	}
	f := s.client.startLocked(o, from, to, false)
	if f == nil {
		return false
	}
	f.series = s
	s.flying += f.bytes()
	return true
}

// nextLocked returns what is missing, room bytes at most, of the next reach bytes
// after the piece read last, the objects it has looked at, and whether it has seen
// the end.
func (s *Series) nextLocked(order int, reach, room int64) (runs []run, touched []*object, end bool) {
	p := s.pieces
	rank := p.rank[order][s.last]
	from := p.all[s.last].to // what is left between the piece and the next, then the others
	var o *object
	index := -1 // of o
	for seen := int64(0); rank < len(p.all); rank++ {
		if seen >= reach || room <= 0 {
			return runs, touched, false
		}
		i := p.at[order][rank]
		one := &p.all[i]
		if i != s.last {
			from = one.from
		}
		if one.object != index { // most follow one another in a pack
			var err error
			if o, err = s.objectLocked(one.object); err != nil {
				return nil, touched, false
			}
			index, touched = one.object, append(touched, o)
		}
		to := min(one.next, o.units, from+int((reach-seen+o.unit-1)/o.unit))
		o.gaps(from, to, func(a, b int) bool {
			b = min(b, a+int((room+o.unit-1)/o.unit))
			room -= int64(b-a) * o.unit
			runs = join(runs, run{o, a, b})
			return room > 0
		})
		seen += int64(max(0, to-from)) * o.unit
	}
	return runs, touched, true
}

// maxAhead bounds the fetches under way that nobody waited for when they began:
// three quarters of what a node answers to another at a time.
const maxAhead = 48

// run is units of an object.
type run struct {
	o        *object
	from, to int
}

// join adds a run, to the last one if both make one fetch. Neighbours may share a
// unit.
func join(runs []run, r run) []run {
	if last := len(runs) - 1; last >= 0 {
		l := &runs[last]
		if l.o == r.o && l.from <= r.from && r.from <= l.to && int64(r.to-l.from)*r.o.unit <= maxFetch {
			l.to = max(l.to, r.to)
			return runs
		}
	}
	return append(runs, r)
}
