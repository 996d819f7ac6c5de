package main

import (
	"context"
	"slices"

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
		Identities: n.patients.At(n.config.Site), Node: n.id, Staleness: n.staleness, Unheard: n.unheard, Alone: holders{n.network}.alone,
		Memory: n.distance.reach,
		Peers:  n.distance.find,
	})
	n.network.peers.Handle("/query/", n.network.readers(federate.NewHandler(federate.HandlerOptions{
		Local: find, Asked: n.trail.asked, Log: n.log,
	})))
	n.network.peers.Handle("/journal/", n.network.readers(n.archive.Journal().Handler()))
	return find
}

// after waits until what a node has stored is known here.
func (n *node) after(ctx context.Context, node string) error {
	if _, known := n.network.registry.Member(node); !known && node != n.id {
		return fault.New(fault.Invalid, "%q is no node of this network", node)
	}
	return n.archive.Journal().After(ctx, node, n.network.watch.client(n.network.short))
}

// unheard names the sites with a node whose journal the network has not heard.
func (n *node) unheard() []string {
	var sites []string
	for _, other := range (holders{n.network}).nodes() {
		if n.network.group.Unheard(other.ID) {
			sites = append(sites, other.Site)
		}
	}
	slices.Sort(sites)
	return slices.Compact(sites)
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
