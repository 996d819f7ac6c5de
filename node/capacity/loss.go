package capacity

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"pelago/cluster/layout"
	"pelago/node/placement"
	"pelago/replication/catalog"
)

// Loss is what the loss of one site asks of the nodes of the others.
type Loss struct {
	Site string
	// Takes are the bytes of shards that each node has to take in, so that what the
	// site held is made anew, as at rest. Those who take none are left out.
	Takes map[string]int64
	// Placeless are bytes that the site held and that no row has a place for any more:
	// of stripes that are wider than the layout is made for.
	Placeless int64
}

// Shortage is what of a loss finds no place.
type Shortage struct {
	Site  string // that would be lost
	Bytes int64
}

// AtRest is about what so many bytes of shards take at rest, with their hashes and
// their manifests: a fiftieth more. They have about a hundredth.
func AtRest(bytes int64) int64 { return bytes + bytes/50 }

// Shortages are the sites whose shards would not all find a place if that site alone
// were lost now, those that lack most first. has is how many bytes of shards a node
// can still take. Nil too as long as losses are not known.
func (r *Report) Shortages(has func(node string) int64) []Shortage {
	left := map[string]int64{}
	var all []Shortage
	for _, l := range r.Losses {
		one := Shortage{Site: l.Site, Bytes: l.Placeless}
		for node, bytes := range l.Takes {
			free, known := left[node]
			if !known {
				free = max(has(node), 0)
				left[node] = free
			}
			one.Bytes += max(bytes-free, 0)
		}
		if one.Bytes > 0 {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b Shortage) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Site, b.Site))
	})
	return all
}

// plans say what moves where if one site or another is lost from a layout. They are
// made site by site, since of a large network each is a layout to compute.
type plans struct {
	of    *layout.Layout
	lost  []string // of its nodes, those that are lost already
	sites []string // that may be lost besides
	all   []plan   // of the first of sites
}

// plan is what the loss of one site moves.
type plan struct {
	site   string
	groups int
	moves  []move // none if there is no remedy
}

// move is a place in a row that somebody else has to fill.
type move struct {
	group    uint16
	position uint8
	to       int16 // its number in Layout.Nodes; nowhere: no row is so long any more
}

const nowhere = -1

// newPlans are those of a layout, still to be made; nil without a layout.
func newPlans(of *layout.Layout, lost func(node string) bool) *plans {
	if of == nil {
		return nil
	}
	p := &plans{of: of}
	for _, n := range p.of.Nodes {
		if lost(n.ID) {
			p.lost = append(p.lost, n.ID)
		} else if len(p.sites) == 0 || p.sites[len(p.sites)-1] != n.Site { // nodes are by site
			p.sites = append(p.sites, n.Site)
		}
	}
	return p
}

// same reports whether plans are of the same layout and losses.
func (p *plans) same(o *plans) bool {
	return p == o || p != nil && o != nil && p.of == o.of && slices.Equal(p.lost, o.lost)
}

// done reports whether all are made.
func (p *plans) done() bool { return p == nil || len(p.all) == len(p.sites) }

// next makes the plan of one site more. What is lost already is lost in all of them.
func (p *plans) next() {
	if p.done() {
		return
	}
	site := p.sites[len(p.all)]
	one := plan{site: site}
	number := make(map[string]int16, len(p.of.Nodes))
	gone := map[string]bool{}
	left, holders := map[string]bool{}, make([]layout.Holder, len(p.of.Nodes))
	for i, n := range p.of.Nodes {
		number[n.ID] = int16(i) //nolint:gosec // at most layout.MaxNodes
		gone[n.ID] = n.Site == site || slices.Contains(p.lost, n.ID)
		holders[i] = layout.Holder{Node: n, Lost: gone[n.ID]}
		if !gone[n.ID] {
			left[n.Site] = true
		}
	}
	defer func() { p.all = append(p.all, one) }()
	if len(left) < p.of.Shards {
		return // no remedy: every site that is left has a shard of each stripe already
	}
	to, err := layout.Compute(p.of, holders, p.of.Shards)
	if err != nil {
		return // the network makes none of these nodes either
	}
	one.groups = to.Groups
	for g := range to.Groups {
		for i := range p.of.Width() {
			a := p.of.At(g*p.of.Groups/to.Groups, i)
			m := move{group: uint16(g), position: uint8(i), to: nowhere} //nolint:gosec // below ManyGroups and MaxRow
			switch {
			case i < to.Width():
				b := to.At(g, i)
				if a.ID == b.ID {
					continue
				}
				m.to = number[b.ID]
			case !gone[a.ID]:
				continue
			}
			one.moves = append(one.moves, m)
		}
	}
}

// cells are what the seals have in each place of a row.
type cells struct {
	held []int64       // by group and position
	cut  map[int][]cut // the same, of shards that are cut from copies
}

// cut are shards that are cut from the copies of a node.
type cut struct {
	node  string
	bytes int64
}

func cellOf(group, position int) int { return group*layout.MaxRow + position }

