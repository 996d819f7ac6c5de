package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"pelago/cluster/fault"
)

const (
	// lookEvery is how often changed metadata is told, and lost members looked for.
	lookEvery = 10 * time.Second
	// seedsAtOnce is how many lost members are tried each time.
	seedsAtOnce = 3
	// leaveTime is how long a good-bye may take: news goes out every 500 ms, to four
	// nodes, which tell the rest. memberlist would wait until it has repeated it.
	leaveTime  = 600 * time.Millisecond
	updateTime = 5 * time.Second
	// reclaimAfter is how long a node must have been dead before it may come back
	// with another address; its id is proven by its key in any case.
	reclaimAfter = time.Second

	// Every node probes one other each probeEvery, in turn. Who does not answer it by
	// the next is suspected, and taken for dead suspectFor times probeEvery after a
	// second node has come to suspect it (in networks of over ten nodes longer, by the
	// decimal logarithm of their number), or suspectLongest times as long after the
	// first; it hears of it, and need only contradict. So a dead node is missed in 10
	// to 20 s. memberlist's own figures for wide-area networks (5 s, 3 s, 6, 6) take a
	// minute; they are made for datagrams that get lost, and a false alarm is a hint
	// here that is wrong for a moment.
	probeEvery     = 2 * time.Second
	suspectFor     = 3
	suspectLongest = 3
	// probeTime is how long an answer may take before others are asked to probe too.
	// They get as long, and must have told of it before the probe is over: else who
	// probes thinks that it is itself to blame, and probes more slowly.
	probeTime = 700 * time.Millisecond
	// compareEvery is how often a node compares all that it has heard with one other
	// (in networks of over 32 less often): news is repeated a few times to some, and now
	// and then passes somebody by. memberlist's figure for wide-area networks is 60 s.
	compareEvery = 30 * time.Second
)

// Seed is where a member is said to be.
type Seed struct {
	Node    string
	Address netip.AddrPort
}

// Config is what gossip needs of its node.
type Config struct {
	Node      string         // its id
	Advertise netip.AddrPort // where others reach its port
	Listener  net.Listener   // of the gossip service
	Dial      Dial
	Meta      func() Meta // what the node says of itself; asked every 10 s, must not block
	// Seeds are the members of the catalogue; those whom gossip has lost are tried
	// again, so that a network that was cut in two for days finds together.
	Seeds func() []Seed
	// Member reports whether a node belongs to the network; others are not listed.
	// Must not block.
	Member func(node string) bool
	Log    *slog.Logger
}

// Member is another node that is believed to be alive.
type Member struct {
	Node    string
	Address netip.AddrPort
	Meta    Meta          // zero if it could not be read
	RTT     time.Duration // of the last probe; 0 if none was answered
}

// Gossip is a node's part in the gossip.
type Gossip struct {
	Config
	transport *Transport
	list      *memberlist.Memberlist

	mu    sync.Mutex
	meta  []byte // as told last
	rtt   map[string]time.Duration
	alive map[string]Member // as memberlist's events say: its own list changes while it is read
}

// New takes part in the gossip from now on, until [Gossip.Run] ends, which must be
// called. It knows no other node until Run finds one.
func New(c Config) (*Gossip, error) {
	g := &Gossip{Config: c, rtt: map[string]time.Duration{}, alive: map[string]Member{}, transport: NewTransport(c.Listener, c.Dial, c.Advertise)}
	g.meta = g.current()
	m := memberlist.DefaultWANConfig()
	m.Name, m.Transport, m.RequireNodeNames = c.Node, g.transport, true
	m.BindAddr, m.BindPort = c.Advertise.Addr().String(), int(c.Advertise.Port())
	m.AdvertiseAddr, m.AdvertisePort = m.BindAddr, m.BindPort
	m.UDPBufferSize = packetSize
	m.EnableCompression = false // what is told is small, and inflating is one more thing to bound
	m.DeadNodeReclaimTime = reclaimAfter
	m.ProbeInterval, m.ProbeTimeout = probeEvery, probeTime
	m.PushPullInterval = compareEvery
	m.SuspicionMult, m.SuspicionMaxTimeoutMult = suspectFor, suspectLongest
	m.Delegate, m.Ping, m.Alive, m.Events = delegate{g}, delegate{g}, delegate{g}, delegate{g}
	m.Logger = log.New(lines{c.Log}, "", 0)
	list, err := memberlist.Create(m)
	if err != nil {
		return nil, errors.Join(fault.New(fault.Other, "gossip: %w", err), g.transport.Shutdown())
	}
	g.list = list
	return g, nil
}

