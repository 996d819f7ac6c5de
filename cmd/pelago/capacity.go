package main

import "pelago/node/capacity"

// owed is how many bytes of shards a node owes; -1: it is not known yet.
func (n *node) owed(node string) int64 {
	r := n.capacity.Report()
	if r == nil {
		return -1
	}
	return r.Owed[node]
}

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
	m.Gauge("pelago_shards_placeless_bytes", "Bytes of shards that belong to no node, for want of sites; below 0: not known.",
		report(func(r *capacity.Report) int64 { return r.Placeless }))
}
