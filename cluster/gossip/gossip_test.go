package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
)

// lastProbe is how long a probe of memberlist may outlive its shutdown: time must
// pass for it before a bubble ends.
const lastProbe = time.Minute

// party is a number of nodes that gossip in memory, without TLS.
type party struct {
	*porttest.Network
	nodes   []*Gossip
	stop    []context.CancelFunc
	ended   []chan struct{}
	seeds   []Seed
	removed sync.Map // ids
	load    []atomic.Uint32
	sent    atomic.Int64 // bytes, by all
}

// counted counts what a node sends.
type counted struct {
	net.Conn
	sent *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.sent.Add(int64(len(b)))
	return c.Conn.Write(b)
}

func id(i int) string { return fmt.Sprintf("node%04d", i)[:8] + strings.Repeat("a", 24) }

func ip(i int) string { return fmt.Sprintf("10.0.%d.%d", i/200, i%200+1) }

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip(i)), porttest.Port)
}

// newFullParty starts nodes that know each other.
func newFullParty(t *testing.T, n int) *party {
	t.Helper()
	known := make([]int, n)
	for i := range known {
		known[i] = i
	}
	return newParty(t, n, known...)
}

// newParty starts nodes that know the first and the last of them, unless others
// are named.
func newParty(t *testing.T, n int, known ...int) *party {
	t.Helper()
	p := &party{Network: porttest.New(), load: make([]atomic.Uint32, n)}
	if known == nil {
		known = []int{0, n - 1}
	}
	for _, i := range known {
		p.seeds = append(p.seeds, Seed{id(i), address(i)})
	}
	for i := range n {
		p.nodes, p.stop, p.ended = append(p.nodes, nil), append(p.stop, nil), append(p.ended, nil)
		p.start(t, i)
	}
	t.Cleanup(func() {
		for _, ended := range p.ended {
			<-ended
		}
		time.Sleep(lastProbe)
	})
	return p
}

func (p *party) start(t *testing.T, i int) {
	t.Helper()
	host := p.Host(ip(i))
	l, err := host.Listen(porttest.Port)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Config{
		Node: id(i), Advertise: address(i), Listener: l,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			conn, err := host.Dial(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return counted{conn, &p.sent}, nil
		},
		Meta: func() Meta {
			return Meta{Site: fmt.Sprintf("site %d", i), DICOM: ip(i) + ":11112", Web: ip(i) + ":8080", Load: uint16(p.load[i].Load())}
		},
		Seeds:  func() []Seed { return p.seeds },
		Member: func(node string) bool { _, gone := p.removed.Load(node); return !gone },
		Log:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := g.Run(ctx); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}()
	p.nodes[i], p.stop[i], p.ended[i] = g, cancel, ended
}

// sees is how many others a node lists.
func (p *party) sees(i int) int { return len(p.nodes[i].Members()) }

// within waits on virtual time until a condition holds, and returns how long that
// took.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !holds() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(start)
}

func (p *party) allSee(n int) func() bool {
	return func() bool {
		for i, g := range p.nodes {
			if g != nil && p.sees(i) != n {
				return false
			}
		}
		return true
	}
}

func TestNodesFindEachOtherAndTellWhatTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 7)
		within(t, time.Minute, "all see all", p.allSee(6))
		p.load[3].Store(700)
		within(t, time.Minute, "all know of node 3's load and measure round trips", func() bool {
			for i, g := range p.nodes {
				for _, m := range g.Members() {
					at := slices.IndexFunc(p.nodes, func(o *Gossip) bool { return o.Node == m.Node })
					if m.Address != address(at) || m.Meta.Site != fmt.Sprintf("site %d", at) {
						t.Fatalf("node %d sees %+v", i, m)
					}
					if at == 3 && m.Meta.Load != 700 {
						return false
					}
				}
			}
			return true
		})
	})
}

func TestADeadNodeIsMissedAndAReturningOneFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 6)
		within(t, time.Minute, "all see all", p.allSee(5))
		others := []string{ip(0), ip(1), ip(2), ip(4), ip(5)}
		p.Part([]string{ip(3)}, others)
		took := within(t, 2*time.Minute, "the rest misses it", func() bool {
			return p.sees(0) == 4 && p.sees(1) == 4 && p.sees(2) == 4 && p.sees(4) == 4 && p.sees(5) == 4
		})
		if took < 5*time.Second {
			t.Errorf("missed after %v: one lost probe is no death", took)
		}
		within(t, 5*time.Minute, "it misses the rest", func() bool { return p.sees(3) == 0 })
		time.Sleep(3 * time.Hour)
		p.Join([]string{ip(3)}, others)
		within(t, 2*time.Minute, "all see all again", p.allSee(5))
	})
}

