package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
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

// Proposer puts entries into the order that all nodes agree on.
type Proposer interface {
	// Propose returns once the entry is committed and applied at this node. After
	// an error it may be committed, or be committed yet. An index beside an error is
	// one up to which what is committed refuses the entry, and is applied here.
	Propose(ctx context.Context, entry []byte) (index uint64, err error)
}

// Options are whose journal it is.
type Options struct {
	Node   string // the id that facts and batches carry
	Site   string
	Signer catalog.Signer // of the node's key
	Packs  Packs          // keys and seals of this node; nil: it has none
}

// Journal is the log and the goroutines that drain it.
type Journal struct {
	o       Options
	db      *pebble.DB
	catalog *catalog.Catalog

	wake chan struct{} // to Run; capacity 1
	more chan struct{} // to the sender; capacity 1
	back chan struct{} // to the sender when it pauses; capacity 1

	// mu is held over no I/O. state and rows are changed by Run alone.
	mu        sync.Mutex
	state     state
	rows      []kept // of the batches from state.oldest on
	committed uint64 // number up to which the network has this incarnation's batches
	cursor    cursor
	series    coalescer
	unmarked  uint64        // instances from this local number on may be neither logged nor marked; 0: all are
	left      uint64        // least local number of a series that was left out of the log; 0: none was
	leftFacts uint64        // facts that were left out
	lacking   time.Time     // since when the log has lacked something, when it does
	wakeAt    time.Time     // when Run wakes by itself; zero: not before it is told
	changed   chan struct{} // closed and replaced when something has landed
	ended     error         // set when Run has ended
	announced bool          // Run has gone through what the Source held at the start
	renumber  error         // why this incarnation cannot go on
	retell    bool          // the catalogue is not the one that was told
	rejected  uint64
	sending   sending
	offered   offered // keys and seals
}

// sending is how proposals fare.
type sending struct {
	failed  error // of the last proposal; nil: it was committed
	since   time.Time
	refused error // the network does not take this node's batches
}

// Open reads the journal's rows from the node's store (key prefix "j/", no
// other package writes there) and tells the catalogue, as facts ahead of what is
// committed, those that it lacks. A log that the committed cursor contradicts is
// dropped, and a new incarnation begins. fault.Corrupt when rows fail their
// hashes or their chain.
func Open(db *pebble.DB, c *catalog.Catalog, o Options) (*Journal, error) {
	if o.Node == "" || o.Signer == nil {
		return nil, fault.New(fault.Invalid, "journal: a journal needs a node and its key")
	}
	j := &Journal{
		o: o, db: db, catalog: c, wake: make(chan struct{}, 1), more: make(chan struct{}, 1), back: make(chan struct{}, 1),
		series: newCoalescer(), changed: make(chan struct{}), state: newState(), lacking: time.Now(),
	}
	j.offered = j.atOnce()
	value, closer, err := db.Get(stateKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("journal: read state: %w", err)
	default:
		j.state, err = decodeState(value)
		if err := errors.Join(err, closer.Close()); err != nil {
			return nil, err
		}
	}
	j.cursor.base, j.unmarked = j.state.cursor, j.state.cursor+1
	if err := j.readRows(); err != nil {
		return nil, err
	}
	if err := j.reconcile(); err != nil {
		return nil, err
	}
	return j, nil
}

// readRows reads the batches that are kept and checks their chain.
func (j *Journal) readRows() error {
	number, previous, now := j.state.oldest, [hashBytes]byte{}, time.Now()
	err := j.each(number, func(at uint64, r row, b *catalog.Batch) error {
		if at != number || b.Number != number || b.Incarnation != j.state.incarnation || b.Node != j.o.Node ||
			number > j.state.oldest && r.previous != previous {
			return fault.New(fault.Corrupt, "journal: batch %d does not follow the one before", number)
		}
		j.rows = append(j.rows, kept{number, r.previous, r.hash, len(b.Facts), b.Len(), now})
		number, previous = number+1, r.hash
		return nil
	})
	if err != nil {
		return err
	}
	if number != j.state.next || len(j.rows) > 0 && previous != j.state.last || len(j.rows) == 0 && number != 1 {
		return fault.New(fault.Corrupt, "journal: ends at %d, not at %d", number, j.state.next)
	}
	return nil
}

// each reads the batches that are kept from a number on.
func (j *Journal) each(from uint64, do func(number uint64, r row, b *catalog.Batch) error) error {
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: batchKey(from), UpperBound: batchEnd})
	if err != nil {
		return fmt.Errorf("journal: read: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("journal: read: %w", err)
		}
		number, ok := batchNumber(it.Key())
		if !ok {
			return fault.New(fault.Corrupt, "journal: a key of %d bytes", len(it.Key()))
		}
		r, b, err := decodeBatch(append([]byte(nil), value...), j.o.Signer)
		if err == nil {
			err = do(number, r, b)
		}
		if err != nil {
			return fmt.Errorf("journal: batch %d: %w", number, err)
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("journal: read: %w", err)
	}
	return nil
}

