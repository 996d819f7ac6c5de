package layout

// settle evens the positions at which nodes are, where it costs nothing: nodes that are
// new in a row, and substitutes, change places with each other while that brings the
// numbers of cells that a node has at each position nearer to their average.
func (r *round) settle() {
	span := r.hi - r.lo
	off := make([]int, r.width*len(r.nodes)) // span times how many above the average
	for v := range r.nodes {
		for i := r.lo; i < r.hi; i++ {
			off[i*len(r.nodes)+v] = span*r.at[i*len(r.nodes)+v] - (r.count[v] - r.before[v])
		}
	}
	for changed := true; changed; { // each change lessens a sum of squares, so it ends
		changed = false
		for g := range r.groups {
			for i := r.lo; i < r.hi; i++ {
				for j := i + 1; j < r.hi; j++ {
					changed = r.evener(g, i, j, off) || changed
				}
			}
		}
	}
}

// evener lets the nodes of two cells change places, if they may and the sum of the
// squares of off becomes less.
func (r *round) evener(g, i, j int, off []int) bool {
	x, y := r.row(g)[i], r.row(g)[j]
	if r.lo == 0 && (r.base[g*r.width+i] == x || r.base[g*r.width+j] == y) {
		return false
	}
	span, n := r.hi-r.lo, len(r.nodes)
	xi, xj, yi, yj := i*n+int(x), j*n+int(x), i*n+int(y), j*n+int(y)
	if off[xj]-off[xi]+off[yi]-off[yj]+2*span >= 0 {
		return false
	}
	off[xi], off[xj], off[yi], off[yj] = off[xi]-span, off[xj]+span, off[yi]+span, off[yj]-span
	r.give(g, i, hole)
	r.give(g, j, x)
	r.give(g, i, y)
	return true
}
