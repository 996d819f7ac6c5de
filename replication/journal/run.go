package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
)

const (
	// maxBatch bounds the facts of one batch: at most 3 KB each.
	maxBatch = 256
	// keepBatches is how many applied batches gather before the catalogue is
	// synced and their rows are dropped; keepTime, how long they may.
	keepBatches = 256
	keepTime    = 10 * time.Second
)

// Run drains until ctx ends: first it announces again what Source has beyond
// the durable cursor, then what Dirty names. It returns nil when ctx ends; any
// other return means that the store or the catalogue failed, and that the
// process must end. It is called once.
func (j *Journal) Run(ctx context.Context, s Source) (err error) {
	defer func() {
		if ctx.Err() != nil {
			err = nil
		}
		j.end(err)
	}()
	if err := j.announce(ctx, s); err != nil {
		return err
	}
	j.mu.Lock()
	j.announced = true
	j.notifyLocked()
	j.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	pruned := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.wake:
		case <-timer.C:
		}
		more, err := j.round(ctx, s)
		if err != nil {
			return err
		}
		if kept := j.kept(); kept >= keepBatches || kept > 0 && time.Since(pruned) > keepTime {
			if err := j.prune(); err != nil {
				return err
			}
			pruned = time.Now()
		}
		j.schedule(timer, more)
	}
}

// end answers whoever waits.
func (j *Journal) end(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = fault.New(fault.Unavailable, "journal: not running")
	if err != nil {
		j.ended = fault.New(fault.Unavailable, "journal: not running: %w", err)
	}
	for _, r := range j.requests {
		r.err = j.ended
		close(r.done)
	}
	j.requests = nil
	j.notifyLocked()
}

// announce marks what the Source holds beyond the durable cursor, and sends it
// as it goes, for after a restore that may be everything.
func (j *Journal) announce(ctx context.Context, s Source) error {
	j.mu.Lock()
	after := j.state.cursor
	j.mu.Unlock()
	err := s.After(ctx, after, func(number uint64, study, series string) error {
		j.Dirty(number, study, series)
		for ctx.Err() == nil && j.waiting() >= maxBatch {
			j.Flush()
			if _, err := j.round(ctx, s); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("journal: announce again: %w", err)
	}
	return nil
}

// waiting is the number of series that must be announced and have not failed.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, p := range j.series.dirty {
		if p.failed == nil {
			n++
		}
	}
	return n
}

// schedule sets the timer to when the next series is due.
func (j *Journal) schedule(timer *time.Timer, more bool) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wakeAt = now.Add(keepTime) // to drop rows of the last batches
	if due, ok := j.series.next(now); ok && due.Before(j.wakeAt) {
		j.wakeAt = due
	}
	if more {
		j.wakeAt = now
	}
	timer.Reset(j.wakeAt.Sub(now))
}

// round logs and applies one batch: requests first, then the series that are
// due. It reports whether more waits.
func (j *Journal) round(ctx context.Context, s Source) (more bool, err error) {
	j.mu.Lock()
	requests, commands := j.takeRequests()
	limit := max(0, maxBatch-len(commands))
	series := j.series.take(time.Now(), limit)
	more = len(series) == limit || len(j.requests) > 0
	j.mu.Unlock()
	asked := len(commands)
	var told []*pending
	var facts []*catalog.SeriesFact
	for _, p := range series {
		fact, err := s.SeriesFact(ctx, p.name.study, p.name.series)
		switch {
		case err == nil:
			if _, _, err = encodeBatch(state{}, []*catalog.SeriesFact{fact}, nil); err == nil {
				facts, told = append(facts, fact), append(told, p)
			}
		case fault.Is(err, fault.NotFound):
			err = nil
		}
		p.failed = err
	}
	results, err := j.commit(facts, commands, len(requests) > 0, series)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flying -= asked
	at := 0
	for _, r := range requests {
		if r.err = err; err == nil {
			r.results = results[at : at+len(r.commands) : at+len(r.commands)] // an append must not reach the next one's
		}
		at += len(r.commands)
		close(r.done)
	}
	if err != nil {
		return false, err
	}
	for i := range told {
		if results[asked+i] != nil {
			j.rejected++
		}
	}
	j.series.land(time.Now())
	j.notifyLocked()
	return more, nil
}

// notifyLocked wakes whoever waits for something to land.
func (j *Journal) notifyLocked() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// takeRequests returns requests that fit one batch, at least one if there is any.
func (j *Journal) takeRequests() ([]*request, []catalog.Command) {
	var commands []catalog.Command
	n := 0
	for _, r := range j.requests {
		if n > 0 && len(commands)+len(r.commands) > maxBatch {
			break
		}
		commands = append(commands, r.commands...)
		n++
	}
	taken := j.requests[:n:n]
	j.requests = j.requests[n:]
	j.flying += len(commands)
	return taken, commands
}

// commit makes a batch durable and applies it; with synced the catalogue is
// synced too.
func (j *Journal) commit(facts []*catalog.SeriesFact, commands []catalog.Command, synced bool, announced []*pending) ([]error, error) {
	if len(facts)+len(commands) == 0 {
		return nil, nil
	}
	next := j.nextState(len(facts)+len(commands), announced)
	j.mu.Lock()
	current := j.state
	j.mu.Unlock()
	row, hash, err := encodeBatch(current, facts, commands)
	if err != nil {
		return nil, err
	}
	next.last = hash
	b := j.db.NewBatch()
	defer b.Close()
	if err := errors.Join(b.Set(batchKey(current.next), row, nil), b.Set(stateKey, next.encode(), nil), b.Commit(pebble.Sync)); err != nil {
		return nil, fmt.Errorf("journal: log batch: %w", err)
	}
	j.mu.Lock()
	j.state = next
	j.mu.Unlock()
	if applied(j.catalog) >= current.next {
		return nil, fault.New(fault.Corrupt, "journal: the catalogue has seen batch %d before", current.next)
	}
	var changes []any
	for _, c := range commands {
		changes = append(changes, c)
	}
	for _, f := range facts {
		changes = append(changes, f)
	}
	results, err := alone.New(j.catalog).DoAs(current.next, changes...)
	if err != nil {
		return nil, fmt.Errorf("journal: batch %d: %w", current.next, err)
	}
	if synced {
		if err := j.catalog.Sync(); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// nextState returns the state after a batch of so many facts: with the cursor
// before all that still waits and all that could not be told.
func (j *Journal) nextState(facts int, announced []*pending) state {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := j.state
	next.next++
	next.nextFact += uint64(facts)
	j.cursor.advance(time.Now())
	to := j.cursor.base
	if lowest, ok := j.series.lowest(); ok {
		to = min(to, lowest-1)
	}
	for _, p := range announced {
		if p.failed != nil {
			to = min(to, p.lowest-1)
		}
	}
	next.cursor = max(next.cursor, to)
	return next
}

// kept is the number of batches whose rows are kept.
func (j *Journal) kept() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.next - j.state.oldest
}

// prune syncs the catalogue and drops the rows of applied batches.
func (j *Journal) prune() error {
	if err := j.catalog.Sync(); err != nil {
		return err
	}
	j.mu.Lock()
	next := j.state
	j.mu.Unlock()
	next.oldest = next.next
	b := j.db.NewBatch()
	defer b.Close()
	err := errors.Join(b.DeleteRange(batchPrefix, batchKey(next.oldest), nil), b.Set(stateKey, next.encode(), nil), b.Commit(pebble.NoSync))
	if err != nil {
		return fmt.Errorf("journal: drop rows: %w", err)
	}
	j.mu.Lock()
	j.state = next
	j.mu.Unlock()
	return nil
}
