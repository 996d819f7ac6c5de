package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/gossip"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/cluster/relay"
	"pelago/node/config"
	"pelago/node/keyring"
	"pelago/node/member"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/group"
	"pelago/shard/keys"
)

// network is this node's part in the network: its port, its membership, and the
// order that all nodes agree on. Fields are filled in their order.
type network struct {
	log  *slog.Logger
	self *identity.Node

	listener   net.Listener // of the port between nodes; nil: there is none
	place      authority.Place
	membership *member.Membership

	catalog  *catalog.Catalog
	registry *member.Registry
	port     *port.Port
	short    *http.Transport // of calls that are answered at once
	bulk     *http.Transport // of calls that move bytes, on connections of their own
	ways     *relay.Ways     // of those that clients wait for: bulk's, and by relays where a link is cut
	relay    *relay.Server   // passes on what other nodes read
	group    *group.Group
	fresh    bool // the log had no past when it was opened
	office   *member.Office
	keeper   *keyring.Keeper
	studies  *keyring.Studies              // nil at a witness, which keeps no keys
	peers    *http.ServeMux                // what other nodes may call
	offered  map[port.Service]net.Listener // until the task that serves them takes them

	watch watch

	offering sync.Mutex // guards offered

	gossip atomic.Pointer[gossip.Gossip] // nil while it does not run
	meta   func() gossip.Meta            // what this node says of itself
	// replaced is told that the catalogue is a copy of another node's now.
	replaced func()
	// kept is how long the journal has kept what the network lacks.
	kept func() time.Duration
	// led is told that somebody leads who did not before.
	led func()
}

// openPort opens the port between nodes. Nobody is answered yet.
func openPort(c config.Peer) (net.Listener, authority.Place, error) {
	place := authority.Place{Witness: c.Witness}
	if c.Listen == "" {
		return nil, place, nil
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, place, fault.New(fault.Unavailable, "peer.listen: the port between nodes cannot be opened; another one is set by --peer: %w", err)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return l, place, fault.New(fault.Invalid, "peer.listen: %w", err)
	}
	_, number, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return l, place, fault.New(fault.Other, "peer.listen: %w", err)
	}
	if c.Advertise != "" {
		host, number = c.AdvertisedAs(number)
	}
	place.Address = net.JoinHostPort(host, number)
	return l, place, nil
}

// open opens what lies between the port and the catalogue; nothing runs yet.
func (w *network) open(c config.Config, ring *keys.Ring) (err error) {
	id := w.self.ID()
	w.registry, err = member.NewRegistry(member.RegistryOptions{
		Self: id, Catalog: w.catalog, Hints: w.membership.Hints, Heard: w.heard,
		Revoked: func(node string) { w.port.Drop(node) }, Log: w.log,
	})
	if err != nil {
		return err
	}
	if w.place.Witness && !w.own().Witness {
		w.log.Warn("this node did not join as a witness, and is none: a witness is a fresh data directory")
	}
	w.port = port.New(port.Config{Credentials: w.membership.Credentials, Revoked: w.registry.Revoked, Log: w.log})
	w.short = w.port.Transport(w.registry.Locate)
	w.openRelay()
	calls := w.watch.client(w.short)
	if err := w.offer(port.Peer, port.Join, port.Gossip, port.Relay); err != nil {
		return err
	}
	address := w.place.Address
	if address == "" { // nobody dials it
		address = id
	}
	w.group, err = group.Open(group.Options{
		ID: id, Address: address, FS: vfs.Default, Dir: c.Data, Catalogue: w.catalog, Signer: w.self,
		Peers: calls, Port: w.port, Locate: w.registry.Locate, Replaced: w.replaced, Led: w.led, Kept: w.kept, Log: w.log,
		Newcomer: newcomer(c.Data, w.catalog),
	})
	if err != nil {
		return err
	}
	if err := w.found(newcomer(c.Data, w.catalog)); err != nil {
		return err
	}
	w.office = member.NewOffice(member.OfficeOptions{
		Membership: w.membership, Registry: w.registry, Catalog: w.catalog, Decider: w.group, Current: w.group.Current,
		Voters: w.voters, Alive: w.alive, Peers: calls, Place: w.place, Log: w.log,
		First: func(s *member.Step) error { return keyring.First(w.self, s) },
	})
	w.keeper, err = keyring.New(keyring.Options{
		Self: w.self, Catalog: w.catalog, Members: w.registry, Decisions: w.office.Decisions(), Leader: w.group.Leader, Log: w.log,
	})
	if err != nil {
		return err
	}
	w.peers = http.NewServeMux()
	raft := w.group.Handler()
	w.peers.Handle("/raft/", raft)
	for _, path := range []string{"/raft/entries", "/raft/checkpoint", "/raft/checkpoint/"} {
		w.peers.Handle(path, w.members(raft))
	}
	w.peers.Handle("/node/", w.office.Handler())
	if err := w.openStudies(c, ring); err != nil {
		return err
	}
	w.peers.Handle("/keys/", w.members(w.keeper.Handler(w.keptStudyKeys)))
	return nil
}

