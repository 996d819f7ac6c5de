package recall

import (
	"cmp"
	"context"
	"slices"
	"time"

	"pelago/cluster/fault"
)

// none is no shard.
const none = -1

const (
	// maxTries is how often a place is asked that fails.
	maxTries = 2
	// dear and dearBy are how many times what the others take one shard may take, and
	// a bit, before they are asked instead: they are more bytes.
	dear, dearBy = 1.5, 5 * time.Millisecond
)

// gather is the state of one fetch: of one shard's part, or of enough of others to
// make it. It is of one goroutine; each attempt has another.
type gather struct {
	client *Client
	want   int                                                              // the shard; none: any will do
	need   int                                                              // how many of the others make it
	sites  []*site                                                          // candidates
	bytes  func(index int) int64                                            // of a part; 0: that shard has none
	ask    func(ctx context.Context, at Place, x *exchange) (answer, error) // gives what is proven
	wrong  func(at Place, err error)                                        // is told what a place has not
	have   map[int]answer                                                   // by index

	running []*attempt
	results chan *attempt
	instead time.Duration // what the others take that could be asked; 0: they are too few
	wide    bool          // the others are asked
	hedged  bool          // once a fetch
	extra   int64         // bytes that are asked for twice, and the budget has paid
	free    func()
	rot     bool  // a place had not what it should
	failed  error // of several, that which leaves most hope
}

// site is a place, and what came of asking it.
type site struct {
	Place
	tries   int
	running bool
	out     bool // it has not what is wanted
	doubted bool // it had not, lately
}

// attempt is one request.
type attempt struct {
	site     *site
	x        *exchange
	replaced bool // another was asked in its place
	got      answer
	err      error
}

