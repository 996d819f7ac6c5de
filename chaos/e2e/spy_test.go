package e2e

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/node/member"
	"pelago/query/plan"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/group"
)

// spy is a member of a network of real nodes that means harm: it joined as every
// node does, has the catalogue and takes part in Raft, and says what it likes.
type spy struct {
	t       *testing.T
	self    *identity.Node
	port    *port.Port
	rt      *http.Transport
	peers   *call.Client
	catalog *overheard
	group   *group.Group
	lookup  *member.Registry
}

// overheard is a catalogue that keeps the entries that it has applied.
type overheard struct {
	*catalog.Catalog
	mu      sync.Mutex
	entries []replication.Entry
}

func (o *overheard) Apply(entries []replication.Entry, at replication.Position) error {
	o.mu.Lock()
	for _, e := range entries {
		o.entries = append(o.entries, replication.Entry{Index: e.Index, Term: e.Term, Data: slices.Clone(e.Data)})
	}
	o.mu.Unlock()
	return o.Catalog.Apply(entries, at)
}

// batches are the entries of a node's journal, in order.
func (o *overheard) batches(node string) (all [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.entries {
		if d, err := catalog.DecodeEntry(e.Data); err == nil && d.Batch != nil && d.Batch.Node == node {
			all = append(all, e.Data)
		}
	}
	return all
}

// enlist has a spy join by way of a node.
func enlist(t *testing.T, by *node) *spy {
	t.Helper()
	fs, log := vfs.NewMem(), slog.New(slog.DiscardHandler)
	self, err := identity.Open(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, err := member.Join(t.Context(), fs, "keys", self, member.Joining{
		Address: by.Peer(), Token: by.token(), Site: "Spy", Place: authority.Place{Address: l.Addr().String()}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}})
	if err != nil {
		t.Fatal(err)
	}
	s := &spy{t: t, self: self, catalog: &overheard{Catalog: c}}
	if s.lookup, err = member.NewRegistry(member.RegistryOptions{Self: self.ID(), Catalog: c, Hints: m.Hints, Log: log}); err != nil {
		t.Fatal(err)
	}
	s.port = port.New(port.Config{Credentials: m.Credentials, Revoked: func(string) bool { return false }, Log: log})
	s.rt = s.port.Transport(s.lookup.Locate)
	s.peers = call.NewClient(s.rt)
	calls, err := s.port.Listen(port.Peer)
	if err != nil {
		t.Fatal(err)
	}
	s.group, err = group.Open(group.Options{
		ID: self.ID(), Address: l.Addr().String(), FS: fs, Dir: "data", Catalogue: s.catalog, Signer: self, Peers: s.peers,
		Port: s.port, Locate: s.lookup.Locate,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.run(l, calls)
	// What is in the catalogue's copy that it starts from it does not overhear.
	until(t, "the spy follows", func() bool { return s.catalog.Applied() > 0 })
	return s
}

// run has the spy do what members do, until the test ends.
func (s *spy) run(l, calls net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	server := port.NewServer(s.group.Handler(), slog.New(slog.DiscardHandler))
	var tasks sync.WaitGroup
	for _, do := range []func() error{
		func() error { return s.port.Run(ctx, l) },
		func() error { return s.group.Run(ctx) },
		func() error { return s.lookup.Run(ctx) },
		func() error {
			if err := server.Serve(calls); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		},
	} {
		tasks.Go(func() {
			if err := do(); err != nil {
				s.t.Errorf("the spy: %v", err)
			}
		})
	}
	s.t.Cleanup(func() {
		cancel()
		server.Close()
		tasks.Wait()
		s.rt.CloseIdleConnections()
		if err := errors.Join(s.group.Close(), s.catalog.Close()); err != nil {
			s.t.Error(err)
		}
	})
}

// propose proposes an entry as its own and returns why it was refused, by the
// leader or by the catalogue; nil: it was taken.
func (s *spy) propose(entry []byte) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	index, err := s.group.Propose(ctx, entry)
	if err != nil {
		return err
	}
	results, ok := s.catalog.Results(index)
	if !ok {
		s.t.Fatalf("entry %d has no results", index)
	}
	return errors.Join(results...)
}

// ask makes a peer call and returns how it failed; nil: it was answered.
func (s *spy) ask(node, method, path string, body io.Reader) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	answer, err := s.peers.Do(ctx, node, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
