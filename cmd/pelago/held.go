package main

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"sync/atomic"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/repair"
	"pelago/node/virtual"
	"pelago/node/work"
	"pelago/shard"
	"pelago/shard/bulk"
	"pelago/shard/held"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

// shards is this node as a holder of shards: of other nodes' packs, which rest here,
// and of its own, which are cut from their hot copies. A witness holds none, and has
// the client only.
type shards struct {
	client *held.Client
	held   *held.Store
	source *virtual.Source
	scrub  *virtual.Scrub // of hot copies
	note   *heldNote
}

// The names of rows in store/, for ever: of held shards, and of the scrub of hot
// copies.
const (
	heldRows     = "held"
	hotScrubRows = "hot_scrub"
)

// heldNote has what bulk/ finds missing or rotten among held shards noted, whether
// their store is open yet or not: bulk/ opens first.
type heldNote struct{ store atomic.Pointer[held.Store] }

// lost implements [archive.Options.BulkLost].
func (h *heldNote) lost(rows func(string) *archive.Rows, refs []bulk.Ref, cause error) error {
	if s := h.store.Load(); s != nil {
		return s.BulkLost(refs, cause)
	}
	return held.NoteLost(rows(heldRows), refs, cause)
}

// still implements [archive.Options.Still].
func (h *heldNote) still(do func() error) error {
	if s := h.store.Load(); s != nil {
		return s.Still(do)
	}
	return do()
}

// watchHeld has an archive's damage to held shards noted.
func watchHeld(o *archive.Options) *heldNote {
	note := &heldNote{}
	o.BulkLost, o.Still = note.lost, note.still
	return note
}

// openHeld opens what rests here of other nodes' packs.
func openHeld(a *archive.Archive, note *heldNote, o held.Options) (*held.Store, error) {
	o.Bulk, o.Rows, o.Reserve = a.Bulk(), a.Rows(heldRows), a.Reserve
	s, err := held.Open(o)
	if err == nil {
		note.store.Store(s)
	}
	return s, err
}

// openShards opens this node as a holder of shards, and lets others ask it.
func (n *node) openShards() (err error) {
	s := &n.shards
	s.client = held.NewClient(n.network.watch.client(n.network.bulk), holders{n.network})
	if n.network.own().Witness {
		n.network.peers.Handle("/held/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			call.Refuse(w, fault.New(fault.Unsupported, "a witness holds no shards"))
		}))
		return nil
	}
	if s.held, err = openHeld(n.archive, s.note, held.Options{
		Self: n.self, Limit: n.placement.Pledged, Busy: n.busy, Purged: n.catalog.Purged, Log: n.log,
		OnLost: n.shardLost,
		OnConflict: func(offered held.Entry, _ [32]byte) {
			n.log.Error("another shard was offered under the name of one that is held", "shard", offered.Name.String())
		},
	}); err != nil {
		return err
	}
	s.source = virtual.New(virtual.Options{
		Held: s.held, Hot: n.archive, Heads: headsOf{n}, Log: n.log,
		Rotten: func(of shard.Stripe, cause error) { n.packsLost([]pack.ID{of.Pack}, cause) },
	})
	s.scrub = virtual.NewScrub(virtual.ScrubOptions{
		Packs: n.archive, Rows: n.archive.Rows(hotScrubRows), Bytes: func() int64 { return n.archive.Bulk().BytesOf(bulk.Hot) },
		Busy: n.busy, Rotten: func(id pack.ID, cause error) { n.packsLost([]pack.ID{id}, cause) }, Log: n.log,
	})
	n.network.peers.Handle("/held/", n.network.members(n.readByPeers(
		repair.Behind(held.NewHandler(held.HandlerOptions{Held: s.held, Source: s.source, Log: n.log}), n.busy))))
	return nil
}

