package main

import (
	"context"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/node/admin"
	"pelago/node/placement"
	"pelago/shard"
)

// openPlacement reads where the network's shards belong.
func (n *node) openPlacement() (err error) {
	w := n.network
	n.placement, err = placement.Open(placement.Options{
		Self: n.id, Catalog: n.catalog, Members: w.registry, Decisions: w.office.Decisions(), Leader: w.group.Leader,
		Alive: w.heardOf, Pledge: n.pledge, PledgeSet: int64(n.config.Store.Pledge), Log: n.log,
	})
	return err
}

// heardOf are the other nodes that gossip believes to be alive; false while it does
// not run.
func (w *network) heardOf() (nodes []string, known bool) {
	g := w.gossip.Load()
	if g == nil {
		return nil, false
	}
	for _, m := range g.Members() {
		nodes = append(nodes, m.Node)
	}
	return nodes, true
}

// pledge is how many bytes of the network's shards this node will hold: never more
// than the disk has for it.
func (n *node) pledge() (int64, error) {
	u, err := n.archive.Usage()
	if err != nil {
		return 0, err
	}
	has := max(u.Staging+u.Bulk+u.Free-u.Ballast, 0)
	if set := int64(n.config.Store.Pledge); set > 0 {
		return min(set, has), nil
	}
	return has / 5 * 4, nil
}

// layoutStatus is the layout in the status.
func layoutStatus(s placement.Status) admin.Layout {
	return admin.Layout{
		From: s.From, CapacityBytes: s.Capacity.Bytes, PledgedBytes: s.Capacity.Pledged,
		Waiting: s.Waiting, Limits: s.Limits, Code: codeOf(s),
	}
}

func codeOf(s placement.Status) admin.Code {
	return admin.Code{K: s.Code.K, M: s.Code.M, Survives: s.Survives, By: s.By, Sites: s.Sites}
}

func (o operated) Lose(ctx context.Context, node, site string, back bool, by string) (nodes []string, err error) {
	err = decidedOnce(ctx, func() error {
		nodes, err = o.n.placement.Lose(ctx, node, site, back, by)
		return err
	})
	return nodes, err
}

// electionTime is what an operator waits for the network to choose another leader: who
// says that a site is lost says it often just when its leader is.
const electionTime = 20 * time.Second

// decidedOnce has a decision made that may be made again, as soon as somebody leads.
func decidedOnce(ctx context.Context, decide func() error) error {
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	for {
		err := decide()
		if !fault.Is(err, fault.Unavailable) || !pause.For(ctx, time.Second) {
			return err
		}
	}
}

func (o operated) Code() admin.Code { return codeOf(o.n.placement.Status()) }

func (o operated) SetCode(ctx context.Context, k, m, survives int, by string) error {
	return decidedOnce(ctx, func() error { return o.n.placement.SetCode(ctx, shard.Code{K: k, M: m}, survives, by) })
}

func (o operated) AutoCode(ctx context.Context) error {
	return decidedOnce(ctx, func() error { return o.n.placement.AutoCode(ctx) })
}

// layoutGauges registers what Prometheus may know of the layout.
func (n *node) layoutGauges() {
	status := func(read func(placement.Status) int64) func() float64 {
		return func() float64 { return float64(read(n.placement.Status())) }
	}
	m := n.metrics
	m.Gauge("pelago_layout_version", "Version of the layout by which shards belong; 0: there is none.", status(func(s placement.Status) int64 { return int64(min(s.Version, 1<<53)) }))
	m.Gauge("pelago_layout_changing_nodes", "Nodes that a change of the layout waits for.", status(func(s placement.Status) int64 { return int64(len(s.Waiting)) }))
	m.Gauge("pelago_survives_sites", "Sites that the network survives the loss of, by its code.", status(func(s placement.Status) int64 { return int64(s.Survives) }))
	m.Gauge("pelago_holding_sites", "Sites that hold shards.", status(func(s placement.Status) int64 { return int64(s.Sites) }))
	m.Gauge("pelago_lost_nodes", "Nodes that are declared lost.", status(func(s placement.Status) int64 { return int64(len(s.Lost)) }))
	m.Gauge("pelago_layout_capacity_bytes", "Bytes of shards that fit until the first node is full.", status(func(s placement.Status) int64 { return s.Capacity.Bytes }))
	m.Gauge("pelago_pledged_bytes", "Bytes of shards that this node has pledged to hold.", func() float64 { return float64(n.placement.Pledged()) })
}
