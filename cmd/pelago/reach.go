package main

import (
	"context"
	"net/http"
	"slices"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/node/audit"
	"pelago/node/cached"
	"pelago/node/far"
	"pelago/node/reach"
)

// distance is how this node reads what others store, and they what it does.
type distance struct {
	copies *cached.Store
	far    *far.Client
	reach  *reach.Reader
}

// cachedShare is the part of the disk that copies of other nodes' packs may have
// unless store.cached says otherwise.
const cachedShare = 10

// openDistance opens what reads other nodes, and lets them read this one.
func (n *node) openDistance() error {
	limit := int64(n.config.Store.Cached)
	if limit == 0 {
		usage, err := n.archive.Usage()
		if err != nil {
			return err
		}
		limit = usage.Size / cachedShare
	}
	var err error
	n.distance.copies, err = cached.Open(cached.Options{
		Bulk: n.archive.Bulk(), Copies: n.archive.Rows("copies"), Told: n.archive.Rows("told"), Opened: n.archive.Rows("opened"),
		Ring: n.keys, Limit: limit, Reserve: n.archive.Reserve, Pressed: n.archive.Pressed, Log: n.log,
	})
	if err != nil {
		return err
	}
	// Manifests are short, and bytes many; they share a transport, for the first
	// frame comes with its manifest.
	n.distance.far = far.NewClient(far.Options{
		Calls: n.network.watch.client(n.network.bulk), Self: n.self, Keep: n.distance.copies, Log: n.log,
	})
	n.distance.reach = reach.New(reach.Options{
		Node: n.id, Archive: n.archive, Copies: n.distance.copies,
		Client: reach.Far(n.distance.far), Nodes: holders{n.network}, Log: n.log,
	})
	n.network.peers.Handle("/archive/", n.network.readers(far.NewHandler(far.HandlerOptions{
		Source: reach.Source{Archive: n.archive, Copies: n.distance.copies}, Members: holders{n.network},
		Audit: n.trail.peer, Log: n.log,
	})))
	return nil
}

// close ends reading. The tasks must have ended.
func (d *distance) close() error {
	var err error
	if d.far != nil {
		err = d.far.Close()
	}
	if d.copies != nil {
		d.copies.Close()
	}
	return err
}

// holders are the network's nodes as those that hold instances.
type holders struct{ *network }

// Others implements [reach.Nodes].
func (h holders) Others() []string {
	var others []string
	for _, m := range h.registry.Members() {
		if m.Node != h.self.ID() && !m.Witness {
			others = append(others, m.Node)
		}
	}
	return others
}

// Alive implements [reach.Nodes]: what gossip believes, and while there is none
// that everybody may answer.
func (h holders) Alive(node string) bool {
	g := h.gossip.Load()
	if g == nil || node == h.self.ID() {
		return true
	}
	for _, m := range g.Members() {
		if m.Node == node {
			return true
		}
	}
	return false
}

// SealingKey implements [far.Members].
func (h holders) SealingKey(node string) ([identity.SealingBytes]byte, error) {
	m, ok := h.registry.Member(node)
	if !ok || m.Witness || h.registry.Revoked(node) {
		return [identity.SealingBytes]byte{}, fault.New(fault.Denied, "node %s may hold no keys", node)
	}
	if err := identity.CheckSealing(m.Public, m.Sealing, m.Proof); err != nil {
		return [identity.SealingBytes]byte{}, err
	}
	return m.Sealing, nil
}

// Of implements [ae.Peers].
func (h holders) Of(site string) []string {
	var alive, silent []string
	for _, m := range h.registry.Members() {
		switch {
		case m.Site != site || m.Witness || m.Node == h.self.ID():
		case h.Alive(m.Node):
			alive = append(alive, m.Node)
		default:
			silent = append(silent, m.Node)
		}
	}
	return slices.Concat(alive, silent)
}

// Send implements [ae.Peers].
func (h holders) Send(request *http.Request) (*http.Response, error) {
	return h.watch.client(h.bulk).Send(request)
}

// callerOf names the node that a request of the peer service comes from.
func callerOf(r *http.Request) (string, error) {
	if r.TLS == nil {
		return "", fault.New(fault.Denied, "not over the port between nodes")
	}
	name, err := port.PeerOf(*r.TLS)
	return name.Node, err
}

// peer records that another node opened something here: any member may, and has
// the keys of what it opened from then on (DESIGN §7, Keys).
func (t *trail) peer(_ context.Context, a far.Access) {
	failed := a.Err != nil && !fault.Is(a.Err, fault.NotFound)
	var what audit.Subject
	if a.Study != "" {
		what = audit.Subject{Patient: t.patientOf(a.Study), Studies: []audit.Study{{UID: a.Study}}}
	}
	by := audit.Peer{User: "node " + a.Peer.Node, Address: a.Peer.Site}
	t.record(audit.Transferred(audit.Read, t.self, by, audit.Peer{}, what, outcomeOf(failed)))
}
