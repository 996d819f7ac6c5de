package spread

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"time"

	"pelago/cluster/fault"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/replication/journal"
	"pelago/shard"
	"pelago/shard/pack"
)

// newsAfter is how long receipts that come later wait to be told with others.
const newsAfter = 30 * time.Second

// After implements [journal.Packs].
func (s *Spread) After(ctx context.Context, number uint64, yield func(number uint64, f journal.PackFact) error) error {
	return s.o.Rows.From(keyFact(number+1), func(key string, value []byte) (bool, error) {
		at, ok := numberOf(key)
		if !ok {
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		f, err := s.fact(string(value))
		if err != nil { // the others are told
			s.o.Log.Error("what is to be told of a pack cannot be read", "number", at, "error", err)
			return true, nil
		}
		if f == (journal.PackFact{}) {
			return true, nil
		}
		return true, yield(at, f)
	})
}

// fact reads what a row names; none if it is gone since.
func (s *Spread) fact(key string) (f journal.PackFact, err error) {
	if of, ok := stripeOf(key); ok {
		r, err := s.ledger.stripe(of)
		if err != nil || r == nil {
			return f, err
		}
		return journal.PackFact{Seal: &r.seal}, nil
	}
	var id [16]byte
	if len(key) != 1+len(id) || key[0] != rowKey {
		return f, fault.New(fault.Corrupt, "spread: a row that names nothing")
	}
	copy(id[:], key[1:])
	k, err := s.o.Keys.Wrapped(id)
	if fault.Is(err, fault.NotFound) { // forgotten, with all that it opened
		return f, nil
	}
	if err != nil {
		return f, err
	}
	return journal.PackFact{Key: &catalog.KeyFact{Origin: s.o.Self, Study: k.Study, ID: k.ID, Epoch: k.Epoch, Wrapped: k.Wrapped}}, nil
}

// Tell has the network learn of a stripe, this node's or another's: durably, when it
// returns. By is this node, and Base the revision that was read in the catalogue.
// fault.Conflict if this node knows a later revision, which was or is about to be
// told: who tells news reads again, and decides anew. What the network refuses of
// other nodes' stripes is forgotten: who told it sees in the catalogue that it is not
// there.
func (s *Spread) Tell(f *catalog.SealFact) error {
	if f.By != s.o.Self || f.Stripe.Generation == 0 || f.Code.Check() != nil || len(f.Elsewhere) > f.Code.N() || bits.Len16(f.Receipts) > f.Code.N() {
		return fault.New(fault.Invalid, "spread: not a seal that this node can tell")
	}
	state := s.o.Placement.State()
	_, err := s.ledger.change([]shard.Stripe{f.Stripe}, func(_ int, r *record) (*record, verdict, error) {
		switch {
		case r == nil:
			return &record{seal: *f}, tell, nil
		case r.seal.Root != f.Root || r.seal.Code != f.Code:
			return nil, leave, fault.New(fault.Conflict, "spread: %v is another stripe here", f.Stripe)
		case same(&r.seal, f) && f.Revision <= r.seal.Revision:
			// What is said again of a later revision is not known: another node has told
			// otherwise in between.
			return r, leave, nil
		case f.Revision <= r.seal.Revision:
			return nil, leave, fault.New(fault.Conflict, "spread: revision %d of %v is told, %d is known", f.Revision, f.Stripe, r.seal.Revision)
		}
		r.seal = *f
		if r.head != nil {
			r.at = holdersOf(state, f, r.at)
		}
		return r, tell, nil
	})
	if err != nil {
		return err
	}
	s.o.Offer()
	s.notify()
	return nil
}

// Purged forgets packs that the network has given up for good, durably: nothing of
// them is told again.
func (s *Spread) Purged(packs ...pack.ID) error {
	var of []shard.Stripe
	for _, id := range packs {
		rows, err := s.ledger.stripes(id)
		if err != nil {
			return err
		}
		for _, r := range rows {
			of = append(of, r.seal.Stripe)
		}
	}
	_, err := s.ledger.change(of, func(_ int, r *record) (*record, verdict, error) { return r, drop, nil })
	return err
}

// same reports whether two sayings of a stripe are one.
func same(a, b *catalog.SealFact) bool {
	return a.Layout == b.Layout && a.Receipts == b.Receipts && a.Virtual == b.Virtual && slices.Equal(a.Elsewhere, b.Elsewhere) && a.Withdrawn == b.Withdrawn
}

// refusal is a fact that the network has not taken.
type refusal struct {
	fact journal.PackFact
	why  error
}

// maxRefused is how many refusals are remembered; of those above the survey finds what
// is to be done.
const maxRefused = 4096

// Refused implements [journal.Packs]. The driver deals with it.
func (s *Spread) Refused(f journal.PackFact, why error) {
	s.mu.Lock()
	if len(s.refused) < maxRefused {
		s.refused = append(s.refused, refusal{f, why})
	} else {
		poke(s.look)
	}
	s.mu.Unlock()
	poke(s.wake)
}

// answerRefusals reads the catalogue about what was refused, and goes on from there.
func (s *Spread) answerRefusals() error {
	s.mu.Lock()
	all := s.refused
	s.refused = nil
	s.mu.Unlock()
	for _, r := range all {
		if r.fact.Key != nil {
			s.o.Log.Error("the network does not take a study key", "key", r.fact.Key.ID, "error", r.why)
			continue
		}
		if err := s.answerRefusal(r.fact.Seal, r.why); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spread) answerRefusal(f *catalog.SealFact, why error) error {
	of := f.Stripe
	r, err := s.ledger.stripe(of)
	if err != nil || r == nil {
		return err
	}
	s.o.Log.Info("the network does not take a seal; what it has is read", "stripe", of.String(), "error", why)
	if r.head == nil { // who told it reads the catalogue
		_, err := s.ledger.change([]shard.Stripe{of}, func(_ int, r *record) (*record, verdict, error) {
			if r != nil && r.head == nil {
				return r, drop, nil
			}
			return r, leave, nil
		})
		return err
	}
	again, err := s.mayTellAgain(of)
	if err != nil {
		return err
	}
	if again && fault.Is(why, fault.NotFound) && !f.IsNews() { // its key is not known
		err := s.ledger.againKey(r.seal.Key, []shard.Stripe{of})
		s.o.Offer()
		return err
	}
	return s.compare(of.Pack, again)
}

// againAfter is how long what the catalogue lacks and was refused is not told again
// although it was refused once more: it may be so for ever, as of a pack that was
// purged. The survey tells it after that.
const againAfter = 10 * time.Minute

// mayTellAgain reports whether a stripe that was refused may be told once more at
// once, and notes that it is. One whose pack was purged may not.
func (s *Spread) mayTellAgain(of shard.Stripe) (bool, error) {
	if index, err := s.o.Catalog.Purged(of.Pack); err != nil || index > 0 {
		return false, err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.retold[of]; known && now.Sub(at) < againAfter {
		return false, nil
	}
	if len(s.retold) >= maxRefused {
		clear(s.retold)
	}
	s.retold[of] = now
	return true, nil
}

// compare brings what is known of a pack's stripes in line with what is committed of
// them, and has the pack looked at if anything is left to be done. again: what the
// catalogue lacks was refused, and is told once more.
func (s *Spread) compare(id [16]byte, again bool) error {
	seals, err := s.sealsOf(id)
	if err != nil {
		return err
	}
	if len(seals) == 0 { // what was purged is refused for ever
		if index, err := s.o.Catalog.Purged(id); err != nil || index > 0 {
			return errors.Join(err, s.Purged(id))
		}
	}
	rows, err := s.ledger.stripes(id)
	if err != nil || len(rows) == 0 {
		return err
	}
	state := s.o.Placement.State()
	var of []shard.Stripe
	for _, r := range rows {
		if r.head != nil {
			of = append(of, r.seal.Stripe)
		}
	}
	told, err := s.ledger.change(of, func(_ int, r *record) (*record, verdict, error) {
		return s.settle(state, r, seals, again)
	})
	if told {
		s.o.Offer()
	}
	if err == nil {
		s.enqueue([]pack.ID{id}, false)
	}
	return err
}

func (s *Spread) sealsOf(id [16]byte) ([]catalog.Seal, error) {
	v := s.o.Catalog.View()
	seals, err := v.Pack(id)
	return seals, errors.Join(err, v.Close())
}

// settle compares a stripe of this node's pack with what is committed of the pack.
func (s *Spread) settle(state *placement.State, r *record, seals []catalog.Seal, again bool) (*record, verdict, error) {
	if r == nil || len(seals) == 0 {
		return r, retold(r, again), nil
	}
	if r.seal.Stripe.Generation <= seals[0].Withdrawn {
		return r, drop, nil // a later one stands in its place
	}
	i := slices.IndexFunc(seals, func(c catalog.Seal) bool { return c.Stripe == r.seal.Stripe })
	if i < 0 {
		return r, retold(r, again), nil
	}
	c := &seals[i].SealFact
	switch {
	case c.Root != r.seal.Root || c.Code != r.seal.Code:
		s.o.Log.Warn("another stripe is sealed under the name of one of this node's; the next generation follows", "stripe", c.Stripe.String(), "by", c.By)
		return r, drop, nil
	case same(c, &r.seal):
		if r.seal.Revision >= c.Revision && c.By == s.o.Self {
			return r, leave, nil
		}
		// By the committed revision, whatever was told here: whoever goes on from it
		// (Tell) would else be taken for late, for ever.
		r.seal.Revision, r.seal.Base, r.told = c.Revision, c.Revision, c.Revision
		return r, note, nil
	case c.Revision < r.seal.Revision && (c.By == s.o.Self || r.seal.Base == c.Revision):
		return r, retold(r, again), nil // it goes on from what is committed
	}
	// Another node has told since, or this one in a life that store/ has forgotten: it
	// goes on from what is committed. Whose receipts are not there is asked again.
	r.at = holdersOf(state, c, r.at)
	withdrawn, survives := r.seal.Withdrawn, r.seal.Survives
	r.seal.Layout, r.seal.Receipts, r.seal.Virtual, r.seal.Elsewhere = c.Layout, c.Receipts, c.Virtual, c.Elsewhere
	r.seal.Revision, r.seal.Base, r.seal.Withdrawn, r.seal.Survives = c.Revision, c.Revision, withdrawn, survives
	r.told = c.Revision // a higher one that was told here is refused: its base is another
	return r, note, nil
}

// retold is the verdict about what the catalogue lacks.
func retold(r *record, again bool) verdict {
	if r != nil && again && r.number > 0 {
		return tell
	}
	return leave
}

// flush tells news that has waited, and returns when the next has.
func (s *Spread) flush(now time.Time) (next time.Time, err error) {
	var due []shard.Stripe
	s.mu.Lock()
	for of, since := range s.untold {
		switch at := since.Add(newsAfter); {
		case !at.After(now):
			due = append(due, of)
			delete(s.untold, of)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	s.mu.Unlock()
	told, err := s.ledger.change(due, func(_ int, r *record) (*record, verdict, error) {
		if r == nil || r.number > 0 && r.told == r.seal.Revision {
			return r, leave, nil
		}
		return r, tell, nil
	})
	if told {
		s.o.Offer()
		s.notify()
	}
	return next, err
}
