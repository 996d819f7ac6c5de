package layout

// A score compares cells and nodes. It counts cells, in units of 2^-scoreBits.
const scoreBits = 16

// forced is the score of a site that every row left has to have.
const forced = int64(1) << 40

// spread moves cells in one pass over the rows, each move from a hole or from who has
// too many straight to who has too few, so that it is a move that has to be: with all
// of them the table has the least that can be moved for what is done.
//
// The pass is even: after half the rows every node has about half of what it needs, so
// that rows mix all nodes until the end. Paced, it takes no more from those who have
// too many than a row's part; else all that it finds.
func (r *round) spread(paced bool) {
	p := newPace(r)
	shed, all := 0, p.left-r.holes // from those who have too many
	for step, g := range r.turn {
		p.rows = r.groups - step
		for i := r.lo; i < r.hi; i++ {
			if r.row(g)[i] != hole {
				continue
			}
			if u, _ := p.taker(g, i, -1); u != hole {
				p.give(g, i, u)
			}
		}
		for !paced || shed < all*(step+1)/r.groups {
			if !p.exchange(g) {
				break
			}
			shed++
		}
	}
}

// pace is how far a pass is.
type pace struct {
	*round
	first []int // needs when it began
	all   int   // cells to be given then
	left  int   // and now
	rows  int   // rows left, with the present one
	part  int64 // left of all, in units of 2^-scoreBits
	inv   int64 // 1 of the number of positions, in units of 2^-2*scoreBits
}

func newPace(r *round) *pace {
	p := &pace{round: r, first: make([]int, len(r.nodes))}
	for v := range r.nodes {
		p.first[v] = r.need(v)
		p.all += max(p.first[v], 0)
	}
	p.left, p.part, p.inv = p.all, 1<<scoreBits, 1<<(2*scoreBits)/int64(r.hi-r.lo)
	return p
}

// give is the round's, for a cell of those to be given.
func (p *pace) give(g, i int, v int16) {
	p.round.give(g, i, v)
	p.left--
	p.part = int64(p.left) << scoreBits / int64(p.all)
}

// lag is how far a node is behind the pace: with what it needs, or, below 0, with
// what it has too many.
func (p *pace) lag(v int) int64 {
	return int64(p.need(v))<<scoreBits - int64(p.first[v])*p.part
}

// lack is how much less a node has at a position than at others on average.
func (p *pace) lack(v, i int) int64 {
	return int64(p.count[v]-p.before[v])*p.inv>>scoreBits - int64(p.at[i*len(p.nodes)+v])<<scoreBits
}

// taker is the node that should have a cell: hole if nobody who needs one can have
// it. A site that leaves the row by it, or -1, does not count.
func (p *pace) taker(g, i, leaving int) (best int16, score int64) {
	best = hole
	for v := range p.nodes {
		if p.need(v) <= 0 {
			continue
		}
		s := p.site[v]
		if s != leaving && p.hasSite(g, s) {
			continue
		}
		of := p.lag(v) + p.lack(v, i) + p.chance(int16(v), g)
		if p.siteTarget[s]-p.siteCount[s] >= p.rows {
			of += forced
		}
		if best == hole || of > score {
			best, score = int16(v), of
		}
	}
	return best, score
}

// exchange takes a cell of a row from who has too many, and gives it to who has too
// few. It reports whether there was such a pair.
func (p *pace) exchange(g int) bool {
	at, to, best := -1, hole, int64(0)
	for i := p.lo; i < p.hi; i++ {
		o := p.row(g)[i]
		if o == hole || p.need(int(o)) >= 0 {
			continue
		}
		u, score := p.taker(g, i, p.site[o])
		if u == hole {
			continue
		}
		score += p.chance(o, g) - p.lag(int(o)) - p.lack(int(o), i)
		if at < 0 || score > best {
			at, to, best = i, u, score
		}
	}
	if at < 0 {
		return false
	}
	p.give(g, at, to)
	return true
}

// fill gives the holes that are left to whoever lacks most, or has least too many:
// for positions whose table is settled before them, which may leave no even one.
func (r *round) fill() {
	for g := range r.groups {
		for i := r.lo; i < r.hi; i++ {
			if r.row(g)[i] != hole {
				continue
			}
			best := hole
			for v := range r.nodes {
				if !r.hasSite(g, r.site[v]) && (best == hole || r.need(v) > r.need(int(best))) {
					best = int16(v)
				}
			}
			r.give(g, i, best) // a row is no longer than there are sites
		}
	}
}
