package protect

import (
	"context"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

const (
	// freshFor is how long it counts that a pack was found to survive: so long a
	// request for very many instances may take to be gone through.
	freshFor = 15 * time.Second
	// forgetAfter is how long it is remembered that a pack is waited for when nobody
	// asks any more: who waits asks every minute.
	forgetAfter = 5 * time.Minute
	// maxWaiting bounds the packs and the series that are waited for, in memory. Who
	// comes on top asks again later.
	maxWaiting = 100_000
)

// waiting is a pack that somebody waits for.
type waiting struct {
	asked time.Time // last

	busy    bool
	seen    mark // of what was looked at last
	next    time.Time
	tries   int
	hurried time.Time
	heads   map[shard.Stripe]*stripe.Head // checked by their seals
	copied  time.Time                     // when this node's copy was read whole
	rotten  time.Time                     // when rot was met in it last

	found found
	why   error // of the last look
}

// mark is what a look at a pack rests on; another one is news.
type mark struct {
	state    *placement.State
	stripe   shard.Stripe
	revision uint64
}

// found is that a pack survives.
type found struct {
	at    time.Time // when the first question was sent; zero: it was not found
	mark  mark
	nodes []string // that have shown shards
}

// staged is a series of which somebody waits for instances that are not packed.
type staged struct {
	asked  time.Time
	tries  int       // of packing it
	packed time.Time // when that began which went well last; zero: none has, or none since
	next   time.Time // it is not packed before
}

// waits reports whether somebody waits for a series who has asked since it was packed.
func (s *staged) waits() bool { return s.packed.IsZero() || s.asked.After(s.packed) }

// Committed tells whether an instance that somebody sent here survives the loss of as
// many sites as the network promises, its own included (DESIGN §2). nil: it does, and
// did so within the last seconds. Errors are those of [archive.Archive.Committed], and
// fault.Unavailable: not yet, or it is not known. It does not wait: [Protect.Changed]
// tells when to ask again, and what is waited for is packed, spread and looked at
// first.
func (p *Protect) Committed(ctx context.Context, class, sop, sender string) error {
	st := p.o.Placement.State()
	if !st.Striped() {
		if err := p.alone(ctx); err != nil {
			// What fails for good needs no network to be told.
			if _, bad := p.o.Archive.Resting(ctx, class, sop, sender); bad != nil {
				return bad
			}
			return err
		}
		return p.o.Archive.Committed(ctx, class, sop, sender)
	}
	at, err := p.o.Archive.Resting(ctx, class, sop, sender)
	if err != nil {
		return err
	}
	if tried, most := p.awaitSeries(at.Staged); len(at.Staged) > 0 {
		// What packing has left where it is may be rotten there.
		if tried {
			if err := p.o.Archive.Committed(ctx, class, sop, sender); err != nil {
				return err
			}
		}
		return firstOf(most, fault.New(fault.Unavailable, "the instance is not packed yet"))
	}
	var why error
	for _, id := range at.Packs { // all of them, so that all are seen to at once
		why = firstOf(why, p.survives(st, id, at.Lost))
	}
	if why != nil && at.Lost {
		return p.lostHere(ctx, class, sop, sender, at, why)
	}
	return why
}

// lookedFor is how long [Protect.Survives] waits for those who are asked.
const lookedFor = 30 * time.Second

// Survives returns nil if a pack that arrived here survives the loss of as many sites
// as the network promises, by what its holders and members said within the last
// seconds: it asks them, and waits. fault.Unavailable says why it does not, or that it
// is not known yet. In a network of one site nothing survives in this sense.
func (p *Protect) Survives(ctx context.Context, id pack.ID) error {
	ctx, cancel := context.WithTimeout(ctx, lookedFor)
	defer cancel()
	for {
		changed := p.Changed()
		st := p.o.Placement.State()
		if !st.Striped() {
			return fault.New(fault.Unavailable, "packs are not striped")
		}
		err := p.survives(st, id, false)
		if err == nil || !fault.Is(err, fault.Unavailable) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// lostHere tells of an instance whose bytes were found rotten here: it is lost if
// nobody else was given any.
func (p *Protect) lostHere(ctx context.Context, class, sop, sender string, at archive.Resting, why error) error {
	v := p.o.Catalog.View()
	defer v.Close()
	for _, id := range at.Packs {
		seals, err := v.Pack(id)
		if err != nil || len(seals) > 0 {
			return firstOf(err, why)
		}
	}
	if err := p.o.Archive.Committed(ctx, class, sop, sender); err != nil {
		return err
	}
	return why
}

// survives returns nil if a pack was found to survive just now and nothing is known to
// have changed since. Else it is looked at soon. rotten: this node's copy of it, or of
// another pack of the instance, was met as rotten.
func (p *Protect) survives(st *placement.State, id pack.ID, rotten bool) error {
	v := p.o.Catalog.View()
	defer v.Close()
	now := time.Now()
	p.mu.Lock()
	w := p.packs[id]
	var f found
	if w != nil {
		w.asked, f = now, w.found
	}
	p.mu.Unlock()
	if w != nil && !f.at.IsZero() {
		good, err := p.stillGood(st, v, f, now, rotten)
		if good || err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w = p.packs[id]; w == nil {
		if len(p.packs) >= maxWaiting {
			return fault.New(fault.Unavailable, "%d packs are waited for already", len(p.packs))
		}
		w = &waiting{asked: now, why: errLooking}
		p.packs[id] = w
		poke(p.wake)
	}
	if !w.found.at.IsZero() && w.found.at.Equal(f.at) { // it was good once
		w.found, w.seen, w.next = found{}, mark{}, time.Time{}
		if rotten {
			w.copied = time.Time{}
		}
		w.why = fault.New(fault.Unavailable, "it is being asked again whether the pack survives")
		poke(p.wake)
	}
	if w.why == nil { // it was found just now: that is judged as any other is, when asked again
		return errLooking
	}
	return w.why
}

// CopyLost says that this node's copy of a pack turned out rotten or missing: it stands
// for no shard until it was read whole again.
func (p *Protect) CopyLost(id pack.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.packs[id]
	if w == nil {
		return
	}
	w.rotten, w.copied, w.found, w.why = time.Now(), time.Time{}, found{}, errLooking
	if !w.busy { // else who looks at it sees to that
		w.seen, w.next = mark{}, time.Time{}
		poke(p.wake)
	}
}

// stillGood reports whether what was found may still be said: for some seconds, and
// for as long as nothing is heard to the contrary. Gossip may take away what was
// found, and never adds to it.
func (p *Protect) stillGood(st *placement.State, v *catalog.View, f found, now time.Time, rotten bool) (bool, error) {
	if p.bug == bugOnceIsEnough {
		return true, nil
	}
	if now.Sub(f.at) > freshFor || f.mark.state != st {
		return false, nil
	}
	for _, node := range f.nodes {
		if _, counts := p.siteOf(st, node); !counts || node != p.o.Self && !p.o.Alive(node) {
			return false, nil
		}
	}
	seal, known, err := v.Stripe(f.mark.stripe)
	if rotten && known && seal.Origin == p.o.Self && seal.Virtual != catalog.NoShard {
		return false, err
	}
	return known && err == nil && seal.Revision == f.mark.revision, err
}

// awaitSeries notes that somebody waits for series to be packed. tried: that was tried
// before for all of them.
func (p *Protect) awaitSeries(names []archive.SeriesName) (tried bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	tried = true
	for _, name := range names {
		s := p.series[name]
		if s == nil {
			if len(p.series) >= maxWaiting {
				return false, fault.New(fault.Unavailable, "%d series are waited for already", len(p.series))
			}
			s = &staged{}
			p.series[name] = s
			poke(p.wakePk)
		}
		waited := s.waits()
		if s.asked = now; !waited {
			poke(p.wakePk)
		}
		tried = tried && s.tries > 0
	}
	return tried, nil
}
