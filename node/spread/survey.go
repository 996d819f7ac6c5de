package spread

import (
	"context"
	"slices"
	"time"

	"pelago/cluster/pause"
	"pelago/node/archive/archivepb"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/pack"
)

const (
	// surveyEvery is how often all packs are compared with their rows although nothing
	// has changed: what nobody was told of comes to light.
	surveyEvery = 6 * time.Hour
	// surveySlice is how many packs are looked at between two pauses, and surveyPause
	// how long these are while somebody sends; else a tenth of it.
	surveySlice = 256
	surveyPause = 100 * time.Millisecond
	// maxRank is above what a pack may survive.
	maxRank = 17
)

// survey compares packs with rows when the placement has changed, and now and then.
func (s *Spread) survey(ctx context.Context, progress *work.Progress) error {
	for ctx.Err() == nil {
		if state := s.o.Placement.State(); state.Striped() {
			if err := s.surveyOnce(ctx, state, progress); err != nil {
				if ctx.Err() != nil {
					return nil //nolint:nilerr // it was cut short
				}
				return err
			}
		}
		timer := time.NewTimer(surveyEvery)
		select {
		case <-ctx.Done():
		case <-s.look:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// surveyOnce puts every pack that lacks something in line; of more than there is room
// for, those that survive least.
func (s *Spread) surveyOnce(ctx context.Context, state *placement.State, progress *work.Progress) error {
	s.mu.Lock()
	s.queue.beyond, s.queue.beyondBytes = 0, 0
	s.mu.Unlock()
	var ranks [maxRank + 1]int
	full := false
	if err := s.forgetTold(ctx); err != nil {
		return err
	}
	err := s.eachLacking(ctx, state, progress, func(it *item) {
		ranks[rankOf(it)]++
		s.mu.Lock()
		if !s.queue.add(it) {
			full = true
		}
		s.mu.Unlock()
	})
	if err != nil || !full {
		poke(s.wake)
		return err
	}
	return s.surveyLeast(ctx, state, progress, ranks)
}

// surveyLeast makes room in the line for the packs that survive least.
func (s *Spread) surveyLeast(ctx context.Context, state *placement.State, progress *work.Progress, ranks [maxRank + 1]int) error {
	most, count := 0, 0
	for r, n := range ranks {
		if count += n; count >= maxItems {
			most = r
			break
		}
	}
	s.mu.Lock()
	for id, it := range s.queue.items {
		if rankOf(it) > most && !it.flying && !it.hurried.Load() && !it.fresh {
			s.queue.beyond++
			s.queue.beyondBytes += it.bytes
			delete(s.queue.items, id)
		}
	}
	s.mu.Unlock()
	err := s.eachLacking(ctx, state, progress, func(it *item) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if rankOf(it) > most || s.queue.items[it.id] != nil || len(s.queue.items) >= maxItems {
			return // it was counted
		}
		s.queue.items[it.id] = it
		s.queue.beyond--
		s.queue.beyondBytes -= it.bytes
	})
	poke(s.wake)
	return err
}

func rankOf(it *item) int { return min(max(it.survives, -1), maxRank-1) + 1 }

// eachLacking visits the packs that lack something.
func (s *Spread) eachLacking(ctx context.Context, state *placement.State, progress *work.Progress, visit func(*item)) error {
	seen := int64(0)
	return s.o.Packs.EachPack(ctx, pack.ID{}, func(p *archivepb.Pack) (bool, error) {
		if seen++; seen%surveySlice == 0 {
			progress.Set(seen, 0)
			rest := surveyPause / 10
			if s.o.Packs.Busy() {
				rest = surveyPause
			}
			if !pause.For(ctx, rest) || s.o.Placement.State() != state {
				return false, context.Cause(ctx)
			}
		}
		it, err := s.lacking(state, p)
		if err != nil { // the others must not wait for it
			s.o.Log.Error("a pack's stripes cannot be looked at", "pack", pack.ID(p.Id), "error", err)
			return true, nil
		}
		if it != nil {
			visit(it)
		}
		return true, nil
	})
}

// lacking returns what a pack waits for; nil: it has all that it should have, and the
// network knows.
func (s *Spread) lacking(state *placement.State, p *archivepb.Pack) (*item, error) {
	if p.Lost {
		return nil, nil
	}
	now := time.Now()
	it := &item{id: pack.ID(p.Id), bytes: p.BlobBytes, since: now, survives: -1, due: now}
	if err := s.reconcile(it.id); err != nil {
		return nil, err
	}
	rows, err := s.ledger.stripes(it.id)
	if err != nil {
		return nil, err
	}
	r := latest(rows)
	if r == nil {
		return it, nil
	}
	for _, row := range rows {
		if row.head != nil {
			it.survives = max(it.survives, row.seal.Spare())
		}
	}
	seals, err := s.sealsOf(it.id)
	if err != nil {
		return nil, err
	}
	w := job{pack: p, state: state, before: seals, at: slices.Clone(r.at), head: r.head, virtual: r.seal.Virtual}
	w.uncut()
	for _, row := range rows[:len(rows)-1] {
		w.earlier = max(w.earlier, min(row.seal.Spare(), r.seal.Code.M))
	}
	switch {
	case outgrown(r.seal.Code, state.Code.For(p.BlobBytes), state), len(w.lacks()) > 0, r.number == 0, r.told != r.seal.Revision, w.withdraws(&r.seal):
		return it, nil
	}
	return nil, s.again(r, seals)
}

// again has a stripe told once more that the catalogue lacks, or what of it: it is on
// its way, or was refused while nobody heard of it. What is known by then is not told.
func (s *Spread) again(r *record, seals []catalog.Seal) error {
	for i := range seals {
		if c := &seals[i]; c.Stripe == r.seal.Stripe && (c.Revision >= r.seal.Revision || same(&c.SealFact, &r.seal)) {
			return nil
		}
	}
	if time.Since(s.began) < settleWithin {
		return nil // the journal tells first what it has
	}
	if err := s.ledger.againKey(r.seal.Key, []shard.Stripe{r.seal.Stripe}); err != nil {
		return err
	}
	s.o.Offer()
	return nil
}

// forgetTold drops the rows of other nodes' stripes, which [Spread.Tell] wrote, once the
// catalogue has what they say, or what came after it, or the stripe is gone for good:
// they are there to be told and for nothing else. What it does not have after a while
// is told once more: it is on its way, or was refused while nobody heard of it, and
// would be taken for told for ever.
func (s *Spread) forgetTold(ctx context.Context) error {
	for after := keyStripe(shard.Stripe{}); ; {
		var of []shard.Stripe
		more := false
		err := s.o.Rows.From(after, func(key string, value []byte) (bool, error) {
			at, ok := stripeOf(key)
			if !ok || len(of) == surveySlice {
				more = ok
				return false, nil
			}
			after = key + "\x00"
			r, err := decodeRecord(at, value)
			if err != nil { // the others must not wait for it
				s.o.Log.Error("the row of a stripe cannot be read", "stripe", at.String(), "error", err)
			} else if r.head == nil {
				of = append(of, at)
			}
			return true, nil
		})
		if err == nil {
			err = s.forget(of)
		}
		if err != nil || !more {
			return err
		}
		rest := surveyPause / 10
		if s.o.Packs.Busy() {
			rest = surveyPause
		}
		if !pause.For(ctx, rest) {
			return context.Cause(ctx)
		}
	}
}

// forget decides of rows of other nodes' stripes.
func (s *Spread) forget(of []shard.Stripe) error {
	told, err := s.ledger.change(of, func(_ int, r *record) (*record, verdict, error) {
		if r == nil || r.head != nil {
			return r, leave, nil // this node has encoded it since
		}
		seals, err := s.sealsOf(r.seal.Stripe.Pack)
		if err != nil {
			return nil, leave, err
		}
		if len(seals) == 0 {
			index, err := s.o.Catalog.Purged(r.seal.Stripe.Pack)
			if err != nil || index > 0 {
				return r, drop, err
			}
		} else if r.seal.Stripe.Generation <= seals[0].Withdrawn {
			return r, drop, nil
		}
		for i := range seals {
			if c := &seals[i]; c.Stripe == r.seal.Stripe && c.Revision >= r.seal.Revision {
				return r, drop, nil
			}
		}
		if time.Since(s.began) < settleWithin {
			return r, leave, nil // the journal tells first what it has
		}
		return r, tell, nil
	})
	if told {
		s.o.Offer()
	}
	return err
}

// settleWithin is what the journal gets, after a start, to tell what it has.
const settleWithin = 10 * time.Minute