// Run keeps the gossip going until the context ends, then says good-bye and
// returns when all connections are closed. memberlist's own goroutines end by
// themselves, a last probe up to 16 s later.
func (g *Gossip) Run(ctx context.Context) error {
	var seeking sync.WaitGroup
	defer seeking.Wait()
	seeking.Go(func() { every(ctx, lookEvery, func() { g.seek(ctx) }) })
	every(ctx, lookEvery, g.tell)
	if err := g.list.Leave(leaveTime); err != nil {
		g.Log.Debug("gossip", "error", err)
	}
	return g.list.Shutdown() // and the transport's, which ends a seek
}

// every calls a step at once and then after each pause, until the context ends.
func every(ctx context.Context, pause time.Duration, step func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		step()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// tell tells the others what has changed here.
func (g *Gossip) tell() {
	meta := g.current()
	g.mu.Lock()
	changed := string(meta) != string(g.meta)
	g.meta = meta
	g.mu.Unlock()
	if !changed {
		return
	}
	if err := g.list.UpdateNode(updateTime); err != nil {
		g.Log.Debug("gossip", "error", err)
	}
}

// seek tries a few of the members that are not listed.
func (g *Gossip) seek(ctx context.Context) {
	lost := slices.DeleteFunc(slices.Clone(g.Seeds()), func(s Seed) bool { return s.Node == g.Node || g.lists(s.Node) })
	rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
	for _, s := range lost[:min(len(lost), seedsAtOnce)] {
		if ctx.Err() != nil {
			return
		}
		if _, err := g.list.Join([]string{s.Node + "/" + s.Address.String()}); err != nil {
			g.Log.Debug("gossip", "node", s.Node, "error", err)
		}
	}
}

// current is the node's metadata with the round trips measured here.
func (g *Gossip) current() []byte {
	m := g.Meta()
	g.mu.Lock()
	defer g.mu.Unlock()
	m.RTT = make(map[string]time.Duration, len(g.rtt))
	for node, d := range g.rtt {
		m.RTT[node] = rounded(d)
	}
	return m.append(nil)
}

// rounded keeps two digits: less would tell the others of a change every time.
func rounded(d time.Duration) time.Duration {
	step := rttUnit
	for d/step >= 100 {
		step *= 10
	}
	return d.Round(step)
}

// Members returns the other nodes that are believed to be alive, by ascending id.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Member, 0, len(g.alive))
	for _, m := range g.alive {
		if g.Member(m.Node) {
			m.RTT = g.rtt[m.Node]
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
	return all
}

// Alive reports whether a node is among [Gossip.Members].
func (g *Gossip) Alive(node string) bool { return g.Member(node) && g.lists(node) }

func (g *Gossip) lists(node string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.alive[node]
	return ok
}

// take notes what memberlist says of another node.
func (g *Gossip) take(n *memberlist.Node) {
	addr, _ := netip.AddrFromSlice(n.Addr)
	meta, err := parseMeta(n.Meta)
	if err != nil {
		meta = Meta{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alive[n.Name] = Member{Node: n.Name, Address: netip.AddrPortFrom(addr.Unmap(), n.Port), Meta: meta}
}

// delegate is what memberlist calls, in part under its own lock: none of it blocks
// or calls back.
type delegate struct{ *Gossip }

// NodeMeta returns the metadata as told last.
func (d delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta
}

// NotifyMsg ignores messages of other kinds: nothing but liveness goes this way.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is empty.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what should be empty.
func (delegate) MergeRemoteState([]byte, bool) {}

// AckPayload is empty.
func (delegate) AckPayload() []byte { return nil }

// NotifyPingComplete remembers a round trip.
func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rtt[n.Name] = rtt
}

// NotifyAlive refuses nodes that do not belong to the network.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name != d.Node && !d.Member(n.Name) {
		return fmt.Errorf("not a member")
	}
	return nil
}

// NotifyJoin lists a node and tells the log.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	if n.Name == d.Node {
		return
	}
	d.Log.Info("node is alive", "node", n.Name)
	d.take(n)
}

// NotifyLeave forgets a node and tells the log.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.Node {
		return
	}
	d.Log.Info("node is silent", "node", n.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.alive, n.Name)
	delete(d.rtt, n.Name)
}

// NotifyUpdate takes what a node says of itself anew.
func (d delegate) NotifyUpdate(n *memberlist.Node) {
	if n.Name != d.Node {
		d.take(n)
	}
}

// lines turns memberlist's log into ours. Its errors are about peers that cannot
// be reached, which is gossip's daily bread: the joins and losses above are what
// an operator needs.
type lines struct{ log *slog.Logger }

// Write logs one line.
func (l lines) Write(b []byte) (int, error) {
	l.log.Debug("gossip", "text", strings.TrimSpace(string(b[:min(len(b), 500)])))
	return len(b), nil
}
