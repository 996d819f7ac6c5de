package protect

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/pack"
	"pelago/shard/stripe"
)

const (
	// maxLook is how many packs are looked at together: as many leaves a call asks for.
	maxLook = 128
	// lookers is how many such looks may be under way: nodes that do not answer hold up
	// one, and not those who ask about others.
	lookers = 4
	// A pack that was not found to survive is looked at again after lookAgain, doubling
	// to lookAgainMost, and whenever its seal or the layout has changed.
	lookAgain     = 250 * time.Millisecond
	lookAgainMost = 30 * time.Second
	// hurryEvery is how often the spread is told again that somebody waits.
	hurryEvery = 30 * time.Second
)

// runLooking looks at packs that somebody waits for, when they are new, when their
// seals have changed, and now and then.
func (p *Protect) runLooking(ctx context.Context, progress *work.Progress) error {
	places := make(chan struct{}, lookers)
	var under sync.WaitGroup
	defer under.Wait()
	for ctx.Err() == nil {
		catalogue, spread, placed := p.o.Catalog.Changed(), p.o.Spread.Changed(), p.o.Placement.Changed()
		began := time.Now()
		due, hurry, wait, err := p.duePacks(began)
		progress.Note(err)
		if len(hurry) > 0 {
			p.o.Spread.Hurry(hurry...)
		}
		for chunk := range slices.Chunk(due, maxLook) {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			under.Go(func() {
				p.look(ctx, chunk)
				<-places
				poke(p.wake)
			})
		}
		took := time.Since(began)
		waitFor(ctx, wait, p.wake, catalogue, spread, placed)
		// Changes come by the hundred; what is waited for is gone through once for all.
		waitFor(ctx, max(gather, 5*took))
	}
	return nil
}

// errLooking is why a pack that is being looked at is not committed, whatever was found
// before.
var errLooking = fault.New(fault.Unavailable, "it is being asked whether the pack survives")

// duePacks takes the packs that are to be looked at now, and those that are to be
// spread first; else it says how long there is nothing to do.
func (p *Protect) duePacks(now time.Time) (due []*candidate, hurry []pack.ID, wait time.Duration, err error) {
	st := p.o.Placement.State()
	v := p.o.Catalog.View()
	defer v.Close()
	p.mu.Lock()
	ids := make([]pack.ID, 0, len(p.packs))
	for id, w := range p.packs {
		if now.Sub(w.asked) > forgetAfter && !w.busy {
			delete(p.packs, id)
		} else if !w.busy {
			ids = append(ids, id)
		}
	}
	p.mu.Unlock()
	wait = lookAgainMost
	for _, id := range ids {
		c, why, failed := candidateOf(st, v, id)
		if failed != nil {
			return nil, nil, lookAgain, failed
		}
		p.mu.Lock()
		w := p.packs[id]
		switch {
		case c == nil: // there is nothing to ask yet
			w.why, w.seen, w.found = why, mark{}, found{}
			if w.hurried.IsZero() || now.Sub(w.hurried) >= hurryEvery {
				w.hurried = now
				hurry = append(hurry, id)
			}
		case c.mark == w.seen && w.next.After(now):
			wait = min(wait, w.next.Sub(now))
		case c.mark == w.seen && !w.found.at.IsZero(): // until somebody asks again
		default:
			if c.mark != w.seen {
				w.tries = 0
			}
			w.busy, w.seen, w.found, w.why = true, c.mark, found{}, errLooking
			c.head, c.copied = w.heads[c.seal.Stripe], w.copied
			due = append(due, c)
		}
		p.mu.Unlock()
	}
	return due, hurry, wait, nil
}

// candidate is a stripe that is looked at.
type candidate struct {
	id       pack.ID
	mark     mark
	seal     catalog.Seal
	head     *stripe.Head // nil: it is not here yet
	survives int
	evidence evidence
	found    [shard.MaxShards]search
	copied   time.Time // when this node's copy was read whole; zero: it was not
	why      error     // why it was not found to survive
}

// search is what became of looking for a shard at all places where it may be.
type search struct {
	lacking string // a node that does not have it
	unsure  bool   // somebody did not answer
}

// candidateOf chooses the stripe of a pack that may survive what the network promises:
// the latest that has receipts for it by its seal. Why there is none is for people.
func candidateOf(st *placement.State, v *catalog.View, id pack.ID) (c *candidate, why, err error) {
	seals, err := v.Pack(id)
	switch {
	case err != nil:
		return nil, nil, err
	case !st.Striped():
		return nil, fault.New(fault.Unavailable, "the network has no layout any more"), nil
	case len(seals) == 0:
		return nil, fault.New(fault.Unavailable, "the pack is not sealed yet"), nil
	}
	t := max(st.Survives, 0)
	for i := range seals {
		s := &seals[i]
		have := bits.OnesCount16(s.Receipts)
		if have >= s.Code.K+t && s.Code.M >= t {
			return &candidate{id: id, mark: mark{st, s.Stripe, s.Revision}, seal: *s, survives: t}, nil, nil
		}
		if why == nil {
			why = fault.New(fault.Unavailable, "%v has receipts for %d shards, of %d that it takes to lose %d sites", s.Stripe, have, s.Code.K+t, t)
		}
	}
	return nil, why, nil
}

// look finds out of some stripes whether they survive, and notes it.
func (p *Protect) look(ctx context.Context, all []*candidate) {
	began := time.Now()
	err := p.assess(ctx, all)
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	good := 0
	for _, c := range all {
		w := p.packs[c.id]
		w.busy, w.copied = false, c.copied
		rot := !w.rotten.Before(began) // met while it was looked at
		if rot {
			w.copied = time.Time{}
		}
		if c.head != nil {
			w.heads = map[shard.Stripe]*stripe.Head{c.seal.Stripe: c.head}
		}
		if w.why = firstOf(err, c.why); w.why == nil && rot {
			w.why = errLooking
		}
		if w.why == nil {
			good++
			w.tries, w.next = 0, time.Time{}
			w.found = found{began, c.mark, c.nodes()}
			continue
		}
		w.next = time.Now().Add(min(lookAgainMost, lookAgain<<min(w.tries, 20)))
		w.tries++
	}
	p.mu.Unlock()
	if good > 0 {
		p.notify()
	}
}

// nodes are those that have shown shards.
func (c *candidate) nodes() []string {
	var nodes []string
	for _, s := range c.evidence.shards {
		nodes = append(nodes, s.node)
	}
	slices.SortFunc(nodes, cmp.Compare)
	return slices.Compact(nodes)
}
