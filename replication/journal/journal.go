package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
)

// Source computes facts from the instances that this node holds.
type Source interface {
	// SeriesFact returns the absolute values of a series at this moment;
	// fault.NotFound when nothing of it was ever here.
	SeriesFact(ctx context.Context, study, series string) (*catalog.SeriesFact, error)
	// After yields, in ascending order, the (study, series) of instances with
	// local numbers above after: what a start must announce again.
	After(ctx context.Context, after uint64, yield func(number uint64, study, series string) error) error
}

// Journal is the log and the goroutine that drains it.
type Journal struct {
	db      *pebble.DB
	catalog *catalog.Catalog

	wake chan struct{} // to Run; capacity 1

	mu        sync.Mutex
	state     state
	cursor    cursor
	series    coalescer
	wakeAt    time.Time // when Run wakes by itself; zero: not before it is told
	requests  []*request
	flying    int           // commands of requests under way
	changed   chan struct{} // closed and replaced when something has landed
	ended     error         // set when Run has ended
	announced bool          // Run has gone through what the Source held at the start
	rejected  uint64
}

// request is an Append under way.
type request struct {
	commands []catalog.Command
	results  []error
	err      error
	done     chan struct{}
}

// Open reads the journal's rows from the node's store (key prefix "j/", no
// other package writes there) and applies to the catalogue what it lacks of
// them. fault.Corrupt when rows fail their hashes, or when the catalogue is
// older than what the journal has dropped: it was restored without the store.
func Open(db *pebble.DB, c *catalog.Catalog) (*Journal, error) {
	j := &Journal{
		db: db, catalog: c, wake: make(chan struct{}, 1), series: newCoalescer(), changed: make(chan struct{}),
		state: state{incarnation: 1, oldest: 1, next: 1, nextFact: 1},
	}
	row, closer, err := db.Get(stateKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("journal: read state: %w", err)
	default:
		j.state, err = decodeState(row)
		if err := errors.Join(err, closer.Close()); err != nil {
			return nil, err
		}
	}
	j.cursor.base = j.state.cursor
	if applied := applied(c); applied+1 < j.state.oldest {
		return nil, fault.New(fault.Corrupt, "journal: the catalogue stands at %d, the journal begins at %d", applied, j.state.oldest)
	}
	if err := j.replay(); err != nil {
		return nil, err
	}
	if applied := applied(c); applied >= j.state.next {
		// The store was restored from before the catalogue: go on under numbers,
		// and an incarnation, that nobody has seen.
		j.state.incarnation++
		j.state.oldest, j.state.next, j.state.last = applied+1, applied+1, [32]byte{}
		if err := db.DeleteRange(batchPrefix, []byte("j/c"), pebble.NoSync); err != nil {
			return nil, fmt.Errorf("journal: drop rows: %w", err)
		}
		if err := db.Set(stateKey, j.state.encode(), pebble.Sync); err != nil {
			return nil, fmt.Errorf("journal: write state: %w", err)
		}
	}
	return j, nil
}

// applied is the number of the last batch that the catalogue has applied.
func applied(c *catalog.Catalog) uint64 { return c.Applied() / alone.Stride }

// replay checks the chain of the batches that are kept and applies those that
// the catalogue has not.
func (j *Journal) replay() error {
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: batchPrefix, UpperBound: []byte("j/c")})
	if err != nil {
		return fmt.Errorf("journal: read: %w", err)
	}
	defer it.Close()
	number, previous := j.state.oldest, []byte(nil)
	for it.First(); it.Valid(); it.Next() {
		b, changes, hash, err := decodeBatch(it.Value())
		if err != nil {
			return fmt.Errorf("journal: batch %d: %w", number, err)
		}
		if b.Number != number || !bytes.Equal(it.Key(), batchKey(number)) || previous != nil && !bytes.Equal(b.Previous, previous) {
			return fault.New(fault.Corrupt, "journal: batch %d does not follow the one before", number)
		}
		if number > applied(j.catalog) {
			if _, err := alone.New(j.catalog).DoAs(number, changes...); err != nil {
				return fmt.Errorf("journal: batch %d: %w", number, err)
			}
		}
		number, previous = number+1, hash[:]
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("journal: read: %w", err)
	}
	if number != j.state.next || previous != nil && !bytes.Equal(previous, j.state.last[:]) {
		return fault.New(fault.Corrupt, "journal: ends at %d, not at %d", number, j.state.next)
	}
	return nil
}

