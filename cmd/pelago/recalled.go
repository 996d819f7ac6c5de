package main

import (
	"sync"
	"time"

	"pelago/node/recalled"
	"pelago/shard/held"
)

// openRecalled opens what reads other nodes' packs from their shards.
func (n *node) openRecalled() error {
	n.recalled = recalled.New(recalled.Options{
		Node: n.id, Catalog: n.catalog, Keys: n.keys, State: n.placement.State,
		Local:   n.shards.near(),
		Holders: held.Holders{Client: held.NewClient(n.network.reads(), holders{n.network})},
		Hints:   &hints{network: n.network}, Doubt: n.doubted, Log: n.log,
	})
	return nil
}

// near are the shards that are here, for this node itself; nil at a witness.
func (s *shards) near() held.Source {
	if s.source == nil {
		return nil
	}
	return s.source
}

// recalledGauges are what is counted of reads from shards.
func (n *node) recalledGauges() {
	c := n.recalled.Counters()
	for _, one := range []struct {
		name, help string
		read       func() int64
	}{
		{"pelago_recall_requests_total", "Requests for ranges of shards.", c.Asked.Load},
		{"pelago_recall_bytes_total", "Bytes of shards in them.", c.AskedBytes.Load},
		{"pelago_recall_hedged_total", "Of these, requests beside one that was still expected.", c.Hedged.Load},
		{"pelago_recall_hedged_bytes_total", "Their bytes.", c.HedgedBytes.Load},
		{"pelago_recall_degraded_total", "Ranges that were made of other shards than their own.", c.Degraded.Load},
		{"pelago_recall_shared_total", "Ranges that another reader was fetching already.", c.Shared.Load},
		{"pelago_recall_rotten_total", "Answers that were not the shard they should be.", c.Rotten.Load},
	} {
		n.metrics.Counter(one.name, one.help, func() float64 { return float64(one.read()) })
	}
}

// hints are what gossip says of other nodes, looked up once a moment: readers ask for
// each piece that they read.
type hints struct {
	network *network

	mu   sync.Mutex // guards what follows
	read time.Time
	up   map[string]time.Duration // round trips of those that are believed to answer; nil: nothing is known
}

// hintsFor is how long they are believed.
const hintsFor = 500 * time.Millisecond

// Hint implements [recall.Hints].
func (h *hints) Hint(node string) (up bool, rtt time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.read) > hintsFor {
		h.read, h.up = now, nil
		if g := h.network.gossip.Load(); g != nil {
			h.up = map[string]time.Duration{}
			for _, m := range g.Members() {
				h.up[m.Node] = m.RTT
			}
		}
	}
	if h.up == nil {
		return true, 0
	}
	rtt, up = h.up[node]
	return up, rtt
}
