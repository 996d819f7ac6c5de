package member

import (
	"slices"
	"time"

	"pelago/cluster/gossip"
)

// State is how a node is, as far as this node knows.
type State string

// The states, the worst first.
const (
	Removed State = "removed" // from the network, for good
	Silent  State = "silent"  // nobody has heard of it lately
	Drained State = "drained" // alive, and takes nothing new in
	Alive   State = "alive"
)

// Site is a site with its nodes.
type Site struct {
	Name  string
	State State // the best of its nodes'
	Nodes []Node
}

// Node is a member with what is heard of it.
type Node struct {
	Member
	State State
	Self  bool
	Votes bool
	Signs bool          // it may let others in
	Heard gossip.Meta   // what it says of itself; zero for this node and for one that is not heard
	RTT   time.Duration // 0: not measured
}

// Sites lists the network's sites with all their nodes, by name and id.
func (o *Office) Sites() []Site {
	v := o.o.Registry.now.Load()
	heard := map[string]gossip.Member{}
	for _, m := range o.o.Alive() {
		heard[m.Node] = m
	}
	voters := o.o.Voters()
	var nodes []Node
	for id, m := range v.members {
		h, alive := heard[id]
		_, revoked := v.revoked[id]
		n := Node{Member: m, Self: id == o.o.Membership.Self.ID(), Votes: slices.Contains(voters, id), Signs: v.signers[id] != nil, Heard: h.Meta, RTT: h.RTT}
		n.State = stateOf(revoked, alive || n.Self, m.Drained)
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return compareMembers(a.Member, b.Member) })
	return bySite(nodes)
}

func stateOf(revoked, alive, drained bool) State {
	switch {
	case revoked:
		return Removed
	case !alive:
		return Silent
	case drained:
		return Drained
	}
	return Alive
}

// bySite gathers nodes that are in the order of their sites.
func bySite(nodes []Node) []Site {
	rank := []State{Removed, Silent, Drained, Alive}
	var sites []Site
	for _, n := range nodes {
		if len(sites) == 0 || sites[len(sites)-1].Name != n.Site {
			sites = append(sites, Site{Name: n.Site, State: Removed})
		}
		s := &sites[len(sites)-1]
		s.Nodes = append(s.Nodes, n)
		if slices.Index(rank, n.State) > slices.Index(rank, s.State) {
			s.State = n.State
		}
	}
	return sites
}