// newcomer reports whether a node has never taken part in a network: it takes part
// before it keeps anything in store/, and has a catalogue afterwards.
func newcomer(data string, c *catalog.Catalog) bool {
	_, err := os.Stat(filepath.Join(data, "store"))
	return errors.Is(err, fs.ErrNotExist) && c.Position().Index == 0
}

// found begins a log where there is none: the founder's first, and that of a node
// alone whose data directory was restored from a backup, which has the catalogue
// and not the log, or an older one. Nobody else has a say in it, and who might have had one copies
// its catalogue. Any other node whose log is lost asks the network to take it back.
func (w *network) found(newcomer bool) error {
	w.fresh = w.group.Fresh()
	switch {
	case !w.fresh && !w.group.Older():
		return nil
	case w.alone():
		return w.group.Recover()
	case !w.fresh:
		return nil
	case !w.membership.Founder():
		return nil
	case newcomer:
		return w.group.Found()
	case w.catalog.Position().Index == 0:
		return fault.New(fault.Corrupt, "catalog/ and raft/ are both lost: restore a backup; or, if no other node is left, 'pelago recover' begins the network anew from what this one stores")
	}
	return nil
}

// alone reports whether the network is this node only.
func (w *network) alone() bool {
	all := w.registry.Members()
	return w.registry.Known() && len(all) == 1 && all[0].Node == w.self.ID()
}

// offer makes services known to the port before anybody can ask for them: a node
// that answers by half is taken for another kind of node.
func (w *network) offer(services ...port.Service) error {
	w.offered = map[port.Service]net.Listener{}
	for _, s := range services {
		l, err := w.port.Listen(s)
		if err != nil {
			return err
		}
		w.offered[s] = l
	}
	return nil
}

// listen returns a service's listener: the one that was offered at first, and a
// new one when its task runs again. Each service has one task.
func (w *network) listen(s port.Service) (net.Listener, error) {
	w.offering.Lock()
	defer w.offering.Unlock()
	if l := w.offered[s]; l != nil {
		delete(w.offered, s)
		return l, nil
	}
	return w.port.Listen(s)
}

func (w *network) voters() []string {
	var voters []string
	for _, m := range w.group.Members() {
		if m.Suffrage == replication.Voter {
			voters = append(voters, m.ID)
		}
	}
	return voters
}

// alive are the other nodes that gossip believes to be alive.
func (w *network) alive() []gossip.Member {
	if g := w.gossip.Load(); g != nil {
		return g.Members()
	}
	return nil
}

// understands is the newest version of entries that another node's program reads, as gossip has it;
// false of a node that is not alive.
func (w *network) understands(node string) (version uint32, ok bool) {
	for _, m := range w.alive() {
		if m.Node == node {
			return m.Meta.Reads, true
		}
	}
	return 0, false
}

// heard is where a node says it is.
func (w *network) heard(node string) (string, bool) {
	for _, m := range w.alive() {
		if m.Node == node {
			return m.Address.String(), true
		}
	}
	return "", false
}

// close closes what was opened, after the tasks have ended.
func (w *network) close() error {
	var errs []error
	if w.group != nil {
		errs = append(errs, w.group.Close())
	}
	if w.short != nil {
		w.short.CloseIdleConnections()
	}
	if w.ways != nil {
		w.ways.CloseIdleConnections()
	}
	if w.listener != nil {
		if err := w.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// addressTime bounds the resolution of a name.
const addressTime = 5 * time.Second

// resolve turns host:port into what gossip carries.
func resolve(ctx context.Context, address string) (netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(address); err == nil {
		return at, nil
	}
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, fault.New(fault.Invalid, "%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, addressTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		return netip.AddrPort{}, fault.New(fault.Unavailable, "resolve %s: %w", host, err)
	}
	return netip.ParseAddrPort(net.JoinHostPort(ips[0].Unmap().String(), number))
}
