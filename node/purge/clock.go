package purge

import (
	"context"
	"errors"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/node/work"
	"pelago/replication/catalog"
)

const (
	// A grace has ticksInGrace ticks about, but they are no closer than minTick and no
	// farther apart than maxTick: 30 days have 720, of some 200 bytes each.
	ticksInGrace = 720
	minTick      = time.Second
	maxTick      = time.Hour
	// laterTicks is how many ticks long others leave it to the leader.
	laterTicks = 3
	// lookTicks is how often in a tick the clock is looked at.
	lookTicks = 4
	// heardOf is how often a member says that it is there in the time after which it
	// would not count any more.
	heardOf = 45
)

// interval is how long a tick is.
func interval(t catalog.Terms) time.Duration {
	return min(max(t.Grace/ticksInGrace, minTick), maxTick)
}

// clock is what a node has seen of the network's clock.
type clock struct {
	known bool
	at    uint64        // seconds, where it stands
	since time.Duration // by Options.Monotonic: it stood there then
}

// look notes where the clock stands, and returns how long it has for certain: not longer
// than this node has seen it there. now is read after at.
func (c *clock) look(at uint64, now time.Duration) time.Duration {
	if !c.known || c.at != at || now < c.since {
		*c = clock{true, at, now}
	}
	return now - c.since
}

// Clock moves the network's clock, and says how far this node is when somebody waits for
// that, until ctx ends. What fails is tried again.
func (p *Purger) Clock(ctx context.Context, progress *work.Progress) error {
	for {
		terms, err := p.o.Catalog.Terms()
		if err != nil {
			return err
		}
		tick := interval(terms)
		for _, duty := range []func(context.Context, catalog.Terms) error{p.agreeTerms, p.tick, p.tell} {
			err := duty(ctx, terms)
			if err != nil && !passing(err) {
				return err
			}
			if errors.Is(err, errUnread) {
				progress.Note(err)
			}
		}
		if !pause.For(ctx, jitter(tick/lookTicks)) {
			return nil
		}
	}
}

// passing reports whether a failure is the network's or another's, and not this node's.
func passing(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Conflict, fault.Mismatch, fault.NotFound, fault.Canceled, fault.Denied,
		fault.Unsupported: // of a leader of an older version
		return true
	}
	return false
}

// agreeTerms has a network of one take this node's terms.
func (p *Purger) agreeTerms(ctx context.Context, now catalog.Terms) error {
	if p.o.Terms == now || p.o.Terms == (catalog.Terms{}) || !p.o.Alone() {
		return nil
	}
	p.o.Log.Info("the network takes this node's delete grace", "grace_seconds", int64(p.o.Terms.Grace.Seconds()))
	return p.decide(ctx, nil, &catalog.RegistryFact{Kind: catalog.KindPurge, Name: catalog.NameTerms, Value: p.o.Terms.Encode()})
}

// tick moves the clock by what has passed since this node saw it where it stands, if that
// is long enough.
func (p *Purger) tick(ctx context.Context, terms catalog.Terms) error {
	stands, err := p.o.Catalog.Clock()
	if err != nil {
		return err
	}
	passed, due := p.clock.look(stands.Seconds, p.o.Monotonic()), interval(terms)
	if !p.leads() {
		due = jitter(laterTicks * due)
	}
	if passed < due {
		return nil
	}
	if err := p.mayBegin(stands); err != nil {
		return err
	}
	seconds := uint64(min(passed, catalog.MaxTick) / time.Second) //nolint:gosec // not below 0
	if seconds == 0 {
		return nil
	}
	counted := time.Duration(seconds) * time.Second //nolint:gosec // bounded
	from := p.clock.since
	if passed > catalog.MaxTick {
		from = p.o.Monotonic() - counted // the rest is not made up for
	}
	if err := p.decide(ctx, nil, &catalog.TickFact{From: stands.Seconds, To: stands.Seconds + seconds}); err != nil {
		return err
	}
	// Where it stands now is accounted for up to then, and not up to the next look.
	p.clock = clock{true, stands.Seconds + seconds, from + counted}
	return nil
}

// tell says how far this node is, if a deletion waits for it, or to be counted on.
func (p *Purger) tell(ctx context.Context, terms catalog.Terms) error {
	stands, err := p.o.Catalog.Clock()
	if err != nil || stands.Seconds == 0 {
		return err
	}
	seen, err := p.o.Catalog.Seen(p.o.Node)
	if err != nil {
		return err
	}
	applied, dropped := p.o.Catalog.Applied(), p.Dropped()
	due := seen.Applied == 0 || stands.Seconds-min(seen.At, stands.Seconds) >= uint64((terms.Away/heardOf).Seconds())
	if !due {
		if due, err = p.awaited(ctx, stands, seen, dropped); err != nil {
			return err
		}
	}
	if !due {
		return nil
	}
	// What it says must still be true after a crash.
	if err := p.o.Catalog.Sync(); err != nil {
		return err
	}
	// Another generation may have taken the catalogue's place meanwhile.
	applied, dropped = min(applied, p.o.Catalog.Applied()), min(dropped, p.Dropped())
	if p.o.bug == bugDroppedBefore {
		dropped = applied
	}
	return p.decide(ctx, nil, &catalog.SeenFact{Applied: applied, Dropped: min(dropped, applied)})
}

// awaited reports whether a tombstone past its grace, or a key under which packs were
// purged, waits for this node.
func (p *Purger) awaited(ctx context.Context, stands catalog.Clock, seen catalog.Seen, dropped uint64) (bool, error) {
	for gone, err := range p.o.Catalog.Gone(ctx, seen.Dropped) {
		if err != nil {
			return false, err
		}
		if !gone.IsKey {
			return gone.Index <= dropped, nil
		}
	}
	for stone, err := range p.o.Catalog.Tombstones(ctx) {
		if err != nil {
			return false, err
		}
		if max(stone.Index, stands.First) <= seen.Applied {
			continue
		}
		if _, aged, err := p.o.Catalog.Age(stone); aged || err != nil {
			return aged, err
		}
	}
	return false, nil
}
