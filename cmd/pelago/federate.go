package main

import (
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/audit"
	"pelago/node/reconcile"
	"pelago/query"
	"pelago/query/engine"
	"pelago/query/federate"
)

// makeEngine makes the query engine: it asks other nodes for what only they know,
// and they ask this one.
func (n *node) makeEngine() *engine.Engine {
	find := engine.New(engine.Options{
		Catalog: n.catalog, Instances: n.distance.reach.Instances(n.archive.Instances()), Issuer: n.config.Site,
		Identities: n.patients.At(n.config.Site), Node: n.id, Staleness: n.staleness, Alone: holders{n.network}.alone,
		Memory: n.distance.reach,
		Peers:  n.distance.find,
	})
	n.network.peers.Handle("/query/", n.network.readers(federate.NewHandler(federate.HandlerOptions{
		Local: find, Asked: n.trail.asked, Log: n.log,
	})))
	return find
}

// staleness is how old the catalogue may be; one that nobody shares is never old.
func (n *node) staleness() (time.Duration, bool) {
	if len(holders{n.network}.Others()) == 0 {
		return 0, true
	}
	return n.network.group.Staleness()
}

// makeReconciler makes what compares this node's series with those of others.
func (n *node) makeReconciler() *reconcile.Reconciler {
	return reconcile.New(reconcile.Options{
		Catalog: n.catalog, Node: n.id, Own: reconcile.OwnOf(n.archive), Other: reconcile.OtherOf(n.distance.far),
		Decide: n.network.group, Rows: n.archive.Rows("reconciled"), Log: n.log,
	})
}

// nodes are the other nodes that hold instances.
func (h holders) nodes() []query.Node {
	var all []query.Node
	for _, m := range h.registry.Members() {
		if m.Node != h.self.ID() && !m.Witness {
			all = append(all, query.Node{ID: m.Node, Site: m.Site})
		}
	}
	return all
}

// reach tells how a node is reached, as far as gossip knows.
func (h holders) reach(node string) query.Availability {
	if h.Alive(node) {
		return query.Online
	}
	return query.Unavailable
}

// asked records that another node searched what is stored here.
func (t *trail) asked(a federate.Asked) {
	if fault.Is(a.Err, fault.Denied) {
		return // who is no member never gets so far
	}
	by := audit.Peer{User: "node " + a.By.Node, Address: a.By.Site}
	t.record(audit.Queried(by, t.self, "", dict.ExplicitLittleEndian, a.Keys, outcomeOf(a.Err != nil)))
}
