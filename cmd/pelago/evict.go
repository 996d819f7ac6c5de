package main

import (
	"context"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/archive/archivepb"
	"pelago/node/evict"
	"pelago/node/far"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// evictRows is the name of the rows in store/ of when packs were opened, for ever.
const evictRows = "evict"

// watchEvicted has an archive read what is evicted from its shards, and tell what is
// opened. That a pack was evicted stays when the rule is taken back.
func (n *node) watchEvicted(o *archive.Options) {
	if n.network.own().Witness {
		return
	}
	o.Evicted = func(p *archivepb.Pack) (io.ReaderAt, error) { return n.evictedPack(p) }
	if n.config.Store.EvictAbove > 0 {
		// By faces and the packer, when all is open.
		o.Opened = func(id pack.ID) { n.evict.Touched(id) }
		packed := o.Packed
		o.Packed = func(ids []pack.ID) {
			packed(ids)
			n.evict.Touched(ids...)
		}
	}
}

// openEvict opens what gives hot copies up by the operator's rule.
func (n *node) openEvict() {
	rule := evict.Rule{
		Above: float64(n.config.Store.EvictAbove), Below: float64(n.config.Store.EvictBelow),
		Untouched: time.Duration(n.config.Store.EvictUntouched),
	}
	if n.network.own().Witness || rule.Above == 0 {
		return
	}
	if rule.Below == 0 {
		rule.Below = rule.Above - evictMargin
	}
	n.evict = evict.New(evict.Options{
		Self: n.id, Rule: rule, Packs: n.archive, Copies: n.shards.source, Spread: n.spread, Holders: n.shards.client,
		Own: n.shards.held, Rows: n.archive.Rows(evictRows), Placement: n.placement.State, Survives: n.protect.Survives,
		Site: func(node string) (string, bool) {
			state := n.placement.State()
			return state.Site(node), n.network.registry.Belongs(node) && !state.Lost(node)
		},
		Seals: func(id [16]byte) ([]catalog.Seal, error) {
			v := n.catalog.View()
			defer v.Close()
			return v.Pack(id)
		},
		Disk: func() (evict.Disk, error) {
			u, err := n.archive.Usage()
			return evict.Disk{Used: u.Size - u.Free, Size: u.Size, Returning: u.Reclaimable, Ballast: u.Ballast, Room: n.roomKept()}, err
		},
		Doubt: n.doubted, Log: n.log,
	})
}

// evictMargin is how many percent of the disk are freed unless it is said.
const evictMargin = 5

// evictTasks are its task, if there is a rule.
func (n *node) evictTasks() []work.Task {
	if n.evict == nil {
		return nil
	}
	return []work.Task{n.evict.Task()}
}

// evictGauges registers what Prometheus may know of it.
func (n *node) evictGauges() {
	if n.evict == nil {
		return
	}
	c := n.evict.Counters()
	for _, one := range []struct {
		name, help string
		read       func() uint64
	}{
		{"pelago_evicted_packs_total", "Whole copies of packs that were given up.", c.Packs.Load},
		{"pelago_evicted_bytes_total", "Their bytes.", c.Bytes.Load},
		{"pelago_evict_written_total", "Shards that were written so that a copy can be given up.", c.Written.Load},
		{"pelago_evict_refused_total", "Looks at copies that may not be given up now.", c.Refused.Load},
	} {
		n.metrics.Counter(one.name, one.help, func() float64 { return float64(one.read()) })
	}
}

// evictedTime bounds a read of an evicted pack: readers of archives have no context.
const evictedTime = time.Minute

// evictedPack reads a pack that is evicted.
func (n *node) evictedPack(p *archivepb.Pack) (io.ReaderAt, error) {
	if len(p.Id) != 16 || len(p.Root) != 32 || len(p.Key) != 16 {
		return nil, fault.New(fault.Corrupt, "store: a pack's record without its id, root or key")
	}
	if n.recalled == nil {
		return nil, fault.New(fault.Unavailable, "the node is starting")
	}
	return &evicted{n, far.PackOf(p, seal.Key{})}, nil // whoever reads it has the key
}

// evicted reads the ciphertext of a pack from its shards.
type evicted struct {
	*node
	pack far.Pack
}

// ReadAt implements [io.ReaderAt].
func (e *evicted) ReadAt(b []byte, off int64) (int, error) {
	n := max(min(int64(len(b)), e.pack.Bytes-off), 0)
	if off < 0 || n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	ctx, cancel := context.WithTimeout(e.ending, evictedTime)
	defer cancel()
	if err := e.recalled.ReadPack(ctx, &e.pack, b[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
