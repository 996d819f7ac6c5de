package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/node/config"
	"pelago/node/member"
)

// joinTime bounds all of becoming a member.
const joinTime = 90 * time.Second

// becomeMember returns the node's membership: the one it has, or in a fresh data
// directory that of the network which it joins or founds. Nothing but the key
// folder is touched, so that a start that failed can be made again.
func (n *node) becomeMember(ctx context.Context, self *identity.Node, at authority.Place) (*member.Membership, error) {
	c, folder := n.config, vfs.Default.PathJoin(n.config.Data, "keys")
	m, err := member.Open(vfs.Default, folder, self)
	switch {
	case err == nil:
		return m, n.remain(m)
	case !fault.Is(err, fault.NotFound):
		return nil, err
	case c.Peer.Join == "":
		m, err = member.Found(vfs.Default, folder, self, c.Network, c.Site, at)
		if err == nil {
			n.log.Info("founded a network", "network", m.Name().Network, "site", c.Site, "node", self.ID())
		}
		return m, err
	case c.Peer.Token == "":
		return nil, fault.New(fault.Invalid, "peer.token: joining needs a token: 'pelago token' prints one at any node of the network")
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	m, err = member.Join(ctx, vfs.Default, folder, self, member.Joining{
		Address: c.Peer.Join, Token: c.Peer.Token, Network: c.Network, Site: c.Site, Place: at, Log: n.log,
	})
	if err != nil { // whatever is wrong, the command line is not
		return nil, &exitError{1, fmt.Errorf("join by way of %s: %w", c.Peer.Join, err)}
	}
	n.log.Info("joined the network", "network", m.Name().Network, "site", m.Name().Site, "node", self.ID(), "members", len(m.Hints))
	return m, nil
}

// remain checks what the configuration says against a membership that is there.
func (n *node) remain(m *member.Membership) error {
	c, name := n.config, m.Name()
	if c.Network != "" && c.Network != name.Network {
		return fault.New(fault.Conflict, "network: this node belongs to %s, not to %s; a node of another network is a fresh data directory", name.Network, c.Network)
	}
	if c.Peer.Join != "" && c.Peer.Token != "" {
		token, err := authority.ParseToken(c.Peer.Token)
		if err != nil {
			return &exitError{1, err}
		}
		if token.Pin() != m.Credentials.Root().Hash() {
			return fault.New(fault.Conflict,
				"peer.join: this data directory belongs to network %s, and the token is for another one: a node joins with a fresh data directory", name.Network)
		}
	}
	if c.Peer.Join != "" {
		n.log.Info("this node is a member already: joining is not needed", "network", name.Network)
	}
	if c.Site != name.Site && c.Site != config.Default().Site {
		n.log.Warn("the certificate names another site than the configuration, and counts", "site", name.Site, "configured", c.Site)
	}
	return nil
}
