package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// PackFact is what the network must learn of this node's packs: a key or a seal, one
// of the two.
type PackFact struct {
	Key  *catalog.KeyFact
	Seal *catalog.SealFact
}

// Packs are the durable rows of that, by ascending numbers from 1: a row that changes
// gets a number above all others, a key has a lower one than the first seal that needs
// it, and no row comes to be below one that was yielded. Rows are kept for as long as
// the network should have what they say, for a new incarnation tells it again.
type Packs interface {
	// After yields the rows above a number, ascending, until yield returns an error.
	After(ctx context.Context, number uint64, yield func(number uint64, f PackFact) error) error
	// Refused says that the network has not taken a fact, and why, as
	// catalog.Results has it: what is in the catalogue is then to be read, and to be
	// told otherwise, or not. A seal that is told as news (IsNews) has only its names
	// and what may change. The journal's goroutines call it, and wait for it. What was
	// refused while nobody heard the answer is not told: whoever must be sure compares
	// with the catalogue.
	Refused(f PackFact, why error)
}

// maxPackBacklog is how many batches wait for the network at most if keys and seals are
// logged: what is known of series goes first, and finds room in the log.
const maxPackBacklog = maxBacklog / 2

// offered is when keys and seals are looked for.
type offered struct {
	due  time.Time // zero: once Offer is called, or there is room
	full bool      // there may be rows for which there was no room
}

// atOnce has a start, and a new incarnation, look for all of them.
func (j *Journal) atOnce() offered {
	if j.o.Packs == nil {
		return offered{}
	}
	return offered{due: time.Now()}
}

// Offer says that Packs has a new row, which is logged soon. It never blocks on I/O.
func (j *Journal) Offer() {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.o.Packs == nil {
		return
	}
	if j.offered.due.IsZero() {
		j.offered.due = now.Add(gather)
	}
	j.wakeByLocked(j.offered.due)
}

// offer logs a run of keys and seals, if they are due and there is room. It is due
// again at once if there may be more.
func (j *Journal) offer(ctx context.Context) error {
	since, may := j.mayOffer()
	if !may {
		return nil
	}
	var facts []PackFact
	to := j.state.packs
	err := j.o.Packs.After(ctx, to, func(number uint64, f PackFact) error {
		if number <= to || (f.Key == nil) == (f.Seal == nil) {
			return fault.New(fault.Invalid, "journal: row %d of a key or a seal after %d is none", number, to)
		}
		facts, to = append(facts, f), number
		if len(facts) == maxFacts {
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return fmt.Errorf("journal: read keys and seals: %w", err)
	}
	if len(facts) == 0 {
		return nil
	}
	if err := j.logPacks(facts, to, since); err != nil {
		return err
	}
	poke(j.more)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(facts) == maxFacts {
		j.offered.due = time.Now()
	}
	j.notifyLocked()
	return nil
}

// mayOffer reports whether rows are to be looked for now, and since when the log has
// lacked them.
func (j *Journal) mayOffer() (since time.Time, may bool) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	o, most := &j.offered, uint64(maxPackBacklog)
	since = now
	if o.full {
		since, most = j.lacking, lowBacklog+1
	} else if o.due.IsZero() || o.due.After(now) {
		return since, false
	}
	if j.backlogLocked() >= most {
		if !j.lacksLocked() {
			j.lacking = now
		}
		*o = offered{full: true}
		return since, false
	}
	*o = offered{}
	return since, true
}

// logPacks makes facts durable that the catalogue lacks, as log does, and with them
// that all rows up to a number are.
func (j *Journal) logPacks(facts []PackFact, to uint64, since time.Time) error {
	rest, err := j.lacked(facts)
	if err != nil {
		return err
	}
	j.mu.Lock()
	next, added := j.state, []kept(nil)
	j.mu.Unlock()
	b := j.db.NewBatch()
	defer b.Close()
	for len(rest) > 0 {
		r, n, err := j.encodePacks(next, rest)
		if err != nil {
			j.o.Packs.Refused(rest[0], err)
			rest = rest[1:]
			continue
		}
		if err := b.Set(batchKey(next.next), r.encode(), nil); err != nil {
			return fmt.Errorf("journal: log batch: %w", err)
		}
		added = append(added, kept{number: next.next, previous: r.previous, hash: r.hash, facts: n, since: since})
		next.next, next.last, rest = next.next+1, r.hash, rest[n:]
	}
	next.packs = to
	durable := pebble.Sync
	if len(added) == 0 { // what is forgotten is found known again
		durable = pebble.NoSync
	}
	if err := errors.Join(b.Set(stateKey, next.encode(), nil), b.Commit(durable)); err != nil {
		return fmt.Errorf("journal: log batch: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state, j.rows = next, append(j.rows, added...)
	return nil
}

// lacked returns the facts that the catalogue lacks, as they should be told.
func (j *Journal) lacked(facts []PackFact) ([]PackFact, error) {
	var lacks []PackFact
	for _, f := range facts {
		var told bool
		var err error
		if f.Key != nil {
			told, err = j.catalog.LacksKey(f.Key)
		} else {
			f.Seal, err = j.catalog.News(f.Seal)
			told = f.Seal != nil
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if told {
			lacks = append(lacks, f)
		}
	}
	return lacks, nil
}

// encodePacks returns the batch of as many of the facts as fit into one; the error is
// the first one's.
func (j *Journal) encodePacks(s state, facts []PackFact) (r row, n int, err error) {
	r.previous = s.last
	for n = len(facts); n > 0; n /= 2 {
		b := catalog.Batch{Node: j.o.Node, Site: j.o.Site, Incarnation: s.incarnation, Number: s.next}
		for _, f := range facts[:n] {
			if f.Key != nil {
				b.Keys = append(b.Keys, f.Key)
			} else {
				b.Seals = append(b.Seals, f.Seal)
			}
		}
		if r.entry, r.hash, err = catalog.EncodeBatch(j.o.Signer, b, s.last); err == nil {
			break
		}
	}
	return r, n, err
}

// tellRefusals tells Packs what the network has not taken of a batch.
func (j *Journal) tellRefusals(entry []byte, results []error) error {
	if j.o.Packs == nil || errors.Join(results...) == nil {
		return nil
	}
	e, err := catalog.DecodeEntry(entry)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for i, result := range results {
		i -= len(e.Batch.Facts)
		switch {
		case i < 0 || result == nil:
		case i < len(e.Batch.Keys):
			j.o.Packs.Refused(PackFact{Key: e.Batch.Keys[i]}, result)
		case i < len(e.Batch.Keys)+len(e.Batch.Seals):
			j.o.Packs.Refused(PackFact{Seal: e.Batch.Seals[i-len(e.Batch.Keys)]}, result)
		}
	}
	return nil
}
