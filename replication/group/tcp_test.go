package group_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/replication/consensus"
	"pelago/replication/group"
)

// real is a node over TCP with a catalogue on disk.
type real struct {
	self    *identity.Node
	site    string
	address string
	catalog *catalog.Catalog
	group   *group.Group
	copies  atomic.Int64
}

// record is the command that makes the node a member.
func (n *real) record(t *testing.T, founder bool) *catalog.RegistryFact {
	t.Helper()
	value, err := proto.Marshal(&catalogpb.Member{Site: n.site, Address: n.address, PublicKey: n.self.Public(), Founder: founder})
	if err != nil {
		t.Fatal(err)
	}
	return &catalog.RegistryFact{Kind: catalog.KindMember, Name: n.self.ID(), Value: value}
}

// realNode starts everything of a node but Raft; run starts that, once it is told to found or not.
func realNode(t *testing.T, c *porttest.Cluster, addresses *sync.Map, site string, s group.Settings) (n *real, run func(found bool)) {
	t.Helper()
	self, creds := c.Node(t, site)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n = &real{self: self, site: site, address: l.Addr().String()}
	addresses.Store(self.ID(), n.address)
	p := port.New(port.Config{Credentials: creds, Revoked: c.Ledger.Revoked, Log: slog.New(slog.DiscardHandler)})
	peers, err := p.Listen(port.Peer)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if n.catalog, err = catalog.Open(catalog.Options{Dir: dir + "/catalog", CacheBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	rt := p.Transport(func(_ context.Context, node string) (string, error) {
		if a, ok := addresses.Load(node); ok {
			return a.(string), nil
		}
		return "", fault.New(fault.NotFound, "no such node")
	})
	n.group, err = group.Open(group.Options{
		ID: self.ID(), Address: n.address, Dir: dir, Catalogue: n.catalog, Signer: self, Peers: call.NewClient(rt), Port: p, Settings: s, Log: logger(site), Newcomer: true,
		Replaced: func() { n.copies.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := port.NewServer(n.group.Handler(), slog.New(slog.DiscardHandler))
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	work.Go(func() {
		if err := p.Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	work.Go(func() {
		if err := server.Serve(peers); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		server.Close()
		work.Wait()
		rt.CloseIdleConnections()
		if err := errors.Join(n.group.Close(), n.catalog.Close()); err != nil {
			t.Error(err)
		}
	})
	return n, func(found bool) {
		if found {
			if err := n.group.Found(); err != nil {
				t.Fatal(err)
			}
		}
		work.Go(func() {
			if err := n.group.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// Over TCP, with catalogues on disk: three nodes found, join, decide, and revoke;
// a fourth copies the catalogue, whose log is cut.
func TestNodesOverTCP(t *testing.T) {
	s := group.Settings{
		Raft:   consensus.Settings{Commit: 10 * time.Millisecond, Retain: time.Millisecond, Trailing: 64, Snapshot: 50 * time.Millisecond, Threshold: 32},
		Steady: 500 * time.Millisecond, Poll: 100 * time.Millisecond,
	}
	cluster := porttest.NewCluster(t, "north")
	var addresses sync.Map
	var nodes []*real
	add := func(site string) *real {
		n, run := realNode(t, cluster, &addresses, site, s)
		run(len(nodes) == 0)
		nodes = append(nodes, n)
		return n
	}
	decide := func(at *real, commands ...catalog.Command) {
		t.Helper()
		eventually(t, "a decision", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			results, err := at.group.Decide(ctx, nil, commands...)
			if err = errors.Join(append(results, err)...); err != nil && !fault.Is(err, fault.Unavailable) {
				t.Fatal(err)
			}
			return err == nil // a busy machine may lose its leader for a moment
		})
	}
	founder := add("Mercy")
	decide(founder, founder.record(t, true))
	for _, site := range []string{"Grace", "Hope"} {
		n := add(site)
		decide(founder, n.record(t, false))
	}
	eventually(t, "three voters", func() bool {
		voters := 0
		for _, m := range nodes[2].group.Members() {
			if m.Suffrage == 0 {
				voters++
			}
		}
		return voters == 3
	})
	setting := func(i int) *catalog.RegistryFact {
		return &catalog.RegistryFact{Kind: "setting", Name: fmt.Sprint(i), Value: []byte("on")}
	}
	for i := range 300 {
		decide(nodes[i%3], setting(i))
	}
	if _, err := nodes[1].group.Decide(t.Context(), []catalog.Condition{catalog.If("setting", "7", []byte("off"))}, setting(7)); err != nil {
		t.Errorf("a condition that does not hold is an error of the call: %v", err)
	} else if results, _ := nodes[1].group.Decide(t.Context(), []catalog.Condition{catalog.If("setting", "7", []byte("off"))}, setting(7)); len(results) != 1 || !fault.Is(results[0], fault.Conflict) {
		t.Errorf("a condition that does not hold: %v", results)
	}
	eventually(t, "the cutting of the logs", func() bool {
		for _, n := range nodes {
			if n.group.Status().First <= 100 {
				return false
			}
		}
		return true
	})
	late, run := realNode(t, cluster, &addresses, "Faith", s)
	nodes = append(nodes, late)
	run(false)
	decide(founder, late.record(t, false))
	decide(founder, setting(301))
	eventually(t, "the copy", func() bool {
		v, err := late.catalog.RegistryRecord("setting", "301")
		return err == nil && string(v) == "on"
	})
	all, err := late.catalog.Registry("setting")
	if err != nil || len(all) != 301 {
		t.Errorf("%d settings, %v", len(all), err)
	}
	eventually(t, "the news of the copy", func() bool { return late.copies.Load() == 1 })
	decide(late, setting(302))
	if err := late.catalog.Verify(t.Context(), func(err error) { t.Error(err) }); err != nil {
		t.Error(err)
	}
	eventually(t, "a known staleness", func() bool { d, ok := late.group.Staleness(); return ok && d < 5*time.Second })
	// The catalogue's word removes a node.
	decide(founder, &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: nodes[1].self.ID(), Value: []byte{1}})
	eventually(t, "the removal", func() bool { return len(late.group.Members()) == 3 })
	decide(late, setting(303))
	for _, m := range late.group.Status().Members {
		if m.ID == nodes[1].self.ID() {
			t.Error("who was revoked is a member")
		}
	}
	hashes := map[[32]byte]bool{}
	eventually(t, "the same state", func() bool {
		clear(hashes)
		for _, n := range []*real{nodes[0], nodes[2], late} {
			hash, _ := n.catalog.StateHash()
			hashes[hash] = true
		}
		return len(hashes) == 1
	})
}
