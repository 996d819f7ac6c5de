package placement

import (
	"maps"

	"pelago/cluster/layout"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/recall"
)

// State is how the network places shards, as of a moment. It is never changed.
type State struct {
	View layout.View // New is nil before the first layout: no pack is striped
	// Code is that of new stripes of large packs; [shard.Code.For] of it that of small
	// ones. Its zero is none.
	Code shard.Code
	// Survives is t, the number of sites that the network may lose without losing
	// anything committed.
	Survives int

	lost  map[string]bool
	sites map[string]string // by node, of all that were ever members
}

// Lost reports whether what a node held is not to be counted on: it was declared
// lost, until it is back, or removed from the network for good. A node that is down
// is not lost for that.
func (s *State) Lost(node string) bool { return s.lost[node] }

// Site is where a node is, or was when it was removed: "" for one that never was a
// member.
func (s *State) Site(node string) string { return s.sites[node] }

// equal reports whether two states say the same; layouts are the same when they are
// one.
func (s *State) equal(o *State) bool {
	return s.View == o.View && s.Code == o.Code && s.Survives == o.Survives &&
		maps.Equal(s.lost, o.lost) && maps.Equal(s.sites, o.sites)
}

// Striped reports whether packs are striped at all: a network of one site, or one
// without a layout yet, keeps whole packs only.
func (s *State) Striped() bool { return s.View.New != nil && s.Code.K > 0 }

// Owner is the node that holds shard i of a stripe, from 0, or is to hold it, by the
// row of its group: where repair and rebalancing bring it, whatever stands in for it
// meanwhile. False if the row is not that long.
func (s *State) Owner(of shard.Stripe, i int) (layout.Node, bool) {
	l := s.View.New
	if l == nil || i < 0 || i >= l.Width() {
		return layout.Node{}, false
	}
	return l.At(l.Group(shard.Spread(of.Pack)), i), true
}

// Substitutes are the nodes that may stand in for one of the row, in the order in
// which to ask them: those of the row behind its n shards (DESIGN §5).
func (s *State) Substitutes(of shard.Stripe, n int) []layout.Node {
	l := s.View.New
	if l == nil || n >= l.Width() {
		return nil
	}
	return l.Row(l.Group(shard.Spread(of.Pack)))[n:]
}

// Places are where the shards of a stripe may be had, by shard, of each in the order
// in which to ask: the node of the new row, that of the old one, who stands in for
// them by the seal, and the origin, which cuts its own from its copy. No place is
// listed twice.
func (s *State) Places(seal *catalog.SealFact) []recall.Place {
	spread := shard.Spread(seal.Stripe.Pack)
	places := make([]recall.Place, 0, seal.Code.N()+2)
	for i := range seal.Code.N() {
		from := len(places)
		add := func(node string) {
			for _, p := range places[from:] {
				if p.Node == node {
					return
				}
			}
			places = append(places, recall.Place{Index: i, Node: node})
		}
		for _, n := range s.candidates(spread, i) {
			add(n.ID)
		}
		for _, e := range seal.Elsewhere {
			if e.Shard == i {
				add(e.Node)
			}
		}
		if seal.Virtual == i {
			add(seal.Origin)
		}
	}
	return places
}

func (s *State) candidates(spread uint64, i int) []layout.Node {
	if s.View.New == nil {
		return nil
	}
	return s.View.Candidates(spread, i)
}
