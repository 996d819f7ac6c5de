package member

import (
	"slices"
	"time"

	"pelago/cluster/gossip"
)

// Node is a member with what is heard of it.
type Node struct {
	Member
	Removed bool // from the network, for good
	Alive   bool // as gossip says; this node always
	Self    bool
	Votes   bool
	Signs   bool          // it may let others in
	Heard   gossip.Meta   // what it says of itself; zero for this node and for one that is not heard
	RTT     time.Duration // 0: not measured
}

// Nodes lists all nodes of the network, removed ones too, by site and id.
func (o *Office) Nodes() []Node {
	v := o.o.Registry.now.Load()
	heard := map[string]gossip.Member{}
	for _, m := range o.o.Alive() {
		heard[m.Node] = m
	}
	voters, self := o.o.Voters(), o.o.Membership.Self.ID()
	nodes := make([]Node, 0, len(v.members))
	for id, m := range v.members {
		h, alive := heard[id]
		_, revoked := v.revoked[id]
		nodes = append(nodes, Node{
			Member: m, Removed: revoked || id == self && o.Removed(), Alive: alive || id == self, Self: id == self,
			Votes: slices.Contains(voters, id), Signs: v.signers[id] != nil, Heard: h.Meta, RTT: h.RTT,
		})
	}
	slices.SortFunc(nodes, func(a, b Node) int { return compareMembers(a.Member, b.Member) })
	return nodes
}
