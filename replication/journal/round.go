package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// A fact's AsOf grows with the incarnation first: what a node said in an earlier
// one is older, whatever its local numbers were then.
const (
	localBits      = 44
	maxIncarnation = 1 << (64 - localBits)
)

// asOf returns the AsOf of a fact that covers a local number.
func asOf(incarnation, number uint64) uint64 { return (incarnation-1)<<localBits | number }

// round makes the facts of the series that are due, logs them, and tells the
// catalogue here. It reports whether more wait.
func (j *Journal) round(ctx context.Context, s Source) (more bool, err error) {
	now := time.Now()
	j.mu.Lock()
	series := j.series.take(now, maxFacts)
	backlog := j.backlogLocked()
	j.mu.Unlock()
	if len(series) == 0 {
		return false, nil
	}
	for _, p := range series {
		p.fate, p.failed = j.prepare(ctx, s, p, aim(p, now, backlog))
	}
	if err := j.log(series); err != nil {
		return false, err
	}
	if err := j.tell(series); err != nil {
		return false, err
	}
	poke(j.more)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range series {
		if p.fate == left && p.lowest != noNumber { // without a number it is in the log already
			if !j.lacksLocked() {
				j.lacking = time.Now()
			}
			j.left = least(j.left, p.lowest)
			j.leftFacts++
		}
	}
	j.series.land(time.Now())
	j.notifyLocked()
	return len(series) == maxFacts, nil
}

// aim says what is to become of a series that was taken.
func aim(p *pending, now time.Time, backlog uint64) fate {
	switch {
	case p.bound && backlog >= maxBound:
		return failed
	case p.bound, p.isDue(now) && backlog < maxBacklog:
		return logged
	case p.isDue(now):
		return left
	}
	return told
}

// prepare makes the fact of a series, unless it is at hand.
func (j *Journal) prepare(ctx context.Context, s Source, p *pending, to fate) (fate, error) {
	if to == failed {
		return failed, fault.New(fault.Unavailable, "journal: %d batches wait for the network", maxBound)
	}
	if p.fact != nil {
		return to, nil
	}
	fact, err := s.SeriesFact(ctx, p.name.study, p.name.series)
	if fault.Is(err, fault.NotFound) {
		return logged, nil // there is nothing to say
	}
	if err == nil {
		err = check(fact)
	}
	if err != nil {
		return failed, err
	}
	p.asOf = fact.AsOf
	fact.AsOf = asOf(j.state.incarnation, fact.AsOf)
	p.fact = fact
	return to, nil
}

// check refuses what no entry can carry.
func check(f *catalog.SeriesFact) error {
	if f.AsOf >= 1<<localBits {
		return fault.New(fault.Invalid, "journal: a fact as of local number %d", f.AsOf)
	}
	for _, s := range append([]string{f.Study, f.Series}, f.Classes...) {
		if !utf8.ValidString(s) {
			return fault.New(fault.Invalid, "journal: a fact with a UID that is no text")
		}
	}
	return nil
}

// log makes the facts that are to be logged durable, in as many batches as they
// need. One that no batch takes has failed.
func (j *Journal) log(series []*pending) error {
	var rest []*pending
	for _, p := range series {
		if p.fate == logged && p.fact != nil {
			rest = append(rest, p)
		}
	}
	// Of one study together, so that they can be told by what differs.
	slices.SortFunc(rest, func(a, b *pending) int {
		return cmp.Or(cmp.Compare(a.name.study, b.name.study), cmp.Compare(a.name.series, b.name.series))
	})
	j.mu.Lock()
	next, added, known := j.state, []kept(nil), j.backlogLocked() == 0
	j.mu.Unlock()
	b := j.db.NewBatch()
	defer b.Close()
	for len(rest) > 0 {
		r, n, err := j.encode(next, rest, known && len(added) == 0)
		if err != nil {
			rest[0].fate, rest[0].failed, rest[0].fact = failed, err, nil
			rest = rest[1:]
			continue
		}
		if err := b.Set(batchKey(next.next), r.encode(), nil); err != nil {
			return fmt.Errorf("journal: log batch: %w", err)
		}
		added = append(added, kept{next.next, r.previous, r.hash, n, n, lackedSince(rest[:n])})
		next.next, next.last, rest = next.next+1, r.hash, rest[n:]
	}
	if len(added) == 0 {
		return nil
	}
	next.cursor = j.reach(series)
	if err := errors.Join(b.Set(stateKey, next.encode(), nil), b.Commit(pebble.Sync)); err != nil {
		return fmt.Errorf("journal: log batch: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state, j.rows = next, append(j.rows, added...)
	return nil
}

// lackedSince is since when the log has lacked what is logged now.
func lackedSince(series []*pending) time.Time {
	since := time.Now()
	for _, p := range series {
		if !p.since.IsZero() && p.since.Before(since) {
			since = p.since
		}
	}
	return since
}

// encode returns the batch of as many of the facts as fit into one; the error is
// the first one's. When the network has all batches before it, facts are told by
// what differs from what it knows.
func (j *Journal) encode(s state, series []*pending, known bool) (r row, n int, err error) {
	r.previous = s.last
	for n = len(series); n > 0; n /= 2 {
		facts := make([]*catalog.SeriesFact, n)
		for i, p := range series[:n] {
			facts[i] = p.fact
		}
		if known {
			if facts, err = j.catalog.Shorten(facts); err != nil {
				return r, 0, err
			}
		}
		r.entry, r.hash, err = catalog.EncodeBatch(j.o.Signer, catalog.Batch{
			Node: j.o.Node, Site: j.o.Site, Incarnation: s.incarnation, Number: s.next, Facts: facts,
		}, s.last)
		if err == nil {
			break
		}
	}
	return r, n, err
}

// reach returns the local number up to which everything is logged once those of
// the series taken are that are to be.
func (j *Journal) reach(series []*pending) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cursor.advance(time.Now())
	to := min(j.cursor.base, j.series.lowest()-1)
	if open := least(j.unmarked, j.left); open != 0 {
		to = min(to, open-1)
	}
	for _, p := range series {
		if p.fate != logged {
			to = min(to, p.lowest-1)
		}
	}
	return max(j.state.cursor, to)
}

// tell gives the catalogue here what it does not know.
func (j *Journal) tell(series []*pending) error {
	var facts []*catalog.SeriesFact
	for _, p := range series {
		if p.fate != failed && p.fact != nil && p.untold != 0 {
			facts = append(facts, p.fact)
		}
	}
	if len(facts) == 0 {
		return nil
	}
	if err := j.catalog.Ahead(facts); err != nil {
		return fmt.Errorf("journal: tell the catalogue: %w", err)
	}
	return nil
}