// newCells sorts slots; nil as long as they are not known.
func newCells(each Slots) *cells {
	c := &cells{held: make([]int64, catalog.SlotGroups*layout.MaxRow), cut: map[int][]cut{}}
	known := each(func(at catalog.Slot, bytes int64) {
		if at.Shard >= layout.MaxRow {
			return // no row is ever so long
		}
		cell := cellOf(int(at.Group), int(at.Shard))
		if at.Cut == "" {
			c.held[cell] += bytes
		} else {
			c.cut[cell] = append(c.cut[cell], cut{at.Cut, bytes})
		}
	})
	if !known {
		return nil
	}
	return c
}

// losses works out what each site's loss asks for; never nil.
func (p *plans) losses(c *cells) []Loss {
	site, all := sitesOf(p.of), []Loss{}
	for i := range p.all {
		one := &p.all[i]
		if len(one.moves) == 0 {
			continue
		}
		// What is cut by a node stays so if that node is still there, at the site that
		// has the place then, which is not the lost one.
		cuts := func(node, at string) bool { return site[node] == at && !slices.Contains(p.lost, node) }
		l := Loss{Site: one.site, Takes: map[string]int64{}}
		takes := make([]int64, len(p.of.Nodes))
		run := catalog.SlotGroups / one.groups
		for _, m := range one.moves {
			bytes, at := int64(0), ""
			if m.to != nowhere {
				at = p.of.Nodes[m.to].Site
			}
			for g := int(m.group) * run; g < (int(m.group)+1)*run; g++ {
				cell := cellOf(g, int(m.position))
				bytes += c.held[cell]
				for _, of := range c.cut[cell] {
					if at == "" || !cuts(of.node, at) {
						bytes += of.bytes
					}
				}
			}
			if m.to == nowhere {
				l.Placeless += bytes
			} else {
				takes[m.to] += bytes
			}
		}
		l.Placeless = AtRest(l.Placeless)
		for v, bytes := range takes {
			if bytes > 0 {
				l.Takes[p.of.Nodes[v].ID] = AtRest(bytes)
			}
		}
		all = append(all, l)
	}
	return all
}

// fits is how many bytes of shards, over all nodes and spread evenly over the groups, the
// pledges have room for so that the loss of any one site could still be made anew; 0: of
// none could it. It goes by the pledges of the layout, as layout.Capacity does.
func (p *plans) fits() int64 {
	of := p.of
	// Slots are counted in the finest groups, with what the worst loss adds.
	slots, most := of.Slots(of.Shards), make([]int, len(of.Nodes))
	remedied := false
	for i := range p.all {
		one := &p.all[i]
		takes := make([]int, len(of.Nodes))
		for _, m := range one.moves {
			if m.to != nowhere && int(m.position) < of.Shards {
				takes[m.to] += catalog.SlotGroups / one.groups
				remedied = true
			}
		}
		for v := range most {
			most[v] = max(most[v], takes[v])
		}
	}
	if !remedied {
		return 0
	}
	least := math.Inf(1) // bytes a slot
	for v, n := range of.Nodes {
		need := slots[v]*(catalog.SlotGroups/of.Groups) + most[v]
		if need > 0 && !slices.Contains(p.lost, n.ID) {
			least = min(least, float64(n.Pledge)/float64(need))
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return int64(least * float64(catalog.SlotGroups*of.Shards))
}

// room is the most that any one loss asks of each node.
func room(all []Loss) map[string]int64 {
	most := map[string]int64{}
	for _, l := range all {
		for node, bytes := range l.Takes {
			most[node] = max(most[node], bytes)
		}
	}
	return most
}

// sitesOf are the sites of the nodes of layouts; of those that two name, by the last.
func sitesOf(all ...*layout.Layout) map[string]string {
	sites := map[string]string{}
	for _, l := range all {
		if l == nil {
			continue
		}
		for _, n := range l.Nodes {
			sites[n.ID] = n.Site
		}
	}
	return sites
}

// rebuild keeps plans as the layout changes, and says what is known by them.
type rebuild struct {
	made   *plans           // complete
	making *plans           // of the present layout
	room   map[string]int64 // the last that was known
}

// next goes on with the plans of a state; it reports whether there is more to do.
func (b *rebuild) next(state *placement.State) (more bool) {
	if now := newPlans(state.View.New, state.Lost); !now.same(b.making) {
		b.making = now
	}
	b.making.next()
	if b.making.done() {
		b.made = b.making
		return false
	}
	return true
}

// tell adds to a report what is known of losses: of another layout the room alone, for
// what was kept is better kept than nothing until the next is known.
func (b *rebuild) tell(r *Report, each Slots) {
	if b.made == nil {
		if b.making.done() { // there is no layout
			r.Room = map[string]int64{}
		}
		return
	}
	if b.made.same(b.making) {
		c := newCells(each)
		if c == nil {
			return
		}
		r.Losses = b.made.losses(c)
		b.room, r.Fits = room(r.Losses), b.made.fits()
	}
	r.Room = maps.Clone(b.room)
}