// An operator who looks at the sites sees soon that one is down, in networks of
// any size.
func TestADeadNodeIsMissedSoon(t *testing.T) {
	const limit = 25 * time.Second // twice what it mostly takes: who probes whom is chance
	for _, nodes := range []int{2, 3, 5, 12, 50} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			if nodes > 12 && testing.Short() {
				t.Skip("fifty nodes on virtual time; run without -short, as make test does")
			}
			synctest.Test(t, func(t *testing.T) {
				p := newFullParty(t, nodes)
				within(t, time.Minute, "all see all", p.allSee(nodes-1))
				dead := nodes / 2
				var others []string
				for i := range p.nodes {
					if i != dead {
						others = append(others, ip(i))
					}
				}
				p.Part([]string{ip(dead)}, others)
				took := within(t, limit, "the rest misses it", func() bool {
					for i := range p.nodes {
						if i != dead && p.nodes[i].Alive(id(dead)) {
							return false
						}
					}
					return true
				})
				t.Logf("missed by all after %v", took)
			})
		})
	}
}

// Half a second each way, and now and then nothing at all for six seconds, is how
// a far site is reached, and no reason to give it up for dead.
func TestAFarNodeIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 4)
		within(t, time.Minute, "all see all", p.allSee(3))
		others := []string{ip(0), ip(1), ip(3)}
		for _, other := range others {
			p.Delay(ip(2), other, 500*time.Millisecond)
			p.Delay(other, ip(2), 500*time.Millisecond)
		}
		for range 10 {
			p.Part([]string{ip(2)}, others)
			time.Sleep(6 * time.Second)
			p.Join([]string{ip(2)}, others)
			for range 300 {
				if !p.allSee(3)() {
					t.Fatal("a node was given up for dead that was there")
				}
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
		}
	})
}

func TestANodeThatLeavesIsNotMissedButGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 4)
		within(t, time.Minute, "all see all", p.allSee(3))
		p.stop[2]()
		<-p.ended[2]
		within(t, 5*time.Second, "the others know", func() bool { return p.sees(0) == 2 && p.sees(1) == 2 && p.sees(3) == 2 })
		time.Sleep(time.Minute)
		p.start(t, 2)
		within(t, time.Minute, "it is back", p.allSee(3))
	})
}

func TestWhoIsNoMemberIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 4)
		within(t, time.Minute, "all see all", p.allSee(3))
		p.removed.Store(id(1), true)
		if n := p.sees(0); n != 2 {
			t.Errorf("a removed node is among %d", n)
		}
	})
}

// All know of all, as members of one catalogue do: of fifty that come within one
// moment the rumour of some does not reach everybody, and who misses one seeks it
// before memberlist's exchange of all states, minutes later, tells of it.
func TestFiftyNodesFindEachOther(t *testing.T) {
	if testing.Short() {
		t.Skip("fifty nodes on virtual time; run without -short, as make test does")
	}
	synctest.Test(t, func(t *testing.T) {
		p := newFullParty(t, 50)
		within(t, time.Minute, "all see all", p.allSee(49))
	})
}

// What it costs, TLS aside, while every node has something new to say of itself each
// time that it is asked: a few kilobytes a second.
func TestFiftyNodesGossipLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("fifty nodes on virtual time; run without -short, as make test does")
	}
	const nodes, limit = 50, 8000 // bytes a second and node
	synctest.Test(t, func(t *testing.T) {
		p := newFullParty(t, nodes)
		within(t, time.Minute, "all see all", p.allSee(nodes-1))
		const lasts = 2 * time.Minute
		before := p.sent.Load()
		for range lasts / lookEvery {
			for i := range p.load {
				p.load[i].Add(1)
			}
			time.Sleep(lookEvery)
		}
		each := float64(p.sent.Load()-before) / lasts.Seconds() / nodes
		t.Logf("each node sends %.0f bytes a second", each)
		if each > limit {
			t.Errorf("each node sends %.0f bytes a second, more than %d", each, limit)
		}
		if each == 0 {
			t.Error("nothing was counted")
		}
	})
}

// The whole of it over the port, with TLS: what is said comes from nodes of the
// network.
func TestGossipOverThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := porttest.NewCluster(t, "north")
		var members []*porttest.Member
		var gossips []*Gossip
		for i := range 3 {
			members = append(members, c.Start(t, ip(i), fmt.Sprint("site ", i), nil))
		}
		t.Cleanup(func() { time.Sleep(lastProbe) })
		seeds := []Seed{{members[0].ID(), address(0)}}
		for i, m := range members {
			l, err := m.Listen(port.Gossip)
			if err != nil {
				t.Fatal(err)
			}
			g, err := New(Config{
				Node: m.ID(), Advertise: address(i), Listener: l,
				Dial: func(ctx context.Context, node, address string) (net.Conn, error) {
					return m.Dial(ctx, node, address, port.Gossip)
				},
				Meta: func() Meta { return Meta{Site: fmt.Sprint("site ", i)} }, Seeds: func() []Seed { return seeds },
				Member: func(node string) bool { return !c.Ledger.Revoked(node) }, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.Run(ctx)
			}()
			t.Cleanup(func() {
				cancel()
				<-done
			})
			gossips = append(gossips, g)
		}
		sees := func(n ...int) func() bool {
			return func() bool {
				for i, g := range gossips {
					if len(g.Members()) != n[i] {
						return false
					}
				}
				return true
			}
		}
		within(t, time.Minute, "all see all", sees(2, 2, 2))
		c.Ledger.Remove(members[2].ID())
		members[0].Drop(members[2].ID())
		members[1].Drop(members[2].ID())
		within(t, 5*time.Minute, "the revoked one is alone", sees(1, 1, 0))
	})
}
