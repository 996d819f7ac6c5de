package main

import (
	"context"
	"log/slog"
	"net/http"
	"slices"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/node/archive"
	"pelago/node/audit"
	"pelago/node/cached"
	"pelago/node/config"
	"pelago/node/far"
	"pelago/node/member"
	"pelago/node/reach"
	"pelago/query/federate"
	"pelago/shard/keys"
)

// distance is how this node reads what others store, and they what it does.
type distance struct {
	copies *cached.Store
	far    *far.Client
	find   *federate.Client
	reach  *reach.Reader
}

// cachedShare is the part of the disk that copies of other nodes' packs may have
// unless store.cached says otherwise.
const cachedShare = 10

// openDistance opens what reads other nodes, and lets them read this one.
func (n *node) openDistance() error {
	var err error
	if n.distance.copies, err = openCopies(n.archive, n.keys, n.config, n.roomKept, n.log); err != nil {
		return err
	}
	// Manifests are short, and bytes many; they share a transport, for the first
	// frame comes with its manifest.
	n.distance.far = far.NewClient(far.Options{
		Calls: n.network.reads(), Self: n.self, Keep: n.distance.copies, Log: n.log,
		Packs: n.recalled, Alive: holders{n.network}.Alive,
	})
	n.distance.find = federate.NewClient(federate.Options{
		// Questions are short; answers may be long, as what moves bytes.
		Call: n.network.reads(), Nodes: holders{n.network}.nodes, Reach: holders{n.network}.reach,
	})
	n.distance.reach = reach.New(reach.Options{
		Node: n.id, Archive: n.archive, Copies: n.distance.copies,
		Client: reach.Far(n.distance.far), Nodes: holders{n.network}, Sends: n.network.sends, Log: n.log,
		Locate: n.distance.find.Locate, Shards: n.recalled,
	})
	n.network.peers.Handle("/archive/", n.network.readers(far.NewHandler(far.HandlerOptions{
		Source: reach.Source{Archive: n.archive, Copies: n.distance.copies}, Members: holders{n.network},
		Told:  n.distance.reach.Told,
		Audit: n.trail.peer, Log: n.log,
	})))
	return nil
}

// openCopies opens what an archive keeps of others, beside the room that is kept for
// shards.
func openCopies(a *archive.Archive, ring *keys.Ring, c config.Config, room func() int64, log *slog.Logger) (*cached.Store, error) {
	limit := int64(c.Store.Cached)
	if limit == 0 {
		usage, err := a.Usage()
		if err != nil {
			return nil, err
		}
		limit = usage.Size / cachedShare
	}
	return cached.Open(cached.Options{
		Bulk: a.Bulk(), Copies: a.Rows("copies"), Told: a.Rows("told"), Opened: a.Rows("opened"),
		Ring: ring, Limit: limit, Log: log,
		Reserve: func(bytes int64) error { return a.ReserveBeside(bytes, room()) }, ReserveTold: a.Reserve,
		Pressed: func() bool { return a.Pressed(room()) },
	})
}

// close ends reading. The tasks must have ended.
func (d *distance) close() error {
	var err error
	if d.far != nil {
		err = d.far.Close()
	}
	if d.reach != nil {
		d.reach.Close()
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
	return g.Alive(node)
}

// alone reports whether nobody but this node holds, or ever held, anything.
func (h holders) alone() bool {
	return !h.registry.Any(func(m member.Member) bool { return m.Node != h.self.ID() && !m.Witness })
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
	if fault.Is(a.Err, fault.NotFound) {
		return // an instance that is sought is asked for everywhere: nothing was read here
	}
	var what audit.Subject
	if a.Study != "" {
		what = audit.Subject{Patient: t.patientOf(a.Study), Studies: []audit.Study{{UID: a.Study}}}
	}
	by := audit.Peer{User: "node " + a.Peer.Node, Address: a.Peer.Site}
	t.record(audit.Transferred(audit.Read, t.self, by, audit.Peer{}, what, outcomeOf(a.Err != nil)))
}
