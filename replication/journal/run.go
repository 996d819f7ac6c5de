package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

const (
	// maxFacts bounds the facts that are made before they are logged and told.
	maxFacts = 256
	// maxBacklog is how many batches wait for the network at most. Beyond it facts
	// are told to the catalogue here and left out of the log; once no more than
	// lowBacklog wait, they are made anew, one a series however often it grew.
	maxBacklog = 64
	lowBacklog = maxBacklog / 4
	// maxBound bounds the batches with what cannot be left out: facts after
	// operators' decisions.
	maxBound = 4 * maxBacklog
	// keepBatches is how many committed batches gather before the catalogue is
	// synced and their rows are dropped; keepTime, how long they may.
	keepBatches = 256
	keepTime    = 10 * time.Second
)

// Run drains until ctx ends: first it announces again what Source has beyond
// the durable cursor, then what Dirty names, and proposes what is logged. It
// returns nil when ctx ends; any other return means that the store or the
// catalogue failed, and that the process must end. It is called once.
func (j *Journal) Run(ctx context.Context, s Source, p Proposer) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		defer cancel()
		sent <- j.send(inner, p)
	}()
	err := j.drain(inner, s)
	cancel()
	if sending := <-sent; inner.Err() != nil && fault.KindOf(err) == fault.Canceled {
		err = sending
	} else {
		err = errors.Join(err, sending)
	}
	if ctx.Err() != nil {
		err = nil
	}
	j.end(err)
	return err
}

// end answers whoever waits.
func (j *Journal) end(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = fault.New(fault.Unavailable, "journal: not running")
	if err != nil {
		j.ended = fault.New(fault.Unavailable, "journal: not running: %w", err)
	}
	j.notifyLocked()
}

// drain is Run without the sender.
func (j *Journal) drain(ctx context.Context, s Source) error {
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
		if err := j.attend(); err != nil {
			return err
		}
		if err := j.announce(ctx, s); err != nil {
			return err
		}
		more, err := j.round(ctx, s)
		if err != nil {
			return err
		}
		if err := j.offer(ctx); err != nil {
			return err
		}
		if idle := j.idle(); idle >= keepBatches || idle > 0 && time.Since(pruned) > keepTime {
			if err := j.prune(); err != nil {
				return err
			}
			pruned = time.Now()
		}
		j.schedule(timer, more)
	}
}

// attend does what the sender, or who replaced the catalogue, has asked for.
func (j *Journal) attend() error {
	j.mu.Lock()
	renumber, retell := j.renumber, j.retell
	j.retell = false
	j.mu.Unlock()
	if renumber == nil && !retell {
		return nil
	}
	if renumber != nil {
		cursor, _, err := j.catalog.Cursor(j.o.Node)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if err := j.begin(cursor.Incarnation); err != nil {
			return err
		}
	} else {
		if err := j.reconcile(); err != nil {
			return err
		}
		j.mu.Lock()
		j.series.forget()
		if j.left != 0 {
			j.unmarked, j.announced = least(j.unmarked, j.left), false
			j.left, j.leftFacts = 0, 0
		}
		j.mu.Unlock()
	}
	poke(j.more)
	return nil
}

// least returns the lower of two local numbers, of which 0 is none.
func least(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// errFull ends a walk through the source: there is no room in the log.
var errFull = errors.New("the log is full")

// announce marks what the Source holds and neither the log nor the coalescer
// has, and sends it as it goes, for after a restore that may be everything. That
// is all of it at a start and in a new incarnation; later, what was left out of
// the log, as far as there is room.
func (j *Journal) announce(ctx context.Context, s Source) error {
	j.mu.Lock()
	whole := !j.announced
	if !whole {
		if j.left == 0 || j.backlogLocked() > lowBacklog {
			j.mu.Unlock()
			return nil
		}
		j.unmarked, j.left, j.leftFacts = j.left, 0, 0
	}
	after := j.unmarked - 1
	j.mu.Unlock()
	err := s.After(ctx, after, func(number uint64, study, series string) error {
		if !j.markAgain(seriesName{study, series}, number, whole) {
			return errFull
		}
		for ctx.Err() == nil && j.waiting() >= maxFacts {
			if _, err := j.round(ctx, s); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, errFull) {
		return fmt.Errorf("journal: announce again: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.left = least(j.left, j.unmarked)
		j.leftFacts++ // of at least one series
	}
	j.unmarked = 0
	if whole {
		j.announced = true
	}
	j.notifyLocked()
	return nil
}

// markAgain marks a series for the log at once, unless a fact of it that went
// out lately covers the number. It reports whether there is room for it.
func (j *Journal) markAgain(name seriesName, number uint64, whole bool) bool {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.unmarked = number // those before are marked, logged or left
	if !whole && j.backlogLocked() >= maxBacklog {
		return false
	}
	j.cursor.come(number, now)
	if j.series.covers(name, number, whole) {
		return true
	}
	p, _ := j.series.mark(name, number, now)
	p.since = j.lacking
	if p.failed == nil {
		p.due = now
	}
	return true
}

// backlogLocked is the number of batches that wait for the network.
func (j *Journal) backlogLocked() uint64 { return j.state.next - 1 - j.committed }

// waiting is the number of series that are due.
func (j *Journal) waiting() int {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, p := range j.series.dirty {
		if p.isDue(now) {
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
	if due := j.offered.due; !due.IsZero() && due.Before(j.wakeAt) {
		j.wakeAt = due
	}
	if more {
		j.wakeAt = now
	}
	timer.Reset(j.wakeAt.Sub(now))
}

// notifyLocked wakes whoever waits for something to land.
func (j *Journal) notifyLocked() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// idle is the number of batches that the network has and of which rows are kept,
// the last one left out.
func (j *Journal) idle() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return max(j.committed, j.state.oldest) - j.state.oldest
}

// prune syncs the catalogue and drops the rows of committed batches. The last
// one stays: with it a later start can ask whether the network still has them.
func (j *Journal) prune() error {
	j.mu.Lock()
	next, to := j.state, j.committed
	j.mu.Unlock()
	if to <= next.oldest {
		return nil
	}
	if err := j.catalog.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	dropped := to - next.oldest
	next.oldest = to
	b := j.db.NewBatch()
	defer b.Close()
	if err := errors.Join(b.DeleteRange(batchPrefix, batchKey(to), nil), b.Set(stateKey, next.encode(), nil), b.Commit(pebble.NoSync)); err != nil {
		return fmt.Errorf("journal: drop rows: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state, j.rows = next, slices.Clone(j.rows[dropped:])
	return nil
}
