package reach

import (
	"context"
	"slices"

	"pelago/query"
	"pelago/replication/catalog"
)

// Instances is the image level of this node's own studies, with the availability
// of everybody's.
func (r *Reader) Instances(own query.Instances) query.Instances { return available{own, r} }

type available struct {
	query.Instances
	r *Reader
}

// Availability implements [query.Instances]: what is held by nodes that are
// believed not to answer, and of which no copy is here, nor enough shards are at nodes
// that are believed to, is not available. It is a
// hint. While all nodes are alive it costs no more than that of this node's own.
func (a available) Availability(ctx context.Context, study, series string, number uint64) query.Availability {
	if a.r.o.Sends != nil && a.r.o.Sends() != nil {
		return query.Unavailable // nothing is opened here
	}
	own := a.Instances.Availability(ctx, study, series, number)
	if own != query.Online {
		return a.elsewhere(ctx, study, series, own)
	}
	if number != 0 || a.r.allAlive() {
		return own
	}
	if study == "" {
		return query.Unavailable // something somewhere: who asks looks closer
	}
	holders, err := a.r.holders(study, series)
	if err != nil {
		a.r.log.Warn("instance availability was not determined", "error", err)
		return own
	}
	if !a.allReachable(ctx, holders) {
		return query.Unavailable
	}
	return query.Online
}

// allReachable reports whether all series of some holders can be had now.
func (a available) allReachable(ctx context.Context, holders []catalog.Holder) bool {
	for len(holders) > 0 {
		n := 1
		for n < len(holders) && holders[n].Series == holders[0].Series && holders[n].Study == holders[0].Study {
			n++
		}
		if ctx.Err() != nil || !a.r.reachableNow(holders[:n]) {
			return false
		}
		holders = holders[n:]
	}
	return true
}

// elsewhere is the availability of what is lost here: of each series of which
// anything is, another node that is believed to answer must hold the same set, or there
// must be shards enough.
func (a available) elsewhere(ctx context.Context, study, series string, own query.Availability) query.Availability {
	if study == "" {
		return own
	}
	holders, err := a.r.holders(study, series)
	if err != nil {
		a.r.log.Warn("instance availability was not determined", "error", err)
		return own
	}
	for i := range holders {
		h := &holders[i]
		if h.Node != a.r.o.Node || a.Instances.Availability(ctx, h.Study, h.Series, 0) == query.Online {
			continue
		}
		if !a.r.onShards(h) && !slices.ContainsFunc(holders, func(other catalog.Holder) bool {
			return other.Series == h.Series && other.Study == h.Study && other.UIDHash == h.UIDHash &&
				other.Node != h.Node && a.r.o.Nodes.Alive(other.Node)
		}) {
			return own
		}
	}
	if !a.r.allAlive() && !a.allReachable(ctx, holders) {
		return query.Unavailable
	}
	return query.Online
}

func (r *Reader) allAlive() bool {
	for _, node := range r.o.Nodes.Others() {
		if !r.o.Nodes.Alive(node) {
			return false
		}
	}
	return true
}

// reachableNow reports whether all of a series can be had: of each set of
// instances that nodes hold, from one of them, from copies here, or from shards.
func (r *Reader) reachableNow(holders []catalog.Holder) bool {
	sets := map[[16]byte]bool{}
	for i := range holders {
		h := &holders[i]
		sets[h.UIDHash] = sets[h.UIDHash] || h.Node == r.o.Node || r.o.Nodes.Alive(h.Node)
	}
	for i := range holders {
		h := &holders[i]
		if sets[h.UIDHash] {
			continue
		}
		if !r.copied(h) && !r.onShards(h) {
			return false
		}
		sets[h.UIDHash] = true
	}
	return true
}

// copied reports whether copies of all that a node holds of a series are here.
func (r *Reader) copied(h *catalog.Holder) bool {
	k := r.recall(seriesAt{h.Study, h.Series, h.Node})
	if k == nil || !k.fits(h) {
		return false
	}
	for i := range k.Instances {
		if k.Instances[i].Pack < 0 {
			return false
		}
	}
	for i := range k.Packs {
		if !r.o.Copies.Has(k.Packs[i].ID) {
			return false
		}
	}
	return true
}