// Dirty says that a series has changed by the instance of a local number. It
// never blocks on I/O and never fails; the first fact of a series goes out
// within 250 ms, then at most one a second doubling to 30 s. It reports whether
// this is such a first one: then SeriesFact is soon asked for.
func (j *Journal) Dirty(number uint64, study, series string) (first bool) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cursor.come(number, now)
	return j.markLocked(seriesName{study, series}, number, now)
}

// Again says that a series' fact must be made anew although no instance came:
// after a deletion, or an operator's decision. It never blocks on I/O. What it
// names is not announced again by a later start: the caller remembers it until
// Settle has returned.
func (j *Journal) Again(study, series string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// No local number: the cursor does not wait for it.
	j.markLocked(seriesName{study, series}, math.MaxUint64, time.Now())
}

// markLocked notes a change and wakes Run if it would sleep too long.
func (j *Journal) markLocked(name seriesName, number uint64, now time.Time) (first bool) {
	due, first := j.series.mark(name, number, now)
	if j.wakeAt.IsZero() || due.Before(j.wakeAt) {
		j.wakeAt = due
		j.poke()
	}
	return first
}

// poke wakes Run.
func (j *Journal) poke() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Flush lets the facts of the series out now (an association has ended).
func (j *Journal) Flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.series.force()
	j.poke()
}

// Settle returns once everything named by Dirty before the call is applied, and
// what the Source held beyond the durable cursor when Run began.
// What the Source could not tell is an error, and is tried again later.
func (j *Journal) Settle(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	// What a start must announce is named only once Run has gone through it.
	if err := j.awaitLocked(ctx, func() bool { return j.announced }); err != nil {
		return err
	}
	sequence := j.series.force()
	j.poke()
	var failed error
	if err := j.awaitLocked(ctx, func() (settled bool) {
		settled, failed = j.series.settled(sequence)
		return settled
	}); err != nil {
		return err
	}
	if failed != nil {
		return fault.New(fault.Unavailable, "journal: a series cannot be announced: %w", failed)
	}
	return nil
}

// awaitLocked waits until done reports true after something has landed, ctx
// ends, or Run has.
func (j *Journal) awaitLocked(ctx context.Context, done func() bool) error {
	for !done() {
		if j.ended != nil {
			return j.ended
		}
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-ctx.Done():
			j.mu.Lock()
			return fault.New(fault.KindOf(ctx.Err()), "journal: settle: %w", ctx.Err())
		case <-changed:
		}
		j.mu.Lock()
	}
	return nil
}

// maxAppend bounds one Append: it is one batch.
const maxAppend = 4096

// Append logs other commands and returns their results once applied and
// synced. When ctx ends first they may still be applied.
func (j *Journal) Append(ctx context.Context, commands ...catalog.Command) ([]error, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	if len(commands) > maxAppend {
		return nil, fault.New(fault.Unsupported, "journal: %d commands at once", len(commands))
	}
	if _, err := catalog.EncodeDecision(unsigned{}, "n", nil, commands); err != nil {
		return nil, err
	}
	r := &request{commands: commands, done: make(chan struct{})}
	j.mu.Lock()
	if j.ended != nil {
		err := j.ended
		j.mu.Unlock()
		return nil, err
	}
	j.requests = append(j.requests, r)
	j.poke()
	j.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, fault.New(fault.KindOf(ctx.Err()), "journal: append: %w", ctx.Err())
	case <-r.done:
		return r.results, r.err
	}
}

// Pending is the number of facts not yet applied everywhere: of series that
// must be announced, and of commands under way.
func (j *Journal) Pending() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.series.dirty) + len(j.series.flying) + j.flying
	for _, r := range j.requests {
		n += len(r.commands)
	}
	return uint64(n)
}

// Behind yields the series that Run would announce first: those of instances
// that the Source holds beyond the durable cursor. It is for archives that are
// looked at without Run.
func (j *Journal) Behind(ctx context.Context, s Source, yield func(study, series string) error) error {
	j.mu.Lock()
	after := j.state.cursor
	j.mu.Unlock()
	return s.After(ctx, after, func(_ uint64, study, series string) error { return yield(study, series) })
}

// Rejected is the number of facts that the catalogue refused as invalid since
// the start: a fault of the Source.
func (j *Journal) Rejected() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rejected
}
