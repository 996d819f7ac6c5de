package main

import (
	"context"

	"pelago/node/admin"
	"pelago/node/protect"
)

// openProtect opens what knows which instances survive, and lets other members ask
// what is known here. At a witness it knows of none.
func (n *node) openProtect() {
	w := n.network
	o := protect.Options{
		Doubt: n.doubted, Busy: n.busy,
		Self: n.id, Site: n.config.Site, Archive: n.archive, Catalog: n.catalog, Members: w.registry, Placement: n.placement,
		Shards: n.shards.client, Keys: n.keys, Peers: w.watch.client(w.short),
		Current: w.group.Current, Fenced: w.group.Fenced, Alive: holders{w}.Alive, Log: n.log,
	}
	if !w.own().Witness {
		o.Spread, o.Held, o.Copy = n.spread, n.shards.held, n.shards.source
	}
	n.protect = protect.New(o)
	n.protecting.Store(n.protect)
	w.peers.Handle("/protect/", w.readers(n.protect.Handler()))
}

// protection answers GET /api/studies/{uid}/protection.
func (n *node) protection(ctx context.Context, study string) (*admin.Protection, error) {
	found, err := n.protect.Study(ctx, study)
	if err != nil {
		return nil, err
	}
	p := &admin.Protection{State: string(found.State), SurvivesSites: found.Survives, Packs: []admin.Pack{}}
	for _, one := range found.Packs {
		pack := admin.Pack{ID: one.ID, K: one.K, M: one.M, Shards: []admin.Shard{}}
		for _, s := range one.Shards {
			pack.Shards = append(pack.Shards, admin.Shard{Index: s.Index, Site: s.Site, Node: s.Node, State: s.State})
		}
		p.Packs = append(p.Packs, pack)
	}
	return p, nil
}
