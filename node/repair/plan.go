package repair

import (
	"slices"

	"pelago/cluster/layout"
	"pelago/replication/catalog"
	"pelago/shard"
)

// plan is what is decided from at one moment: the layouts, and who is there. Its
// methods are pure.
type plan struct {
	self string
	view layout.View
	lost func(node string) bool // declared lost
	away func(node string) bool // lost, or thought to be down: a hint
	bug  bug
}

// owner is the node that is to hold shard i of a pack, "" where no row is so long.
func (p *plan) owner(pack [16]byte, i int) string { return at(p.view.New, pack, i).ID }

func at(l *layout.Layout, pack [16]byte, i int) layout.Node {
	if l == nil || i < 0 || i >= l.Width() {
		return layout.Node{}
	}
	return l.At(l.Group(shard.Spread(pack)), i)
}

// site is the site of a node that holds shards, by the layouts; "" of another.
func (p *plan) site(node string) string {
	for _, l := range []*layout.Layout{p.view.New, p.view.Old} {
		if l == nil {
			continue
		}
		for _, n := range l.Nodes {
			if n.ID == node {
				return n.Site
			}
		}
	}
	return ""
}

// counted is the node at which a seal says that shard i is, by a receipt; "" if it
// says of none. A seal names the layout that it speaks of. It stands for those after
// it, too: a change is over when every node has what its rows give it, so that no
// stripe needs to be told anew because of one (DESIGN §3).
func (p *plan) counted(seal *catalog.SealFact, i int) string {
	if seal.Receipts>>i&1 == 0 {
		return ""
	}
	if node, ok := elsewhere(seal, i); ok {
		return node
	}
	if seal.Virtual == i {
		return seal.Origin
	}
	if p.behind(seal) {
		return at(p.view.Old, seal.Stripe.Pack, i).ID
	}
	return at(p.view.New, seal.Stripe.Pack, i).ID
}

// behind reports whether a seal speaks of the layout that is being left.
func (p *plan) behind(seal *catalog.SealFact) bool {
	return p.view.Old != nil && p.view.New != nil && seal.Layout < p.view.New.Version
}

func elsewhere(seal *catalog.SealFact, i int) (node string, ok bool) {
	for _, e := range seal.Elsewhere {
		if e.Shard == i {
			return e.Node, true
		}
	}
	return "", false
}

// spare is how many more shards a stripe may lose, counting those alone that are at
// nodes which are there, without a shard that is known to be lacking (-1: none).
// Below 0 it cannot be read by what is counted.
func (p *plan) spare(seal *catalog.SealFact, lacking int) int {
	have := 0
	for i := range seal.Code.N() {
		if node := p.counted(seal, i); node != "" && i != lacking && !p.away(node) {
			have++
		}
	}
	return have - seal.Code.K
}

// cut reports whether a shard need not be stored where its row has it: the origin
// cuts it from its copy, at that site (DESIGN §7). has says whether this node has
// the copy, if it is the origin.
func (p *plan) cut(seal *catalog.SealFact, i int, has func(pack [16]byte) bool) bool {
	switch {
	case seal.Virtual != i || p.lost(seal.Origin):
		return false
	case seal.Origin == p.self:
		return has(seal.Stripe.Pack)
	}
	site := p.site(seal.Origin)
	return site != "" && site == p.site(p.self)
}

// landed returns the news that shard i is here, at its owner; nil if the seal counts
// it here already, or if this node only stands in for the owner. What it says of others is what the seal says, by the layout that
// it names from then on.
func (p *plan) landed(seal *catalog.SealFact, i int) *catalog.SealFact {
	node := p.counted(seal, i)
	_, exception := elsewhere(seal, i)
	switch {
	case p.owner(seal.Stripe.Pack, i) != p.self:
		return nil
	case node == p.self && !exception && seal.Virtual != i:
		return nil
	case exception, node == "", seal.Virtual == i, p.lost(node):
	default:
		// It moved here from who had it, in a change of the layout. That this node has
		// completed the change says so of all its shards at once.
		return nil
	}
	next := p.next(seal)
	next.Receipts |= 1 << i
	next.Elsewhere = without(next.Elsewhere, i)
	if next.Virtual == i {
		next.Virtual = catalog.NoShard
	}
	return next
}

