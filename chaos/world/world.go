package world

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// maxConns is how many connections a world carries at once: 50 nodes, each
// with three to every other. A connection costs four goroutines.
const maxConns = 8192

// Network is what a world is laid over: TCP on the loopback, or memory.
type Network interface {
	// Listen opens a gate at an address of its choice. What it accepts are [Conn]s.
	Listen(ctx context.Context) (net.Listener, error)
	// Dial connects to a node, on behalf of somebody at a site.
	Dial(ctx context.Context, from Site, address string) (Conn, error)
	// Origin returns the site from which a connection was dialled, which a gate
	// accepted. The error is of kind [fault.Canceled] if its dialler has given it
	// up already.
	Origin(accepted Conn) (Site, error)
}

// Options say what a world is like.
type Options struct {
	Network Network // nil: TCP{}
	Link    Link    // between sites, until it is set otherwise
	Inside  Link    // within a site
	Seed    uint64  // of loss and jitter
}

// World is a wide-area network. Its methods may be called from any goroutine.
type World struct {
	network Network
	options Options
	buffers buffers
	work    sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	lines     map[direction]*line
	accesses  map[Site]*access
	gates     []*Gate
	conns     map[*conn]struct{}
	strangers int64
	turnedOff int64
}

// access is what the lines of a site share.
type access struct{ up, down bottleneck }

// direction is an ordered pair of sites.
type direction struct{ from, to Site }

// New makes a world in which every site is linked to every other. It runs until
// [World.Close].
func New(o Options) (*World, error) {
	if err := o.Link.check(); err != nil {
		return nil, err
	}
	if err := o.Inside.check(); err != nil {
		return nil, err
	}
	if o.Network == nil {
		o.Network = TCP{}
	}
	return &World{network: o.Network, options: o, lines: map[direction]*line{}, accesses: map[Site]*access{}, conns: map[*conn]struct{}{}}, nil
}

// Close ends all connections and returns when nothing runs any more.
func (w *World) Close() {
	w.mu.Lock()
	w.closed = true
	gates, conns := w.gates, slices.Collect(maps.Keys(w.conns))
	w.mu.Unlock()
	for _, g := range gates {
		g.Close()
		g.cancel()
	}
	for _, c := range conns {
		c.abort()
	}
	w.work.Wait()
}

// Gate opens the address under which all sites reach a node at a site. Where
// each connection comes from is asked of the [Network]. target is where the
// node listens; "": not yet, see [Gate.Target]. The gate closes when ctx ends.
func (w *World) Gate(ctx context.Context, site Site, target string) (*Gate, error) {
	return w.open(ctx, &Gate{world: w, site: site, target: target})
}

// GateFrom opens an address under which only one site reaches a node at
// another: whoever dials it is taken to be there.
func (w *World) GateFrom(ctx context.Context, from, site Site, target string) (*Gate, error) {
	return w.open(ctx, &Gate{world: w, site: site, from: from, target: target})
}

func (w *World) open(ctx context.Context, g *Gate) (*Gate, error) {
	l, err := w.network.Listen(ctx)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "gate of %s: %w", g.site, err)
	}
	g.listener = l
	ctx, g.cancel = context.WithCancel(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		l.Close()
		g.cancel()
		return nil, fault.New(fault.Unavailable, "gate of %s: the world is closed", g.site)
	}
	w.gates = append(w.gates, g)
	context.AfterFunc(ctx, func() { l.Close() })
	w.work.Go(func() { g.accept(ctx) })
	return g, nil
}

// Set changes what one direction is like, at once. See [Link] for what becomes
// of what is on its way.
func (w *World) Set(from, to Site, l Link) error {
	if err := l.check(); err != nil {
		return err
	}
	w.change(from, to, func(old *Link) { *old = l })
	return nil
}

// change edits the link of one direction, and ends what it refuses from now on.
func (w *World) change(from, to Site, edit func(*Link)) {
	line := w.line(from, to)
	line.change(time.Now(), edit)
	if l, _ := line.now(); l.Cut != Refuse {
		return
	}
	for _, c := range w.between(from, to) {
		c.abort()
	}
}

