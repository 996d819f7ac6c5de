package reach

import (
	"context"

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
// believed not to answer, and of which no copy is here, is not available. It is a
// hint. While all nodes are alive it costs no more than that of this node's own.
func (a available) Availability(ctx context.Context, study, series string, number uint64) query.Availability {
	if a.r.o.Sends != nil && a.r.o.Sends() != nil {
		return query.Unavailable // nothing is opened here
	}
	own := a.Instances.Availability(ctx, study, series, number)
	if own != query.Online || number != 0 || a.r.allAlive() {
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
	for len(holders) > 0 {
		n := 1
		for n < len(holders) && holders[n].Series == holders[0].Series && holders[n].Study == holders[0].Study {
			n++
		}
		if ctx.Err() != nil || !a.r.reachableNow(holders[:n]) {
			return query.Unavailable
		}
		holders = holders[n:]
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
// instances that nodes hold, from one of them.
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
		if !r.copied(h) {
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