// tasks are the work of a holder.
func (s *shards) tasks() []work.Task {
	if s.held == nil {
		return nil
	}
	return []work.Task{
		{Name: "shards", Restart: &work.Restart{}, Run: func(ctx context.Context, p *work.Progress) error {
			return s.held.Run(ctx, p.Note)
		}},
		{Name: "hot_scrub", Restart: &work.Restart{}, Run: s.scrub.Run},
	}
}

// close ends what is read of hot copies. The tasks must have ended.
func (s *shards) close() error {
	if s.source != nil {
		s.source.Close()
	}
	return nil
}

// gauges are what is counted of held shards.
func (s *shards) gauges(n *node) {
	if s.held == nil {
		return
	}
	m := n.metrics
	m.Gauge("pelago_held_bytes", "Bytes of shards of other nodes' packs.", func() float64 { at, _ := s.held.Bytes(); return float64(at) })
	m.Gauge("pelago_held_arriving_bytes", "Bytes of shards that are on their way here.", func() float64 { _, coming := s.held.Bytes(); return float64(coming) })
	m.Gauge("pelago_held_scrubbed_timestamp_seconds", "When the scrub of held shards that ended last began; 0: none has.", func() float64 {
		scrub, err := s.held.Scrubbed()
		if err != nil || scrub.Finished.IsZero() {
			return 0
		}
		return float64(scrub.Finished.Unix())
	})
	m.Gauge("pelago_hot_scrubbed_timestamp_seconds", "When the scrub of hot copies that ended last began; 0: none has.", func() float64 {
		place, err := s.scrub.Place()
		if err != nil || place.Finished.IsZero() {
			return 0
		}
		return float64(place.Finished.Unix())
	})
	c, hot := s.held.Counters(), s.scrub.Counters()
	for _, one := range []struct {
		name, help string
		read       func() uint64
	}{
		{"pelago_held_landed_total", "Shards that other nodes sent and that rest here.", c.Landed.Load},
		{"pelago_held_landed_bytes_total", "Their bytes.", c.Bytes.Load},
		{"pelago_held_merged_total", "Held shards that were moved into a table with others.", c.Merged.Load},
		{"pelago_held_dropped_total", "Held shards that were given up for a reason.", c.Dropped.Load},
		{"pelago_held_lost_total", "Held shards that were found rotten or missing.", c.Lost.Load},
		{"pelago_held_scrubbed_bytes_total", "Bytes that the scrub of held shards has read.", c.Scanned.Load},
		{"pelago_hot_scrubbed_bytes_total", "Bytes that the scrub of hot copies has read.", hot.Bytes.Load},
		{"pelago_hot_scrub_rotten_total", "Hot copies that scrub found rotten.", hot.Rotten.Load},
	} {
		m.Counter(one.name, one.help, func() float64 { return float64(one.read()) })
	}
}

// packsLost has packs that arrived here be read from others, and repaired: their
// bytes here are rotten or missing.
func (n *node) packsLost(packs []pack.ID, _ error) {
	if n.shards.source == nil {
		return // the archive is opening, or nothing is cut from its packs
	}
	for _, id := range packs {
		n.shards.source.Forget(id)
		if p := n.protecting.Load(); p != nil {
			p.CopyLost(id)
		}
		if r := n.repairing.Load(); r != nil {
			r.CopyLost(id)
		}
	}
}

// shardLost is told of a shard whose bytes here are rotten or missing. What is lost
// before repair is open, its first walk finds.
func (n *node) shardLost(name held.Name, cause error) {
	if r := n.repairing.Load(); r != nil {
		r.OnLost(name, cause)
	}
}

// headsOf has the heads of the stripes of this node's packs.
type headsOf struct{ *node }

// Head implements [virtual.Heads].
func (h headsOf) Head(of shard.Stripe) (*stripe.Head, error) {
	return h.spread.Head(of)
}

// SigningKey implements [held.Members].
func (h holders) SigningKey(node string) (ed25519.PublicKey, error) {
	m, ok := h.registry.Member(node)
	if !ok {
		return nil, fault.New(fault.Denied, "node %s is no member", node)
	}
	return m.Public, nil
}
