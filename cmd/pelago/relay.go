package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/gossip"
	"pelago/cluster/port"
	"pelago/cluster/relay"
)

// openRelay makes the ways to other nodes, and what passes others' connections on.
func (w *network) openRelay() {
	w.ways = relay.New(relay.Options{Port: w.port, Locate: w.registry.Locate, Relays: w.relays, Log: w.log})
	w.bulk = w.ways.Direct()
	w.relay = relay.NewServer(relay.ServerOptions{
		Self: w.self.ID(), Port: w.port, Locate: w.registry.Locate, Member: w.registry.Belongs, Log: w.log,
	})
}

// reads makes a client of calls that somebody waits for who reads: what cannot be asked
// directly is asked by way of another node.
func (w *network) reads() *call.Client { return w.watch.client(w.ways) }

// serveRelay passes on what other nodes read.
func (w *network) serveRelay(ctx context.Context) error {
	l, err := w.listen(port.Relay)
	if err != nil {
		return err
	}
	return w.relay.Serve(ctx, l)
}

// relays implements [relay.Options.Relays].
func (w *network) relays(node string) []string {
	if g := w.gossip.Load(); g == nil || !g.Alive(node) {
		return nil
	}
	return relaysTo(node, w.alive())
}

// prefix is how much of a node's id gossip tells with a round trip.
const prefix = 8

// relaysTo are those of some nodes that tell a round trip to another, the shortest way
// first; those last to which the way from here is unknown.
func relaysTo(node string, alive []gossip.Member) []string {
	type way struct {
		relay   string
		unknown bool
		trip    time.Duration
	}
	var all []way
	for _, m := range alive {
		rest, ok := m.Meta.RTT[node[:min(len(node), prefix)]]
		if m.Node != node && ok && rest > 0 {
			all = append(all, way{m.Node, m.RTT == 0, m.RTT + rest})
		}
	}
	slices.SortFunc(all, func(a, b way) int {
		if a.unknown != b.unknown {
			if a.unknown {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.trip, b.trip), cmp.Compare(a.relay, b.relay))
	})
	relays := make([]string, len(all))
	for i := range all {
		relays[i] = all[i].relay
	}
	return relays
}

// relayGauges are what is counted of connections that are passed on.
func (n *node) relayGauges() {
	c := n.network.relay.Counters()
	n.metrics.Counter("pelago_relay_connections_total", "Connections of other nodes that this one passed on, because a link is cut.", func() float64 { return float64(c.Connections.Load()) })
	n.metrics.Counter("pelago_relay_bytes_total", "Bytes in them, both directions.", func() float64 { return float64(c.Bytes.Load()) })
	n.metrics.Gauge("pelago_relay_detours", "Nodes that cannot be dialled, though others reach them.", func() float64 { return float64(n.network.ways.Detours()) })
}
