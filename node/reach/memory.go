package reach

import (
	"context"
	"slices"
	"time"

	"pelago/dimse/dicom"
	"pelago/query"
	"pelago/replication/catalog"
)

var _ query.Memory = (*Reader)(nil)

// recallTime bounds how long others are asked for what a silent node told them: a
// query has waited for that one already.
const recallTime = 5 * time.Second

// Recall implements [query.Memory]: from the manifests at hand, else from shards, else
// from those of nodes that answer.
func (r *Reader) Recall(ctx context.Context, study, series string, nodes []string) (all []query.Recorded, whole bool) {
	if r.gone(study, series, "") {
		return nil, true
	}
	holders, err := r.holders(study, series)
	if err != nil {
		r.log.Warn("what other nodes told was not looked up", "series", series, "error", err)
		return nil, false
	}
	holders = slices.DeleteFunc(holders, func(h catalog.Holder) bool {
		return h.Node == r.o.Node || !slices.Contains(nodes, h.Node)
	})
	var some *known
	for i := range holders {
		k := r.recall(seriesAt{study, series, holders[i].Node})
		if k != nil && k.fits(&holders[i]) {
			return r.recorded(k), true
		}
		if some == nil {
			some = k
		}
	}
	ctx, cancel := context.WithTimeout(ctx, recallTime)
	defer cancel()
	for i := range holders {
		k, err := r.fromShards(ctx, &holders[i], wanted{})
		if err == nil {
			return r.recorded(k), true
		}
		some = more(k, some)
	}
	for i := range holders {
		k, err := r.askAround(ctx, &holders[i], "")
		if err == nil {
			return r.recorded(k), true
		}
		if some == nil {
			some = k
		}
	}
	if some == nil {
		return nil, false
	}
	return r.recorded(some), false
}

// recorded is a manifest as queries read it.
func (r *Reader) recorded(k *known) []query.Recorded {
	all := make([]query.Recorded, 0, len(k.Instances))
	online := make([]bool, len(k.Packs))
	for i := range k.Packs {
		id := k.Packs[i].ID
		online[i] = r.o.Copies.Has(id) || r.o.Shards != nil && r.o.Shards.Has(id)
	}
	for i := range k.Instances {
		in := &k.Instances[i]
		if r.deleted(k.Study, k.Series, in.Record) {
			continue
		}
		v := version{k, i}
		one := query.Recorded{
			Instance: query.Instance{
				Study: k.Study, Series: k.Series, SOP: in.Record.Sop, Class: in.Record.Class, Syntax: in.Record.Syntax,
				Origin: k.Node, Number: in.Record.Number, Bytes: in.Record.Bytes,
			},
			Availability: query.Unavailable,
			Header:       func(ctx context.Context) (*dicom.Header, error) { return r.header(ctx, v, true) },
		}
		if in.Pack >= 0 && online[in.Pack] {
			one.Availability = query.Online
		}
		all = append(all, one)
	}
	return all
}
