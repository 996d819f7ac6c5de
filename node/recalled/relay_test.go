package recalled

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/cluster/relay"
	"pelago/node/placement"
	"pelago/shard"
	"pelago/shard/held"
)

// sourceAt is what a node of a world holds.
type sourceAt struct {
	*world
	node string
}

// Shard implements [held.Source].
func (s sourceAt) Shard(name held.Name) (held.Shard, error) { return s.at(s.node, name) }

// serveAt runs a service of a node until the test ends.
func serveAt(t *testing.T, m *porttest.Member, s port.Service, run func(context.Context, net.Listener) error) {
	t.Helper()
	l, err := m.Listen(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx, l); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) && t.Context().Err() == nil {
			t.Errorf("%s: %v", s, err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// Of k shards one is at a node that only another holder reaches. All of a series is read
// and verified, and the holder answers the reader, not who passes it on.
func TestAHolderThatOnlyAnotherReachesIsReadByWayOfIt(t *testing.T) {
	for _, test := range []struct {
		name   string
		cut    func(*porttest.Cluster)
		relays bool
		fails  bool
	}{
		{"all reach each other", func(*porttest.Cluster) {}, true, false},
		{"by relay", func(c *porttest.Cluster) { c.Part([]string{"10.0.0.1"}, []string{"10.0.0.3"}) }, true, false},
		{"nobody passes it on", func(c *porttest.Cluster) { c.Part([]string{"10.0.0.1"}, []string{"10.0.0.3"}) }, false, true},
		{"nobody reaches it", func(c *porttest.Cluster) { c.Part([]string{"10.0.0.1", "10.0.0.2"}, []string{"10.0.0.3"}) }, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := porttest.NewCluster(t, "north")
				members := map[string]*porttest.Member{}
				var ids []string
				for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
					m := c.Start(t, ip, "site "+ip, nil)
					members[m.ID()], ids = m, append(ids, m.ID())
				}
				reader, between, far := members[ids[0]], members[ids[1]], members[ids[2]]
				w := newWorldOf(t, 3, ids...)
				packed := w.pack(instance(1, "1.1", "a"), instance(2, "1.2", "b"))
				w.seal(packed, shard.Code{K: 2, M: 1})
				clear(w.shards[reader.ID()]) // so that both others are needed
				locate := func(_ context.Context, node string) (string, error) {
					if m := members[node]; m != nil {
						return m.Address, nil
					}
					return "", fault.New(fault.NotFound, "no such node")
				}
				for _, m := range []*porttest.Member{between, far} {
					handler := held.NewHandler(held.HandlerOptions{Source: sourceAt{w, m.ID()}})
					serveAt(t, m, port.Peer, func(ctx context.Context, l net.Listener) error {
						s := port.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
							if name, err := port.PeerOf(*r.TLS); err != nil || name.Node != reader.ID() {
								t.Errorf("node %s is asked by %s, %v", m.ID(), name, err)
							}
							handler.ServeHTTP(out, r)
						}), slog.New(slog.DiscardHandler))
						defer context.AfterFunc(ctx, func() { s.Close() })()
						return s.Serve(l)
					})
				}
				server := relay.NewServer(relay.ServerOptions{
					Self: between.ID(), Port: between.Port, Locate: locate, Member: func(node string) bool { return members[node] != nil },
				})
				serveAt(t, between, port.Relay, server.Serve)
				ways := relay.New(relay.Options{Port: reader.Port, Locate: locate, Relays: func(node string) []string {
					if !test.relays || node == between.ID() {
						return nil
					}
					return []string{between.ID()}
				}})
				defer ways.CloseIdleConnections()
				w.client = New(Options{
					Node: reader.ID(), Catalog: w.catalog, Keys: w, State: func() *placement.State { return w.state },
					Holders: held.Holders{Client: held.NewClient(call.NewClient(ways), nil)}, Local: w, Hints: w,
				})
				test.cut(c)
				m, err := w.client.Series(t.Context(), holder(2, "1.1", "1.2"))
				switch {
				case !test.fails && err != nil:
					t.Fatal(err)
				case !test.fails:
					w.check(m, instance(1, "1.1", "a"), instance(2, "1.2", "b"))
				case err == nil: // the shard that is left has the manifest
					_, err = w.read(m, 1)
				}
				if test.fails && !fault.Is(err, fault.Unavailable) {
					t.Errorf("of one shard of two: %v", err)
				}
				want := uint64(0)
				if test.name == "by relay" {
					want = 1
				}
				if got := server.Counters().Connections.Load(); got != want {
					t.Errorf("%d connections were passed on, want %d", got, want)
				}
			})
		})
	}
}
