package layout

import (
	"encoding/binary"
	"slices"

	"github.com/zeebo/blake3"
)

// hole is a cell that nobody has.
const hole = int16(-1)

// table is a layout in the making: groups rows of width cells, in each the index of a
// node or a hole. No site is in a row twice.
type table struct {
	nodes  []Node
	site   []int    // the number of each node's site
	seed   []uint64 // of each node's choices by chance, from its id
	turn   []int    // the order in which rows are looked at
	groups int
	width  int
	cells  []int16
	count  []int // cells that each node has
	at     []int // the same for each position: at[position*len(nodes)+node]
	has    []uint64
	words  int // of has, a row: which sites are in it
}

func newTable(nodes []Node, groups int, version uint64) *table {
	t := &table{nodes: nodes, site: make([]int, len(nodes)), seed: make([]uint64, len(nodes)), groups: groups}
	for v := 1; v < len(nodes); v++ {
		t.site[v] = t.site[v-1]
		if nodes[v].Site != nodes[v-1].Site {
			t.site[v]++
		}
	}
	for v, node := range nodes {
		sum := blake3.Sum256([]byte(node.ID))
		t.seed[v] = binary.BigEndian.Uint64(sum[:])
	}
	t.turn = t.order(version)
	sites := t.site[len(nodes)-1] + 1
	t.width = min(sites, MaxRow)
	t.words = (sites + 63) / 64
	t.cells = make([]int16, groups*t.width)
	for c := range t.cells {
		t.cells[c] = hole
	}
	t.count = make([]int, len(nodes))
	t.at = make([]int, t.width*len(nodes))
	t.has = make([]uint64, groups*t.words)
	return t
}

func (t *table) row(g int) []int16 { return t.cells[g*t.width : (g+1)*t.width] }

// hasSite reports whether a site is in a row.
func (t *table) hasSite(g, s int) bool { return t.has[g*t.words+s/64]&(1<<(s%64)) != 0 }

// set gives a cell to a node, whose site is not in the row but by this cell, or makes
// a hole of it.
func (t *table) set(g, i int, v int16) {
	cell := &t.cells[g*t.width+i]
	if old := *cell; old != hole {
		s := t.site[old]
		t.has[g*t.words+s/64] &^= 1 << (s % 64)
		t.count[old]--
		t.at[i*len(t.nodes)+int(old)]--
	}
	*cell = v
	if v != hole {
		s := t.site[v]
		t.has[g*t.words+s/64] |= 1 << (s % 64)
		t.count[v]++
		t.at[i*len(t.nodes)+int(v)]++
	}
}

// inherit gives the cells at positions from lo to hi-1 to those who had them in the
// last layout, of which former has the cells. Who is elsewhere in the row is not
// there twice.
func (t *table) inherit(former []int16, lo, hi int) {
	for g := range t.groups {
		for i := lo; i < hi; i++ {
			if v := former[g*t.width+i]; v != hole && !t.hasSite(g, t.site[v]) {
				t.set(g, i, v)
			}
		}
	}
}

// restore brings nodes back to the positions that they had, of those below hi. Whoever
// is there was elsewhere, or nowhere in the row.
func (t *table) restore(former []int16, hi int) {
	for g := range t.groups {
		row := t.row(g)
		for i := 0; i < hi; i++ {
			was := former[g*t.width+i]
			for j := 0; was != hole && row[i] != was && j < hi; j++ {
				if other := row[i]; row[j] == was {
					t.set(g, j, hole)
					t.set(g, i, was)
					t.set(g, j, other)
				}
			}
		}
	}
}

// former is the last layout, if there is one, in the shape and the numbers of this one
// that is still empty: a hole is what it did not have, or a node that holds nothing any
// more. A group of few is four of many.
func (t *table) former(l *Layout) []int16 {
	cells := slices.Clone(t.cells)
	if l == nil {
		return cells
	}
	number := make(map[string]int16, len(t.nodes))
	for v, node := range t.nodes {
		number[node.ID] = int16(v)
	}
	now := make([]int16, len(l.Nodes)) // its numbers in ours
	for v, node := range l.Nodes {
		now[v] = hole
		if n, ok := number[node.ID]; ok && t.nodes[n].Site == node.Site {
			now[v] = n
		}
	}
	for c := range cells {
		if g, i := c/t.width, c%t.width; i < l.width {
			cells[c] = now[l.rows[g*l.Groups/t.groups*l.width+i]]
		}
	}
	return cells
}

// chance is a number below 2^chanceBits that a node has for a group: the same always,
// and as if drawn. It makes who is together in rows random, so that what a lost node
// held is rebuilt from and by all others alike.
func (t *table) chance(v int16, g int) int64 {
	return int64(mix(t.seed[v]+uint64(g)) >> (64 - chanceBits))
}

// chanceBits makes chance worth up to two cells in a score.
const chanceBits = scoreBits + 1

// order is one of all orders of the rows, as if drawn, and another one for each
// version: rows that come at one moment of an even pass must not always be the same.
func (t *table) order(version uint64) []int {
	order := make([]int, t.groups)
	for g := range order {
		order[g] = g
	}
	seed := version
	for _, s := range t.seed {
		seed = mix(seed ^ s)
	}
	for g := t.groups - 1; g > 0; g-- { // Fisher and Yates; the groups are far fewer than 2^64
		seed++
		other := int(mix(seed) % uint64(g+1))
		order[g], order[other] = order[other], order[g]
	}
	return order
}

// mix is a step of SplitMix64 (Steele, Lea, Flood, 2014): a permutation of 64 bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
