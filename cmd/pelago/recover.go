package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/node/archive"
	"pelago/node/config"
	"pelago/node/datadir"
	"pelago/node/member"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/consensus"
	"pelago/replication/group"
)

// recoverCommand makes a survivor the only voter of a new generation of its network.
type recoverCommand struct {
	Data   string `help:"Data directory of the survivor, on which no node runs." default:"pelago-data" env:"PELAGO_DATA" type:"path"`
	DryRun bool   `name:"dry-run" help:"Only tell how much of the network's log this survivor has."`
	Yes    bool   `help:"Do it."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// survivor is a node that does not run, as an operator compares it with others.
type survivor struct {
	Network    string   `json:"network"`
	Site       string   `json:"site"`
	Node       string   `json:"node"`
	Generation uint64   `json:"generation"`
	Election   uint64   `json:"election"` // in which the last entry was made
	Last       uint64   `json:"last_index"`
	Applied    uint64   `json:"applied_index"`
	Voters     []string `json:"voters"` // ids, as this node knows them
	Recovered  bool     `json:"recovered"`

	sites []string // of the voters
}

const recoverWarning = `
Recovering makes this node the only voter of a new generation of the network. It is
for a network that has lost the majority of its voters for good:

  - what other nodes have committed and this one lacks is given up: deletions, links,
    members, AEs. Images are not touched, and what nodes that come back have stored
    is announced again;
  - every other node has no say any more until it has copied this node's catalogue,
    which it does by itself once it reaches this node. Remove those that are gone;
  - never do it at two survivors. Of several take the one with the highest generation,
    of these the highest election, of these the highest last entry.
`

func (c *recoverCommand) Run(e *env) (err error) {
	s, err := openStopped(c.Data, slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.mayRecover(); err != nil {
		return err
	}
	if !c.DryRun && c.Yes {
		if err := s.group.Recover(); err != nil {
			return err
		}
	}
	now, err := s.survey()
	if err != nil {
		return err
	}
	now.Recovered = !c.DryRun && c.Yes
	if c.JSON {
		err = printJSON(e.stdout, now)
	} else {
		err = table(e.stdout, []string{"SITE", now.Site}, [][]string{
			{"network", now.Network}, {"node", now.Node}, {"generation", fmt.Sprint(now.Generation)}, {"election", fmt.Sprint(now.Election)},
			{"last entry", fmt.Sprint(now.Last)}, {"entries applied", fmt.Sprint(now.Applied)}, {"voters", strings.Join(now.sites, ", ")},
		})
	}
	switch {
	case err != nil || c.DryRun:
		return err
	case c.Yes:
		_, err = fmt.Fprintf(e.stderr, "pelago: this node is the only voter of generation %d; start it, and then the others\n", now.Generation)
		return err
	}
	fmt.Fprint(e.stderr, recoverWarning)
	return fault.New(fault.Invalid, "nothing was changed: with --yes it is")
}

// stopped is a node that does not run, as far as its part in the network goes.
type stopped struct {
	dir        *datadir.Dir
	keys       interface{ Close() error }
	membership *member.Membership
	catalog    *catalog.Catalog
	registry   *member.Registry
	group      *group.Group
}

// openStopped opens it. fault.Unavailable while a node runs on the directory,
// fault.NotFound where there is none or it belongs to no network.
func openStopped(data string, log *slog.Logger) (_ *stopped, err error) {
	s := &stopped{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = datadir.OpenExisting(data); err != nil {
		return nil, err
	}
	c := config.Default()
	c.Data = data
	self, ring, err := openKeys(c)
	if err != nil {
		return nil, err
	}
	s.keys = ring
	if s.membership, err = member.Open(vfs.Default, vfs.Default.PathJoin(data, "keys"), self); err != nil {
		return nil, err
	}
	if s.catalog, err = archive.OpenCatalog(archiveOptions(c, self, ring, log)); err != nil {
		return nil, err
	}
	s.registry, err = member.NewRegistry(member.RegistryOptions{Self: self.ID(), Catalog: s.catalog, Hints: s.membership.Hints, Log: log})
	if err != nil {
		return nil, err
	}
	address := self.ID()
	if m, ok := s.registry.Member(self.ID()); ok && m.Address != "" {
		address = m.Address
	}
	// A port that nobody listens at, and that dials nobody: nothing runs.
	p := port.New(port.Config{Credentials: s.membership.Credentials, Revoked: s.registry.Revoked, Log: log})
	s.group, err = group.Open(group.Options{
		ID: self.ID(), Address: address, FS: vfs.Default, Dir: data, Catalogue: s.catalog, Signer: self,
		Peers: call.NewClient(p.Transport(s.registry.Locate)), Port: p, Locate: s.registry.Locate, Log: log,
	})
	return s, err
}

func (s *stopped) close() error {
	var errs []error
	if s.group != nil {
		errs = append(errs, s.group.Close())
	}
	if s.catalog != nil {
		errs = append(errs, s.catalog.Close())
	}
	if s.keys != nil {
		errs = append(errs, s.keys.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}

// mayRecover refuses who has no network to recover.
func (s *stopped) mayRecover() error {
	self := s.membership.Self.ID()
	switch {
	case s.registry.Revoked(self):
		return fault.New(fault.Conflict, "the network has removed this node")
	case !s.registry.Known() && !s.membership.Founder():
		return fault.New(fault.Conflict, "the catalogue has never come to this node: recover at another one")
	}
	return nil
}

func (s *stopped) survey() (survivor, error) {
	at, err := s.group.Survey()
	if err != nil {
		return survivor{}, err
	}
	name := s.membership.Name()
	out := survivor{
		Network: name.Network, Site: name.Site, Node: name.Node, Generation: at.Generation,
		Election: consensus.ElectionOf(at.LastTerm), Last: at.Last, Applied: at.Applied, Voters: []string{},
	}
	for _, m := range at.Members {
		if m.Suffrage != replication.Voter {
			continue
		}
		out.Voters = append(out.Voters, m.ID)
		site := m.ID
		if known, ok := s.registry.Member(m.ID); ok {
			site = known.Site
		}
		out.sites = append(out.sites, site)
	}
	return out, nil
}
