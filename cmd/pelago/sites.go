package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/gossip"
	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/replication/catalog"
)

// tokenCommand opens a join token.
type tokenCommand struct {
	target
	TTL time.Duration `name:"ttl" help:"How long it is good for, at most 168h." default:"1h"`
}

func (t *tokenCommand) Run(e *env) error {
	c, err := t.node(e)
	if err != nil {
		return err
	}
	if t.TTL < time.Second {
		return fault.New(fault.Invalid, "--ttl: at least 1s")
	}
	var token admin.Token
	if err := c.call(e.ctx, http.MethodPost, "/api/tokens", map[string]int64{"ttl_seconds": int64(t.TTL.Seconds())}, &token); err != nil {
		return err
	}
	if t.JSON {
		return printJSON(e.stdout, token)
	}
	fmt.Fprintf(e.stderr, "one node may join with it until %s: PELAGO_PEER_TOKEN=… pelago serve --site NAME --join %s\n",
		token.Expires.Local().Format(time.DateTime), token.Address)
	_, err = fmt.Fprintln(e.stdout, token.Token)
	return err
}

// sitesCommand lists the network.
type sitesCommand struct{ target }

func (s *sitesCommand) Run(e *env) error {
	c, err := s.node(e)
	if err != nil {
		return err
	}
	all := []admin.Site{}
	if err := c.get(e.ctx, "/api/sites", &all); err != nil {
		return err
	}
	if s.JSON {
		return printJSON(e.stdout, all)
	}
	return printSites(e.stdout, all)
}

// drainCommand makes a node take nothing new in.
type drainCommand struct {
	target
	Node string `arg:"" help:"The node's id, or the beginning of it."`
	Undo bool   `help:"Let it take things in again."`
}

func (d *drainCommand) Run(e *env) error {
	c, node, err := d.member(e, d.Node)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodPost, "/api/nodes/"+url.PathEscape(node)+"/drain", map[string]bool{"drained": !d.Undo}, nil)
}

// removeCommand revokes a node.
type removeCommand struct {
	target
	Node string `arg:"" help:"The node's id, or the beginning of it."`
}

func (r *removeCommand) Run(e *env) error {
	c, node, err := r.member(e, r.Node)
	if err != nil {
		return err
	}
	return c.call(e.ctx, http.MethodDelete, "/api/nodes/"+url.PathEscape(node), nil, nil)
}

// leastPrefix is how much of an id must be given: nobody removes a node by a slip.
const leastPrefix = 4

// member finds the node that an operator means.
func (t *target) member(e *env, prefix string) (*client, string, error) {
	c, err := t.node(e)
	if err != nil {
		return nil, "", err
	}
	var all []admin.Site
	if err := c.get(e.ctx, "/api/sites", &all); err != nil {
		return nil, "", err
	}
	var found []string
	for _, site := range all {
		for _, n := range site.Nodes {
			if n.ID == prefix || len(prefix) >= leastPrefix && strings.HasPrefix(n.ID, prefix) {
				found = append(found, n.ID)
			}
		}
	}
	switch len(found) {
	case 1:
		return c, found[0], nil
	case 0:
		return nil, "", fault.New(fault.NotFound, "no node begins with %q ('pelago sites' lists them; %d characters are needed)", prefix, leastPrefix)
	}
	return nil, "", fault.New(fault.Conflict, "%d nodes begin with %q", len(found), prefix)
}

// operated is the network as the operators' API has it.
type operated struct{ n *node }

var _ admin.Network = operated{}

func (o operated) Token(ctx context.Context, lifetime time.Duration) (string, time.Time, error) {
	if o.n.network.listener == nil {
		return "", time.Time{}, fault.New(fault.Conflict, "nobody can join here: peer.listen is empty")
	}
	token, expires, err := o.n.network.office.Token(ctx, lifetime)
	return token.Text(), expires, err
}

func (o operated) Drain(ctx context.Context, node string, drained bool) error {
	return o.n.network.office.Drain(ctx, node, drained)
}

func (o operated) Remove(ctx context.Context, node, by string) error {
	return o.n.network.office.Remove(ctx, node, by)
}

func (o operated) Sites() ([]admin.Site, error) {
	usage, err := o.n.archive.Usage()
	if err != nil {
		return nil, err
	}
	from := o.n.vantage()
	return admin.SitesOf(o.n.members(usage, from), from), nil
}

// members lists the network's nodes, with what this one's own disk holds.
func (n *node) members(usage archive.Usage, from admin.Vantage) []admin.Member {
	var all []admin.Member
	lost, pledge := n.placement.Holding()
	for _, m := range n.network.office.Nodes() {
		one := admin.Member{
			Node: m.Node, Site: m.Site, Address: m.Address, Self: m.Self, Alive: m.Alive, Voter: m.Votes, Witness: m.Witness,
			Signs: m.Signs, Drained: m.Drained, Removed: m.Removed, Barred: m.Barred, Lost: lost[m.Node], Pledge: pledge[m.Node],
			DICOM: m.Heard.DICOM, Web: m.Heard.Web, AppliedIndex: m.Heard.AppliedIndex,
			Capacity: int64(m.Heard.Capacity), Used: int64(m.Heard.Capacity - min(m.Heard.Free, m.Heard.Capacity)), RoundTrip: m.RTT,
		}
		one.Owed, one.Room, one.Held, one.Lacking = n.owed(m.Node), n.roomOf(m.Node), m.Heard.Held, m.Heard.Lacking
		if m.Self {
			one.Held, one.Lacking = n.heldHere()
			one.Used = usage.Staging + usage.Bulk
			one.Capacity, one.AppliedIndex = one.Used+usage.Free, from.AppliedIndex
			one.DICOM, one.Web = n.dicomAddr, n.baseURL
		}
		all = append(all, one)
	}
	return all
}

// vantage is how far this node's catalogue is.
func (n *node) vantage() admin.Vantage {
	s, now := n.network.group.Status(), time.Now()
	staleness, known := n.staleness()
	return admin.Vantage{
		Leader: s.Leader, AppliedIndex: s.Applied, CommitIndex: s.Commit,
		Staleness: staleness, StalenessKnown: known,
		Behind: func(index uint64) (time.Duration, bool) { return n.network.watch.history.Behind(now, index) },
	}
}

// meta is what this node says of itself to others.
func (n *node) meta() gossip.Meta {
	usage, err := n.archive.Usage()
	if err != nil {
		n.log.Debug("the disk's usage is not known", "error", err)
	}
	at := n.reached.Load()
	if at == nil { // no port for clients is open yet
		at = &reached{}
	}
	held, lacking := n.heldHere()
	return gossip.Meta{
		Held: held, Lacking: lacking, Site: n.config.Site, DICOM: at.dicom, Web: at.web,
		Free: uint64(max(usage.Free, 0)), Capacity: uint64(max(usage.Staging+usage.Bulk+usage.Free, 0)), AppliedIndex: n.catalog.Applied(),
		Reads: catalog.EntryVersion,
	}
}
