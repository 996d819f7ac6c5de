package main

import (
	"context"
	"time"

	"pelago/node/archive"
	"pelago/node/purge"
	"pelago/node/spread"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard/pack"
)

// awayGraces is after how many graces a network of one would count a member as away for
// good: three, as the 90 days of the default are.
const awayGraces = 3

// graces are what the archive asks before anything of it goes.
func (n *node) graces() purge.Graces { return purge.Graces{Catalog: n.catalog} }

// holds are what operators keep.
func (n *node) holds() purge.Holds {
	return purge.Holds{Catalog: n.catalog, Decide: n.network.group}
}

// openPurge opens what has deleted objects go by the network's word. A witness has nothing
// that could, and decides nothing.
func (n *node) openPurge() error {
	if n.network.own().Witness {
		return nil
	}
	grace := time.Duration(n.config.Store.Grace)
	n.purger = purge.New(purge.Options{
		Node: n.id, Catalog: n.catalog, Decide: n.network.group, Leader: n.network.group.Leader, Generation: agreed{n.catalog}.Generation,
		Archive: spreadPacks{n.archive, n.spread}, Held: n.purgesHeld(), Copies: n.distance.copies, Ring: n.keys, Rows: n.archive.Rows("purged"),
		Terms: catalog.Terms{Grace: grace, Away: awayGraces * grace}, Alone: n.network.alone, Reads: n.network.understands, Log: n.log,
	})
	return nil
}

// spreadPacks are this node's packs, and what is told of them.
type spreadPacks struct {
	*archive.Archive
	spread *spread.Spread
}

// DropPurged implements [purge.Archive].
func (s spreadPacks) DropPurged(ctx context.Context, ids ...pack.ID) error {
	if err := s.Archive.DropPurged(ctx, ids...); err != nil {
		return err
	}
	return s.spread.Purged(ids...)
}

// purgesHeld is what this node holds of other nodes' packs; nil: nothing.
func (n *node) purgesHeld() purge.Held {
	if n.shards.held == nil {
		return nil
	}
	return n.shards.held
}

// purgeTasks are its tasks.
func (n *node) purgeTasks() []work.Task {
	if n.purger == nil {
		return nil
	}
	return n.purger.Tasks()
}
