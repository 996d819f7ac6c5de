package main

import (
	"time"

	"pelago/node/purge"
	"pelago/node/work"
	"pelago/replication/catalog"
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
		Archive: n.archive, Held: n.purgesHeld(), Copies: n.distance.copies, Ring: n.keys, Rows: n.archive.Rows("purged"),
		Terms: catalog.Terms{Grace: grace, Away: awayGraces * grace}, Alone: n.network.alone, Log: n.log,
	})
	return nil
}

// purgesHeld is what this node holds of other nodes' packs; nil: nothing.
func (n *node) purgesHeld() purge.Held { return nil }

// purgeTasks are its tasks.
func (n *node) purgeTasks() []work.Task {
	if n.purger == nil {
		return nil
	}
	return n.purger.Tasks()
}