// run gathers. It leaves no goroutine.
func (g *gather) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer g.end()
	defer cancel()
	g.results = make(chan *attempt)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !g.enough() {
		if err := g.fill(ctx); err != nil {
			return err
		}
		if len(g.running) == 0 {
			return g.failure()
		}
		timer.Stop()
		if wake, ok := g.wake(); ok {
			timer.Reset(time.Until(wake))
		}
		select {
		case a := <-g.results:
			g.take(ctx, a)
		case <-timer.C:
			g.overdue(time.Now())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// end waits for what was cancelled.
func (g *gather) end() {
	now := time.Now()
	for _, a := range g.running {
		if g.enough() {
			a.x.lost(now)
		} else {
			a.x.forget()
		}
	}
	for range g.running {
		<-g.results
	}
	if g.free != nil {
		g.free()
	}
}

// enough reports whether no more is needed.
func (g *gather) enough() bool {
	_, ok := g.have[g.want]
	return ok || len(g.have) >= g.need
}

// fill begins what is missing.
func (g *gather) fill(ctx context.Context) error {
	now := time.Now()
	g.instead = g.others(now)
	if !g.wide && !g.pending(g.want) {
		if s, stood := g.direct(now); s != nil {
			g.launch(ctx, s, stood, now)
		}
		if !g.pending(g.want) {
			if err := g.widen(ctx); err != nil {
				return err
			}
		}
	}
	if g.wide {
		g.fillWide(ctx, now)
	}
	return nil
}

// direct returns where the wanted shard itself is to be asked for; nil: only the
// others are asked, who are cheaper.
func (g *gather) direct(now time.Time) (*site, standing) {
	s, stood, cost := g.cheapest(g.isWant, now)
	switch {
	case s == nil, g.instead == 0: // nobody, or nobody else
		return s, stood
	case s.doubted, s.tries > 0, stood == avoided:
		return nil, 0
	case stood == due, float64(cost) <= dear*float64(g.instead+dearBy):
		return s, stood
	case g.client.o.Peers.rested(s.way(), now): // it may have become better
		return s, due
	}
	return nil, 0
}

// widen turns to the other shards, when there is room for their parts.
func (g *gather) widen(ctx context.Context) error {
	g.wide = true
	if g.need <= 1 {
		return nil
	}
	memory := g.bytes(g.want) * int64(g.need+1)
	g.client.counters.Degraded.Add(1)
	free, err := g.client.room(ctx, memory)
	g.free = free
	return err
}

// fillWide asks for as many of the others as are missing; if they are too few, for
// the shard itself, wherever it may be.
func (g *gather) fillWide(ctx context.Context, now time.Time) {
	for g.reachable() >= g.need && g.missing() > 0 {
		s, stood, _ := g.cheapest(g.isOther, now)
		if s == nil {
			break
		}
		g.launch(ctx, s, stood, now)
	}
	if g.missing() > 0 && !g.pending(g.want) {
		if s, stood, _ := g.cheapest(g.isWant, now); s != nil {
			g.launch(ctx, s, stood, now)
		}
	}
}

func (g *gather) isWant(s *site) bool  { return s.Index == g.want }
func (g *gather) isOther(s *site) bool { return s.Index != g.want }

// pending reports whether a shard's part is on its way, and nothing in its place.
func (g *gather) pending(index int) bool {
	return slices.ContainsFunc(g.running, func(a *attempt) bool { return a.site.Index == index && !a.replaced })
}

// open reports whether a place may be asked.
func (g *gather) open(s *site) bool {
	if s.running || s.out || s.tries == maxTries || g.bytes(s.Index) == 0 {
		return false
	}
	_, have := g.have[s.Index]
	return !have && !g.pending(s.Index)
}

// missing is how many of the others have to be asked yet.
func (g *gather) missing() int {
	n := g.need - len(g.have)
	seen := 0 // indices that are pending, as bits
	for _, a := range g.running {
		if bit := 1 << a.site.Index; a.site.Index != g.want && !a.replaced && seen&bit == 0 {
			seen |= bit
			n--
		}
	}
	return n
}

// reachable is how many of the others are here, on their way, or can be asked for.
func (g *gather) reachable() int {
	n := len(g.have)
	seen := 0
	for _, s := range g.sites {
		if bit := 1 << s.Index; s.Index != g.want && seen&bit == 0 && (s.running || g.open(s)) {
			seen |= bit
			n++
		}
	}
	return n
}

// cheapest returns which of the places that may be asked takes least, those behind
// the others that stand badly or failed. nil: there is none.
func (g *gather) cheapest(which func(*site) bool, now time.Time) (best *site, stood standing, cost time.Duration) {
	bad, least := 0, time.Duration(0)
	for _, s := range g.sites {
		if !which(s) || !g.open(s) {
			continue
		}
		bytes := g.bytes(s.Index)
		st, one, queued := g.client.o.Peers.standing(s.way(), bytes, bytes, now)
		worse := 4 * s.tries
		if s.doubted {
			worse += 2
		}
		if st == avoided {
			worse++
		}
		if best == nil || worse < bad || worse == bad && queued < least {
			best, stood, cost, bad, least = s, st, one, worse, queued
		}
	}
	return best, stood, cost
}

// others is what those of the other shards that are missing take, of good places; 0:
// there are too few.
func (g *gather) others(now time.Time) time.Duration {
	total := int64(g.missing()) * g.bytes(0)
	var costs []time.Duration
	seen := map[int]int{} // where in costs an index is
	for _, s := range g.sites {
		if !g.isOther(s) || s.doubted || s.tries > 0 || !g.open(s) {
			continue
		}
		st, cost, _ := g.client.o.Peers.standing(s.way(), g.bytes(s.Index), total, now)
		i, ok := seen[s.Index]
		switch {
		case st != good:
		case ok:
			costs[i] = min(costs[i], cost)
		default:
			seen[s.Index] = len(costs)
			costs = append(costs, cost)
		}
	}
	n := g.missing()
	if n < 1 || n > len(costs) {
		return 0
	}
	slices.Sort(costs)
	return costs[n-1]
}

// launch begins an attempt.
func (g *gather) launch(ctx context.Context, s *site, stood standing, now time.Time) {
	bytes := g.bytes(s.Index)
	g.client.counters.Asked.Add(1)
	g.client.counters.AskedBytes.Add(bytes)
	if g.extra > 0 {
		g.extra -= bytes
		g.client.counters.Hedged.Add(1)
		g.client.counters.HedgedBytes.Add(bytes)
	} else {
		g.client.budget.earn(bytes)
	}
	a := &attempt{site: s, x: g.client.o.Peers.begin(s.way(), bytes, stood, now)}
	// Whether a node that was bad is well again is no reader's loss: others are asked
	// too, if there are any.
	a.replaced = stood != good && g.instead > 0
	s.running = true
	g.running = append(g.running, a)
	go func() {
		a.got, a.err = g.ask(ctx, s.Place, a.x)
		g.results <- a
	}()
}

// take takes in how an attempt ended.
func (g *gather) take(ctx context.Context, a *attempt) {
	g.running = slices.DeleteFunc(g.running, func(b *attempt) bool { return b == a })
	s, now := a.site, time.Now()
	s.running = false
	if a.err == nil {
		a.x.answered(now)
		g.have[s.Index] = a.got
		return
	}
	if ctx.Err() != nil { // the reader has left, which says nothing of the node
		a.x.forget()
		return
	}
	switch fault.KindOf(a.err) {
	case fault.Unavailable, fault.Canceled, fault.Full, fault.Other:
		a.x.broke(now)
		s.tries++
		if now.Sub(a.x.started) >= answerWithin { // nothing waits for it twice
			s.tries = maxTries
		}
	default:
		if fault.Is(a.err, fault.Corrupt) || fault.Is(a.err, fault.NotFound) {
			a.x.answered(now) // as soon as it does
		} else {
			a.x.forget()
		}
		s.out = true
		g.rot = g.rot || fault.Is(a.err, fault.Corrupt)
		g.wrong(s.Place, a.err)
	}
	if g.failed == nil || hope(a.err) > hope(g.failed) {
		g.failed = a.err
	}
}

// hope is how much an error leaves.
func hope(err error) int {
	return slices.Index([]fault.Kind{fault.NotFound, fault.Denied, fault.Corrupt, fault.Full, fault.Unavailable}, fault.KindOf(err))
}

// failure is why it cannot be had.
func (g *gather) failure() error {
	if g.failed == nil {
		return fault.New(fault.NotFound, "recall: no node is known to hold it")
	}
	return g.failed
}

// wake is when to look whether an answer takes too long.
func (g *gather) wake() (at time.Time, ok bool) {
	for _, a := range g.running {
		if look := a.x.looks(); !a.replaced && (!ok || look.Before(at)) {
			at, ok = look, true
		}
	}
	return at, ok
}

// overdue replaces attempts that take too long: if the budget allows, once a fetch,
// else when they are as good as lost. For a node that was known to be bad no budget
// is needed.
func (g *gather) overdue(now time.Time) {
	for _, a := range g.running {
		if a.replaced {
			continue
		}
		a.replaced = true // what may be asked then
		instead, bytes := g.replacement(now)
		a.replaced = false
		switch a.x.judge(cmp.Or(instead, maxPatience), now) {
		case overdue:
			a.replaced = a.x.probe || instead > 0 && g.hedge(bytes)
		case lateNow:
			a.x.strike(now)
			a.replaced = true
		}
	}
}

// replacement is what would be asked for in the place of an attempt, at good places,
// and how long that takes; 0: there are too few.
func (g *gather) replacement(now time.Time) (cost time.Duration, bytes int64) {
	if !g.wide {
		if s, stood, cost := g.cheapest(g.isWant, now); s != nil && stood == good {
			return cost, g.bytes(g.want)
		}
	}
	return g.others(now), int64(g.missing()) * g.bytes(0)
}

// hedge reports whether bytes may be asked for beside what is expected.
func (g *gather) hedge(bytes int64) bool {
	if g.hedged || !g.client.budget.spend(bytes) {
		return false
	}
	g.hedged, g.extra = true, bytes
	return true
}