// gone returns the news that shard i is not here, where the seal counts it; nil if it
// counts it elsewhere, or not.
func (p *plan) gone(seal *catalog.SealFact, i int) *catalog.SealFact {
	if p.counted(seal, i) != p.self {
		return nil
	}
	next := p.next(seal)
	next.Receipts &^= 1 << i
	next.Elsewhere = without(next.Elsewhere, i)
	if next.Virtual == i {
		next.Virtual = catalog.NoShard
	}
	return next
}

// next is a seal as this node tells it, which has read it: with the layout that is
// valid now. Shards that are still where the layout before had them are named one by
// one, and those that were at lost nodes are there no more.
func (p *plan) next(seal *catalog.SealFact) *catalog.SealFact {
	next := *seal
	next.By, next.Base, next.Revision, next.Survives = p.self, seal.Revision, seal.Revision+1, 0
	next.Elsewhere = slices.Clone(seal.Elsewhere)
	if p.view.New == nil {
		return &next
	}
	for i := range seal.Code.N() {
		node := p.counted(seal, i)
		_, exception := elsewhere(seal, i)
		switch {
		case node == "" || exception || seal.Virtual == i || node == p.owner(seal.Stripe.Pack, i):
		case p.lost(node):
			next.Receipts &^= 1 << i
		default:
			next.Elsewhere = append(next.Elsewhere, catalog.Elsewhere{Shard: i, Node: node})
		}
	}
	slices.SortFunc(next.Elsewhere, func(a, b catalog.Elsewhere) int { return a.Shard - b.Shard })
	next.Layout = max(seal.Layout, p.view.New.Version)
	return &next
}

func without(all []catalog.Elsewhere, i int) []catalog.Elsewhere {
	return slices.DeleteFunc(all, func(e catalog.Elsewhere) bool { return e.Shard == i })
}

// surplus reports whether a shard that is here may go once the node that is returned
// has proved that it holds it: that node is who the committed seal counts it at, no
// change of the layout is under way, and the stripe survives what the network
// promises without the one here. A shard that is merely not known, not referenced or
// late stays.
func (p *plan) surplus(seal *catalog.SealFact, i, survives int) (holder string, ok bool) {
	pack := seal.Stripe.Pack
	if p.view.New == nil || p.view.Old != nil && p.bug != bugDuringChange || p.owner(pack, i) == p.self {
		return "", false
	}
	holder = p.counted(seal, i)
	if holder == "" || holder == p.self || seal.Virtual == i || p.away(holder) {
		return "", false
	}
	return holder, p.spare(seal, -1) >= min(survives, seal.Code.M)
}

// superseder returns the seal that stands in the place of a stripe of the pack which
// was withdrawn: the latest one that survives what the network promises. seals are
// those of the pack. False if the stripe stands, or nothing stands for it.
func (p *plan) superseder(seals []catalog.Seal, generation uint32, survives int) (*catalog.SealFact, bool) {
	for i := range seals {
		s := &seals[i].SealFact
		if p.bug == bugGenerations && s.Stripe.Generation > generation {
			return s, true
		}
		if s.Stripe.Generation == generation {
			return nil, false
		}
		if s.Stripe.Generation > generation && s.Withdrawn >= generation && p.spare(s, -1) >= min(survives, s.Code.M) {
			return s, true
		}
	}
	return nil, false
}

// duty reports whether this node is to hold a shard: it is in its row, or the seal
// counts it here.
func (p *plan) duty(seal *catalog.SealFact, i int) bool {
	return p.owner(seal.Stripe.Pack, i) == p.self || p.counted(seal, i) == p.self && seal.Virtual != i
}
