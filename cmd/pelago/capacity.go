package main

import (
	"pelago/node/admin"
	"pelago/node/capacity"
)

// owed is how many bytes of shards a node owes; -1: it is not known yet.
func (n *node) owed(node string) int64 {
	r := n.capacity.Report()
	if r == nil {
		return -1
	}
	return r.Owed[node]
}

// roomOf is how many bytes a node is to keep free for shards of a site that is lost; -1:
// it is not known yet.
func (n *node) roomOf(node string) int64 {
	r := n.capacity.Report()
	if r == nil || r.Room == nil {
		return -1
	}
	return r.Room[node]
}

// roomKept is how many bytes of this node's disk are kept from copies, for shards: what
// the worst loss of a site would bring, and what is lacking here already, as far as the
// pledge lets them in.
func (n *node) roomKept() int64 {
	if n.shards.held == nil {
		return 0
	}
	lacking := int64(0)
	if r := n.repairing.Load(); r != nil {
		lacking = r.Status().Lacking
	}
	held, arriving := n.shards.held.Bytes()
	return kept(n.roomOf(n.id), lacking, n.placement.Pledged()-held-arriving)
}

// kept is the room that is kept of what a pledge still lets in; below 0: not known.
func kept(room, lacking, left int64) int64 {
	return max(min(max(room, 0)+max(lacking, 0), left), 0)
}

// shortages are what of each site's shards would find no place if that site were lost.
func shortages(r *capacity.Report, members []admin.Member) (all []admin.Shortage) {
	if r == nil {
		return nil
	}
	by := map[string]*admin.Member{}
	for i := range members {
		by[members[i].Node] = &members[i]
	}
	for _, s := range r.Shortages(func(node string) int64 { return stillTakes(by[node]) }) {
		all = append(all, admin.Shortage{Site: s.Site, Bytes: s.Bytes})
	}
	return all
}

// stillTakes is how many bytes of shards a node can still take: what it has pledged and
// neither holds nor owes, and no more than its disk has, if that is known.
func stillTakes(m *admin.Member) int64 {
	if m == nil {
		return 0
	}
	room := m.Pledge - max(m.Held, capacity.AtRest(m.Owed))
	if m.Capacity > 0 && (m.Self || m.Alive) {
		room = min(room, m.Capacity-m.Used-max(leastBallast, m.Capacity/100))
	}
	return max(room, 0)
}

// leastBallast is what a node keeps free at least, unless it was set otherwise.
const leastBallast = 1 << 30

// heldHere is how many bytes of shards this node holds, and how many of those that it owes
// it has not; -1: not known.
func (n *node) heldHere() (held, lacking int64) {
	if n.network.own().Witness {
		return 0, 0
	}
	held, lacking = -1, -1
	if u, err := n.archive.Usage(); err == nil {
		held = u.Held
	}
	if r := n.repairing.Load(); r != nil {
		lacking = r.Status().Lacking
	}
	return held, lacking
}

// capacityGauges registers what Prometheus may know of what this node owes. What it
// holds is pelago_held_bytes.
func (n *node) capacityGauges() {
	report := func(read func(*capacity.Report) int64) func() float64 {
		return func() float64 {
			if r := n.capacity.Report(); r != nil {
				return float64(read(r))
			}
			return -1
		}
	}
	m := n.metrics
	m.Gauge("pelago_shards_owed_bytes", "Bytes of shards that belong to this node by the layout and what is sealed; below 0: not known.",
		report(func(r *capacity.Report) int64 { return r.Owed[n.id] }))
	m.Gauge("pelago_shards_held_bytes", "Bytes of shards at rest here, with their hashes; below 0: not known.",
		func() float64 { held, _ := n.heldHere(); return float64(held) })
	m.Gauge("pelago_shards_lacking_bytes", "Of those that belong to this node, the ones that are not here; below 0: not known.",
		func() float64 { _, lacking := n.heldHere(); return float64(lacking) })
	m.Gauge("pelago_shards_room_bytes", "Bytes that this node would have to take in if the one site were lost whose loss asks most of it; below 0: not known.",
		func() float64 { return float64(n.roomOf(n.id)) })
	m.Gauge("pelago_shards_short_bytes", "Bytes of shards that would find no place if the one site were lost of which most would not; below 0: not known.", func() float64 {
		r := n.capacity.Report()
		usage, err := n.archive.Usage()
		if err != nil || r == nil || r.Layout > 0 && r.Losses == nil {
			return -1
		}
		if all := shortages(r, n.members(usage, n.vantage())); len(all) > 0 {
			return float64(all[0].Bytes)
		}
		return 0
	})
	m.Gauge("pelago_shards_placeless_bytes", "Bytes of shards that belong to no node, for want of sites; below 0: not known.",
		report(func(r *capacity.Report) int64 { return r.Placeless }))
}
