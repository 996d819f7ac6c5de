package main

import (
	"context"
	"io"

	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/spread"
	"pelago/node/work"
	"pelago/replication/journal"
	"pelago/shard/pack"
)

// spreadRows is the name of the rows in store/ of what this node's packs are striped
// into, for ever.
const spreadRows = "spread"

// watchPacks has an archive tell what spreads its packs of them, and have the journal
// tell what comes of it. Both come from tasks, when all is open. A witness has no packs.
func (n *node) watchPacks(o *archive.Options) {
	if n.network.own().Witness {
		return
	}
	o.Packs = toldPacks{n}
	o.Packed = func(ids []pack.ID) { n.spread.Packed(ids) }
	o.Spread = func() bool { return n.placement.State().Striped() }
}

// toldPacks is what the network must learn of this node's packs: the archive, and its
// journal with it, opens before what spreads them.
type toldPacks struct{ *node }

// After implements [journal.Packs].
func (t toldPacks) After(ctx context.Context, number uint64, yield func(uint64, journal.PackFact) error) error {
	return t.spread.After(ctx, number, yield)
}

// Refused implements [journal.Packs].
func (t toldPacks) Refused(f journal.PackFact, why error) { t.spread.Refused(f, why) }

// recalledPacks are this node's packs, those that were evicted too.
type recalledPacks struct{ *archive.Archive }

// Ciphertext implements [spread.Packs].
func (r recalledPacks) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	return r.Recall(id)
}

// openSpread opens what turns this node's packs into stripes.
func (n *node) openSpread() (err error) {
	if n.network.own().Witness {
		return nil
	}
	n.spread, err = spread.Open(spread.Options{
		Self: n.id, Packs: recalledPacks{n.archive}, Rows: n.archive.Rows(spreadRows), Holders: n.shards.client, Own: n.shards.held, Placement: n.placement,
		Keys: n.keys, Catalog: n.catalog, Offer: n.archive.Journal().Offer, Alive: holders{n.network}.Alive, Log: n.log,
	})
	return err
}

// spreadTasks are its tasks.
func (n *node) spreadTasks() []work.Task {
	if n.spread == nil {
		return nil
	}
	return n.spread.Tasks()
}

// spreadStatus is how many packs wait for their shards to be elsewhere.
func (n *node) spreadStatus() admin.Spread {
	if n.spread == nil {
		return admin.Spread{}
	}
	packs, bytes := n.spread.Waiting()
	return admin.Spread{Packs: packs, Bytes: bytes, OldestSeconds: n.spread.Oldest().Seconds()}
}

// spreadGauges registers what Prometheus may know of it.
func (n *node) spreadGauges() {
	if n.spread == nil {
		return
	}
	m, c := n.metrics, n.spread.Counters()
	m.Gauge("pelago_spread_waiting_packs", "Packs that lack shards at other sites, or wait to be striped anew.", func() float64 { packs, _ := n.spread.Waiting(); return float64(packs) })
	m.Gauge("pelago_spread_waiting_bytes", "Their bytes.", func() float64 { _, bytes := n.spread.Waiting(); return float64(bytes) })
	m.Gauge("pelago_spread_oldest_seconds", "How long the pack that has waited longest has.", func() float64 { return n.spread.Oldest().Seconds() })
	for _, one := range []struct {
		name, help string
		read       func() uint64
	}{
		{"pelago_spread_packs_total", "Stripes that came to have all their shards.", c.Packs.Load},
		{"pelago_spread_shards_total", "Shards that other nodes have given a receipt for.", c.Shards.Load},
		{"pelago_spread_sent_bytes_total", "Bytes of shards that went to other nodes.", c.Bytes.Load},
		{"pelago_spread_failed_total", "Uploads of shards that failed.", c.Failed.Load},
	} {
		m.Counter(one.name, one.help, func() float64 { return float64(one.read()) })
	}
}
