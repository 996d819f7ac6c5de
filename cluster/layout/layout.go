package layout

import (
	"math/bits"
	"slices"
	"strings"

	"pelago/cluster/fault"
)

// Bounds of a layout.
const (
	// MaxRow is how many sites a row has at most, and so how many shards a stripe.
	MaxRow = 16
	// FewGroups and ManyGroups are how many placement groups there are: many from
	// ManySites on, and from then on for ever (decision 0038).
	FewGroups  = 1024
	ManyGroups = 4096
	ManySites  = 25

	// MaxNodes and MaxSites are how many may hold shards.
	MaxNodes = 1024
	MaxSites = 512
	// MaxPledge is the most that one node may pledge, in bytes (4 PiB): sums of
	// pledges stay below 2^63.
	MaxPledge = 1 << 52

	maxSite = 256 // bytes of a site's name: 64 characters of UTF-8
	maxID   = 64  // bytes of a node's id
)

// Node is one that holds shards.
type Node struct {
	ID     string // of 1 to 64 bytes, one in the network
	Site   string // of 1 to 256 bytes; what fails together
	Pledge int64  // bytes of shards that it will hold, 1 to MaxPledge
}

// Layout is one version of the table. Nothing in it may be changed.
type Layout struct {
	Version uint64 // from 1
	Shards  int    // n of the stripes that it is made for, 1 to the length of a row
	Groups  int    // FewGroups or ManyGroups
	Nodes   []Node // who holds shards, by site and then by id, ascending

	width int
	rows  []int16 // Groups of width indices of Nodes
}

// Width is the length of a row: min(sites, MaxRow).
func (l *Layout) Width() int { return l.width }

// Group is the placement group of a pack with this spread (the 64 bits that are its
// place among all packs): the upper bits.
func (l *Layout) Group(spread uint64) int { return int(spread >> (65 - bits.Len(uint(l.Groups)))) }

// At is the node at a position of a group's row, from 0 to Width()-1.
func (l *Layout) At(group, position int) Node { return l.Nodes[l.rows[group*l.width+position]] }

// Row is the row of a group, in order: a new slice.
func (l *Layout) Row(group int) []Node {
	row := make([]Node, l.width)
	for i := range row {
		row[i] = l.At(group, i)
	}
	return row
}

// Slots counts, for each of Nodes, in how many groups it is among the first n of the
// row: of all stripes of n shards, it holds that many Groups-ths of a shard each. n is
// at most Width().
func (l *Layout) Slots(n int) []int {
	slots := make([]int, len(l.Nodes))
	for at, v := range l.rows {
		if at%l.width < n {
			slots[v]++
		}
	}
	return slots
}

// Places reports whether two layouts place everything alike, whatever their versions
// and pledges: changing from one to the other is no change.
func (l *Layout) Places(o *Layout) bool {
	return l.Groups == o.Groups && l.Shards == o.Shards && slices.Equal(l.rows, o.rows) &&
		slices.EqualFunc(l.Nodes, o.Nodes, func(a, b Node) bool { return a.ID == b.ID && a.Site == b.Site })
}

// Capacity is what a layout can hold.
type Capacity struct {
	// Bytes of shards, over all nodes, that fit until the first node is full, of
	// stripes of Layout.Shards that are spread evenly over the groups. Their data is
	// k/n of it.
	Bytes int64
	// Pledged is the sum of all pledges: what is above Bytes cannot be used.
	Pledged int64
	// Limit is the node that is full first.
	Limit Node
	// EverySite says why where n is the number of sites: each site has a shard of
	// every stripe, so the smallest pledge of a site is the limit.
	EverySite bool
}

// Capacity reports what the layout can hold by the pledges that it was made for.
func (l *Layout) Capacity() Capacity {
	c := Capacity{EverySite: l.Shards == siteCount(l.Nodes)}
	slots := l.Slots(l.Shards)
	limit := -1
	for v, node := range l.Nodes {
		c.Pledged += node.Pledge
		if slots[v] > 0 && (limit < 0 || less(node.Pledge, slots[limit], l.Nodes[limit].Pledge, slots[v])) {
			limit = v
		}
	}
	c.Limit = l.Nodes[limit]
	high, low := bits.Mul64(uint64(c.Limit.Pledge), uint64(l.Groups*l.Shards))
	bytes, _ := bits.Div64(high, low, uint64(slots[limit])) // at most Pledged: no node has less a slot
	c.Bytes = int64(bytes)
	return c
}

// less is a*b < c*d, of numbers that are not negative.
func less(a int64, b int, c int64, d int) bool {
	high, low := bits.Mul64(uint64(a), uint64(b))
	otherHigh, otherLow := bits.Mul64(uint64(c), uint64(d))
	return high < otherHigh || high == otherHigh && low < otherLow
}

// compareNodes is the order of Nodes.
func compareNodes(a, b Node) int {
	if c := strings.Compare(a.Site, b.Site); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// siteCount is of nodes in their order.
func siteCount(nodes []Node) int {
	count := 0
	for i := range nodes {
		if i == 0 || nodes[i].Site != nodes[i-1].Site {
			count++
		}
	}
	return count
}

// checkNodes returns fault.Invalid for nodes that no layout may have: out of order,
// twice, out of bounds.
func checkNodes(nodes []Node) error {
	if len(nodes) == 0 {
		return fault.New(fault.Invalid, "layout: no node holds shards")
	}
	if len(nodes) > MaxNodes || siteCount(nodes) > MaxSites {
		return fault.New(fault.Invalid, "layout: %d nodes of %d sites, of at most %d of %d", len(nodes), siteCount(nodes), MaxNodes, MaxSites)
	}
	seen := make(map[string]bool, len(nodes))
	for i, node := range nodes {
		if node.ID == "" || len(node.ID) > maxID || node.Site == "" || len(node.Site) > maxSite {
			return fault.New(fault.Invalid, "layout: a node has no proper id or site: %q of %q", node.ID, node.Site)
		}
		if node.Pledge < 1 || node.Pledge > MaxPledge {
			return fault.New(fault.Invalid, "layout: node %s pledges %d bytes", node.ID, node.Pledge)
		}
		if seen[node.ID] {
			return fault.New(fault.Invalid, "layout: node %s is there twice", node.ID)
		}
		if i > 0 && compareNodes(nodes[i-1], node) >= 0 {
			return fault.New(fault.Invalid, "layout: node %s is out of order", node.ID)
		}
		seen[node.ID] = true
	}
	return nil
}