// SetBoth changes both directions between two sites.
func (w *World) SetBoth(a, b Site, l Link) error {
	if err := w.Set(a, b, l); err != nil {
		return err
	}
	return w.Set(b, a, l)
}

// SetAccess changes what all links of a site to others share, at once.
func (w *World) SetAccess(site Site, a Access) error {
	if err := a.check(); err != nil {
		return err
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	shared := w.accessLocked(site)
	shared.up.set(now, a.Up, 0)
	shared.down.set(now, a.Down, 0)
	for d, l := range w.lines {
		if d.from == site || d.to == site {
			l.wake()
		}
	}
	return nil
}

// Link returns what one direction is like.
func (w *World) Link(from, to Site) Link {
	l, _ := w.line(from, to).now()
	return l
}

// Cut cuts one direction, or with Open heals it. The rest of its link stays.
func (w *World) Cut(from, to Site, how Cut) error {
	if err := (&Link{Cut: how}).check(); err != nil {
		return err
	}
	w.change(from, to, func(l *Link) { l.Cut = how })
	return nil
}

// Part cuts both directions between every two sites of different groups, and
// heals those within a group. Sites that are in no group keep their links.
func (w *World) Part(how Cut, groups ...[]Site) error {
	for i, group := range groups {
		for j, other := range groups {
			cut := Open
			if i != j {
				cut = how
			}
			for _, a := range group {
				for _, b := range other {
					if err := w.Cut(a, b, cut); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// Heal opens all that is cut.
func (w *World) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.options.Link.Cut, w.options.Inside.Cut = Open, Open // of directions that nobody used yet
	now := time.Now()
	for _, l := range w.lines {
		l.change(now, func(l *Link) { l.Cut = Open })
	}
}

// Traffic returns what one direction has carried.
func (w *World) Traffic(from, to Site) Traffic { return w.line(from, to).read() }

// Strangers returns how many connections were turned away because nobody could
// say which site they came from, or because there were too many. A test whose
// world has seen one has measured something else than it thinks.
func (w *World) Strangers() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.strangers + w.turnedOff
}

// line returns the direction from one site to another.
func (w *World) line(from, to Site) *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lineLocked(direction{from, to})
}

func (w *World) lineLocked(d direction) *line {
	l, ok := w.lines[d]
	if !ok {
		dice := rand.New(rand.NewPCG(w.options.Seed, seed(d)))
		if d.from == d.to {
			l = newLine(w.options.Inside, dice)
		} else {
			l = newLine(w.options.Link, dice, &w.accessLocked(d.from).up, &w.accessLocked(d.to).down)
		}
		w.lines[d] = l
	}
	return l
}

func (w *World) accessLocked(s Site) *access {
	if w.accesses[s] == nil {
		w.accesses[s] = new(access)
	}
	return w.accesses[s]
}

// seed tells directions apart, whatever order they are first used in (FNV-1a).
func seed(d direction) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(string(d.from) + "\x00" + string(d.to)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// between returns the connections that use a direction either way.
func (w *World) between(a, b Site) []*conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []*conn
	for c := range w.conns {
		if c.from == a && c.to == b || c.from == b && c.to == a {
			found = append(found, c)
		}
	}
	return found
}

// enter takes a connection in, or turns it away and returns nil.
func (w *World) enter(from, to Site, dialler Conn) *conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.conns) >= maxConns {
		w.turnedOff++
		_ = dialler.SetLinger(0) // fails on a connection that is gone already
		dialler.Close()
		return nil
	}
	c := &conn{
		world: w, from: from, to: to, dialler: dialler, done: make(chan struct{}),
		there: w.lineLocked(direction{from, to}), back: w.lineLocked(direction{to, from}),
	}
	w.conns[c] = struct{}{}
	return c
}

func (w *World) leave(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *World) stranger() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.strangers++
}