// reconcile compares the log with what the network has of it, tells the
// catalogue what it lacks, or begins a new incarnation. Its callers are Open and
// Run.
func (j *Journal) reconcile() error {
	cursor, known, err := j.catalog.Cursor(j.o.Node)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	next, v := judge(cursor, known, j.state, j.rows)
	if v == foreign {
		return j.begin(cursor.Incarnation)
	}
	j.mu.Lock()
	j.committed = next - 1
	j.mu.Unlock()
	return j.each(next, func(_ uint64, _ row, b *catalog.Batch) error {
		j.retellLeaning(b.Facts)
		return j.catalog.Ahead(b.Facts)
	})
}

// retellLeaning has those series told anew whose logged facts lean on others: a
// catalogue that is behind may not have these yet.
func (j *Journal) retellLeaning(facts []*catalog.SeriesFact) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range facts {
		if f.Leans() {
			j.series.mark(seriesName{f.Study, f.Series}, noNumber, now)
		}
	}
}

// begin drops the log and begins an incarnation that neither this log nor the
// network has seen, in which everything is announced again.
func (j *Journal) begin(seen uint64) error {
	next := newState()
	next.incarnation = max(j.state.incarnation, seen) + 1
	if next.incarnation > maxIncarnation {
		return fault.New(fault.Full, "journal: there is no incarnation after %d", seen)
	}
	b := j.db.NewBatch()
	defer b.Close()
	err := errors.Join(b.DeleteRange(batchPrefix, batchEnd, nil), b.Set(stateKey, next.encode(), nil), b.Commit(pebble.Sync))
	if err != nil {
		return fmt.Errorf("journal: begin incarnation %d: %w", next.incarnation, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lacking = j.keptSinceLocked(); j.lacking.IsZero() {
		j.lacking = time.Now()
	}
	j.state, j.rows, j.committed = next, nil, 0
	j.unmarked, j.left, j.leftFacts, j.announced = 1, 0, 0, false
	j.renumber, j.retell = nil, false
	j.series.forget()
	j.offered = j.atOnce()
	return nil
}

// Dirty says that a series has changed by the instance of a local number. It
// never blocks on I/O and never fails; the first fact of a series is logged
// within 250 ms, then ever more rarely. It reports whether this is such a first
// one: then SeriesFact is soon asked for.
func (j *Journal) Dirty(number uint64, study, series string) (first bool) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cursor.come(number, now)
	p, first := j.series.mark(seriesName{study, series}, number, now)
	j.wakeByLocked(p.when())
	return first
}

// Again says that a series' fact must be made anew although no instance came:
// after a deletion, or an operator's decision. It never blocks on I/O. What it
// names is not announced again by a later start: the caller remembers it until
// Settle has returned, for then it is logged.
func (j *Journal) Again(study, series string) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wakeByLocked(j.series.bind(seriesName{study, series}, now).when())
}

// wakeByLocked wakes Run if it would sleep too long.
func (j *Journal) wakeByLocked(due time.Time) {
	if j.wakeAt.IsZero() || due.Before(j.wakeAt) {
		j.wakeAt = due
		poke(j.wake)
	}
}

// poke wakes whoever waits for a channel of capacity 1.
func poke(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// Ended says that no more of some studies is on its way (an association has
// ended): what is known of them is logged now, or a second after the last fact.
func (j *Journal) Ended(studies ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.series.end(studies, time.Now())
	poke(j.wake)
}

// Settle returns once the catalogue here knows everything named by Dirty before
// the call, and what the Source held beyond the durable cursor when Run began;
// what Again named is logged, too. It does not wait for the network.
// What the Source could not tell is an error, and is tried again later.
func (j *Journal) Settle(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	// What a start must announce is named only once Run has gone through it.
	if err := j.awaitLocked(ctx, func() bool { return j.announced }); err != nil {
		return err
	}
	sequence := j.series.force()
	poke(j.wake)
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

// Replaced says that the catalogue is not the one that was told any more: it was
// copied from another node. What it lacks of this one is told again.
func (j *Journal) Replaced() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.retell = true
	poke(j.wake)
}

// Retry says that the network may take batches again, somebody having come to lead
// it: who pauses after a failed proposal does not wait for longer. It never blocks.
func (j *Journal) Retry() { poke(j.back) }

// Behind yields the series that Run would announce first: those of instances
// that the Source holds beyond the durable cursor. It is for archives that are
// looked at without Run.
func (j *Journal) Behind(ctx context.Context, s Source, yield func(study, series string) error) error {
	j.mu.Lock()
	after := j.state.cursor
	j.mu.Unlock()
	return s.After(ctx, after, func(_ uint64, study, series string) error { return yield(study, series) })
}
