package main

import (
	"pelago/dimse"
	"pelago/dimse/dict"
	"pelago/node/audit"
	"pelago/query"
	"pelago/query/engine"
	"pelago/query/federate"
)

// openQueries makes the engine of queries, which asks other nodes for what the
// catalogue does not know, and answers their questions from what is stored here.
func (n *node) openQueries() *engine.Engine {
	asked := holders{n.network}
	find := engine.New(engine.Options{
		Catalog: n.catalog, Instances: n.distance.reach.Instances(n.archive.Instances()),
		Issuer: n.config.Site, Identities: n.patients.At(n.config.Site), Node: n.id, Staleness: n.network.group.Staleness,
		Peers: federate.NewClient(federate.Options{
			Call: n.network.watch.client(n.network.short), Nodes: asked.nodes, Reach: asked.reachable,
		}),
	})
	n.network.peers.Handle("/query/", federate.NewHandler(federate.HandlerOptions{Local: find, Asked: n.trail.asked, Log: n.log}))
	return find
}

// nodes are the others that may hold instances.
func (h holders) nodes() []query.Node {
	var others []query.Node
	for _, m := range h.registry.Members() {
		if m.Node != h.self.ID() && !m.Witness {
			others = append(others, query.Node{ID: m.Node, Site: m.Site})
		}
	}
	return others
}

// reachable is what gossip believes of a node.
func (h holders) reachable(node string) query.Availability {
	if h.Alive(node) {
		return query.Online
	}
	return query.Unavailable
}

// asked records a question of another node.
func (t *trail) asked(a federate.Asked) {
	by := audit.Peer{User: "node " + a.By.Node, Address: a.By.Site}
	t.record(audit.Queried(by, t.self, dimse.StudyRoot.Class(dimse.Find), dict.ExplicitLittleEndian, a.Keys, outcomeOf(a.Err != nil)))
}
