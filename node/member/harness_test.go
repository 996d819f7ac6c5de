package member

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/gossip"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/replication/catalog/catalogtest"
)

// memory is the registry of a network whose nodes all agree at once.
type memory = catalogtest.Registry

// replica is the memory as one node has it: all of it, or what was there when it
// was cut off.
type replica struct {
	*memory
	frozen atomic.Pointer[memory]
}

func (r *replica) freeze() { r.frozen.Store(r.memory.Clone()) }

func (r *replica) Registry(kind string) (map[string][]byte, error) {
	if frozen := r.frozen.Load(); frozen != nil {
		return frozen.Registry(kind)
	}
	return r.memory.Registry(kind)
}

func newSelf(t testing.TB, fs vfs.FS) *identity.Node {
	t.Helper()
	self, err := identity.Open(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// member is a node of a network in memory, with its port.
type member struct {
	*Office
	fs       *vfs.MemFS
	registry *Registry
	replica  *replica
	heard    atomic.Pointer[gossip.Member] // the one node that is heard of
	lost     atomic.Bool                   // its decisions reach nobody
	port     *port.Port
	host     porttest.Host
	place    authority.Place
	log      *porttest.Lines
}

func (m *member) id() string { return m.o.Membership.Self.ID() }

// world is a network in memory.
type world struct {
	t       *testing.T
	net     *porttest.Network
	memory  *memory
	members []*member
	voters  atomic.Pointer[[]string]
	long    bool // the test lasts months: nobody asks twice a minute
	still   bool // nobody brings records in line by itself
}

func newWorld(t *testing.T) *world {
	return &world{t: t, net: porttest.New(), memory: catalogtest.NewRegistry()}
}

// vote gives votes to nodes, and takes those of others.
func (w *world) vote(nodes ...string) { w.voters.Store(&nodes) }

func (w *world) votes() []string {
	if nodes := w.voters.Load(); nodes != nil {
		return *nodes
	}
	return nil
}

// alive is the node that is heard of.
func (m *member) alive() []gossip.Member {
	if heard := m.heard.Load(); heard != nil {
		return []gossip.Member{*heard}
	}
	return nil
}

func (m *member) current(ctx context.Context) error {
	if m.lost.Load() {
		return fault.New(fault.Unavailable, "no leader")
	}
	return m.replica.Current(ctx)
}

// moved is the office of the node when it has come back at another address.
func (m *member) moved(address string) *Office {
	o := m.o
	o.Place.Address = address
	return NewOffice(o)
}

// found makes the first node, and waits until it is a member.
func (w *world) found(ip, site string) *member {
	w.t.Helper()
	m := w.host(ip)
	membership, err := Found(m.fs, "keys", newSelf(w.t, m.fs), "north", site, m.place)
	if err != nil {
		w.t.Fatal(err)
	}
	w.start(m, membership)
	if err := m.Begin(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) host(ip string) *member {
	log := &porttest.Lines{}
	return &member{fs: vfs.NewMem(), host: w.net.Host(ip), place: authority.Place{Address: net.JoinHostPort(ip, "7700")}, log: log}
}

// joining is how a node joins by way of another.
func (m *member) joining(by *member, token authority.Token, site string) Joining {
	return Joining{
		Address: by.place.Address, Token: token.Text(), Site: site, Place: m.place,
		Dial: m.host.Dial, Log: slog.New(slog.NewTextHandler(m.log, nil)),
	}
}

// join makes a further node.
func (w *world) join(ip, site string, by *member) *member {
	w.t.Helper()
	token, _, err := by.Token(w.t.Context(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.host(ip)
	membership, err := Join(w.t.Context(), m.fs, "keys", newSelf(w.t, m.fs), m.joining(by, token, site))
	if err != nil {
		w.t.Fatal(err)
	}
	w.start(m, membership)
	return m
}

// start runs a node's port, registry and office until the test ends.
func (w *world) start(m *member, membership *Membership) {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(m.log, nil))
	var err error
	m.replica = &replica{memory: w.memory}
	m.registry, err = NewRegistry(RegistryOptions{
		Self: membership.Self.ID(), Catalog: m.replica, Hints: membership.Hints, Log: log,
		Heard: func(node string) (string, bool) {
			heard := m.heard.Load()
			if heard == nil || heard.Node != node {
				return "", false
			}
			return heard.Address.String(), true
		},
		Revoked: func(node string) { m.port.Drop(node) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	m.port = port.New(port.Config{Credentials: membership.Credentials, Revoked: m.registry.Revoked, Dial: m.host.Dial, Log: log})
	transport := m.port.Transport(m.registry.Locate)
	m.Office = NewOffice(OfficeOptions{
		Membership: membership, Registry: m.registry, Catalog: m.replica, Decider: w.memory, Current: m.current,
		Voters: w.votes, Alive: m.alive,
		Peers: call.NewClient(transport), Dial: m.host.Dial, Place: m.place, Log: log,
	})
	w.members = append(w.members, m)
	listener, err := m.host.Listen(porttest.Port)
	if err != nil {
		w.t.Fatal(err)
	}
	peer, err := m.port.Listen(port.Peer)
	if err != nil {
		w.t.Fatal(err)
	}
	joins, err := m.port.Listen(port.Join)
	if err != nil {
		w.t.Fatal(err)
	}
	server := port.NewServer(m.Handler(), log)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for _, run := range []func() error{
		func() error { return m.port.Run(ctx, listener) },
		func() error { return m.registry.Run(ctx) },
		func() error { return m.Serve(ctx, joins) },
		func() error {
			if w.still {
				return nil
			}
			return m.Keep(ctx)
		},
		func() error {
			if w.long {
				return nil
			}
			return m.Watch(ctx)
		},
		func() error { return m.KeepValid(ctx) },
		func() error {
			if err := server.Serve(peer); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		},
	} {
		work.Go(func() {
			if err := run(); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(func() {
		cancel()
		server.Close()
		transport.CloseIdleConnections()
		work.Wait()
		time.Sleep(port.DefaultLimits().Handshake) // net/http's dials end by themselves
	})
}

// until waits for something, at most a minute of the bubble's time.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("not within a minute: %s", what)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
