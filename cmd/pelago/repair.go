package main

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/node/reach"
	"pelago/node/repair"
	"pelago/node/work"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
)

// activity is when somebody last used this node who waits for the answer.
type activity struct{ last atomic.Int64 }

// activeFor is how long a read counts: those of a series follow each other sooner.
const activeFor = 2 * time.Second

func (a *activity) note() { a.last.Store(time.Now().UnixNano()) }

func (a *activity) lately() bool {
	passed := time.Since(time.Unix(0, a.last.Load()))
	return passed >= 0 && passed < activeFor // below 0: the clock was set back
}

// readers is what clients read from, noted.
type readers struct {
	*reach.Reader
	used *activity
}

// Open implements [archive.Reads].
func (r readers) Open(ctx context.Context, ref archive.Ref) (archive.Instance, error) {
	r.used.note()
	return r.Reader.Open(ctx, ref)
}

// readByPeers notes what other nodes read here for their clients, which repair's calls
// are not.
func (n *node) readByPeers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && !repair.IsBackground(r) && !strings.HasPrefix(r.URL.Path, "/held/list") {
			n.used.note()
		}
		next.ServeHTTP(w, r)
	})
}

// busy reports whether somebody stores or reads here, for whom background work holds
// back.
func (n *node) busy() bool { return n.archive.Busy() || n.used.lately() }

// openRepair opens what brings this node the shards that belong here; nothing at a
// witness, which holds none.
func (n *node) openRepair() error {
	if n.shards.held == nil {
		return nil
	}
	calls := repair.Background{Calls: n.network.watch.client(n.network.bulk)}
	n.repair = repair.New(repair.Options{
		Self: n.id, Places: n.placement, Catalog: n.catalog, Held: n.shards.held, Local: n.shards.source, Copies: ownPacks{n},
		Peers: held.NewClient(calls, holders{n.network}), Calls: calls, Members: holders{n.network},
		Tell:  n.spread.Tell,
		Lost:  func(node string) bool { return n.placement.State().Lost(node) },
		Alive: holders{n.network}.Alive, Others: holders{n.network}.Others, Busy: n.busy, Log: n.log,
	})
	n.repairing.Store(n.repair)
	n.network.peers.Handle("/repair/", n.network.members(n.repair.Handler(callerOf)))
	return nil
}

// repairTasks are the work of repair.
func (n *node) repairTasks() []work.Task {
	if n.repair == nil {
		return nil
	}
	return n.repair.Tasks()
}

// doubted is told of a shard that somebody saw rot, or nothing, of at a node: that one
// is to look.
func (n *node) doubted(name held.Name, node string) {
	if r := n.repairing.Load(); r != nil {
		r.Doubt(name, node)
	}
}

// ownPacks are the full copies of this node's packs, as repair asks for them.
type ownPacks struct{ *node }

// Has implements [repair.Copies].
func (o ownPacks) Has(id [16]byte) bool {
	_, _, err := o.archive.Ciphertext(pack.ID(id))
	return err == nil
}

// Verify implements [repair.Copies].
func (o ownPacks) Verify(ctx context.Context, of shard.Stripe) error {
	return o.shards.source.Verify(ctx, of)
}

// repairStatus is the repair in the status.
func (n *node) repairStatus() admin.Repair {
	if n.repair == nil {
		return admin.Repair{}
	}
	s := n.repair.Status()
	r := admin.Repair{
		Queued: s.Queued, Running: s.Running, Waiting: s.Waiting, Lost: s.Lost, DoneBytes: s.Done, BytesPerSecond: int64(s.Rate), LeftSeconds: -1, Full: s.Full,
	}
	if s.Left >= 0 {
		r.LeftSeconds = int64(s.Left.Seconds())
	}
	return r
}

// repairGauges registers what Prometheus may know of repair.
func (n *node) repairGauges() {
	if n.repair == nil {
		return
	}
	m := n.metrics
	status := func(read func(repair.Status) float64) func() float64 {
		return func() float64 { return read(n.repair.Status()) }
	}
	m.Gauge("pelago_repair_queued", "Shards that belong here and are lacking.", status(func(s repair.Status) float64 { return float64(s.Queued) }))
	m.Gauge("pelago_repair_running", "Shards that are being rebuilt here.", status(func(s repair.Status) float64 { return float64(s.Running) }))
	m.Gauge("pelago_repair_waiting", "Of the queued, those that could not be had yet.", status(func(s repair.Status) float64 { return float64(s.Waiting) }))
	m.Gauge("pelago_repair_lost", "Of the waiting, those that nobody has enough for.", status(func(s repair.Status) float64 { return float64(s.Lost) }))
	m.Gauge("pelago_repair_rate_bytes_per_second", "What comes from other nodes for repair.", status(func(s repair.Status) float64 { return s.Rate }))
	m.Gauge("pelago_repair_left_seconds", "Until repair here ends, at that rate; below 0: not known.", status(func(s repair.Status) float64 { return s.Left.Seconds() }))
	c := n.repair.Counters()
	for _, one := range []struct {
		name, help string
		read       func() uint64
	}{
		{"pelago_repair_rebuilt_total", "Shards that repair brought here.", c.Rebuilt.Load},
		{"pelago_repair_rebuilt_bytes_total", "Their bytes.", c.Bytes.Load},
		{"pelago_repair_fetched_bytes_total", "Bytes that came from other nodes for them.", c.Fetched.Load},
		{"pelago_repair_failed_total", "Attempts at bringing a shard that failed.", c.Failed.Load},
		{"pelago_repair_told_total", "News of seals that repair told.", c.Told.Load},
		{"pelago_repair_withdrawn_total", "Receipts that it withdrew, for shards that are gone here and cannot be had.", c.Withdrew.Load},
		{"pelago_repair_dropped_total", "Shards that belong to another node, which proved to hold them, and were dropped here.", c.Dropped.Load},
		{"pelago_repair_doubted_total", "Shards of this node that somebody saw rot of, and that were read.", c.Doubted.Load},
	} {
		m.Counter(one.name, one.help, func() float64 { return float64(one.read()) })
	}
}
