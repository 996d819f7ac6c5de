package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// proposeTime bounds one proposal: an election and several round trips.
const proposeTime = 30 * time.Second

// send proposes what is logged, one batch after another, until ctx ends. What
// happened to a proposal is never guessed: the committed cursor tells.
func (j *Journal) send(ctx context.Context, p Proposer) error {
	var r retry
	for {
		number, entry, err := j.await(ctx)
		if err != nil || entry == nil {
			return err
		}
		standing, err := j.standing()
		if err != nil {
			return err
		}
		select { // of before this attempt
		case <-j.back:
		default:
		}
		index, failure := j.propose(ctx, p, entry)
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		agreed := failure == nil || index > 0 // what became of it is committed
		if agreed {
			if failure, err = j.learn(number, entry, index, failure); err != nil {
				return err
			}
		}
		denied := agreed && fault.Is(failure, fault.Denied)
		j.note(failure, denied)
		switch {
		case failure == nil:
			r.succeeded()
		case denied:
			if err := j.awaitStanding(ctx, standing); err != nil {
				return err
			}
		default:
			j.pause(ctx, &r)
		}
	}
}

// pause waits after a failed proposal: as long as r says, or until the network seems
// to be there again.
func (j *Journal) pause(ctx context.Context, r *retry) {
	ctx, cancel := context.WithTimeout(ctx, r.pause())
	defer cancel()
	least := time.NewTimer(minPause/2 + rand.N(minPause/2)) // not all nodes at the same moment
	defer least.Stop()
	j.awaitNetwork(ctx, r)
	select {
	case <-ctx.Done():
	case <-least.C:
	}
}

// awaitNetwork returns when somebody has come to lead the network, when entries are
// applied after none were, or when ctx ends.
func (j *Journal) awaitNetwork(ctx context.Context, r *retry) {
	for {
		changed := j.catalog.Changed()
		if r.stirs(j.catalog.Applied(), time.Now()) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-j.back:
			return
		case <-changed:
		}
	}
}

// await returns the batch that is to be proposed, once there is one; none when
// ctx ends.
func (j *Journal) await(ctx context.Context) (number uint64, entry []byte, err error) {
	for {
		number, err = j.choose()
		if err != nil {
			return 0, nil, err
		}
		if number != 0 {
			entry, err := j.entry(number)
			if err != nil || entry != nil {
				return number, entry, err
			}
		}
		select {
		case <-ctx.Done():
			return 0, nil, nil
		case <-j.more:
		}
	}
}

// choose returns the number of the batch that the network lacks; 0 if it has all
// of them, or if Run must act first.
func (j *Journal) choose() (uint64, error) {
	cursor, known, err := j.catalog.Cursor(j.o.Node)
	if err != nil {
		return 0, fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.renumber != nil {
		return 0, nil
	}
	next, v := judge(cursor, known, j.state, j.rows)
	if v == foreign {
		j.renumberLocked(fault.New(fault.Conflict, "journal: the network has batches that are not this log's"))
		return 0, nil
	}
	if next-1 < j.committed {
		j.retell = true // the catalogue went back
		poke(j.wake)
	}
	j.moveLocked(next - 1)
	if next == j.state.next {
		return 0, nil
	}
	return next, nil
}

// moveLocked notes up to where the network has the log.
func (j *Journal) moveLocked(committed uint64) {
	j.committed = committed
	if (j.left != 0 || j.offered.full) && j.backlogLocked() <= lowBacklog || committed >= j.state.oldest+keepBatches {
		poke(j.wake)
	}
}

// renumberLocked has Run begin a new incarnation.
func (j *Journal) renumberLocked(why error) {
	j.renumber = why
	poke(j.wake)
}

// entry reads a batch; none when it is not kept any more.
func (j *Journal) entry(number uint64) ([]byte, error) {
	value, closer, err := j.db.Get(batchKey(number))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: read batch %d: %w", number, err)
	}
	r, err := decodeRow(append([]byte(nil), value...))
	if err := errors.Join(err, closer.Close()); err != nil {
		return nil, fmt.Errorf("journal: batch %d: %w", number, err)
	}
	return r.entry, nil
}

func (j *Journal) propose(ctx context.Context, p Proposer, entry []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTime)
	defer cancel()
	return p.Propose(ctx, entry)
}

// learn finds out what became of a batch whose entry is applied here, or that was
// refused by what is: failure is nil when the network has it, or when a new
// incarnation begins.
func (j *Journal) learn(number uint64, entry []byte, index uint64, refusal error) (failure, err error) {
	var results []error
	if refusal == nil {
		results, _ = j.catalog.Results(index)
	}
	cursor, known, err := j.catalog.Cursor(j.o.Node)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	taken, failure := j.taken(number, cursor, known, results, refusal)
	if taken {
		return nil, j.tellRefusals(entry, results)
	}
	return failure, nil
}

// taken reports whether the network has taken a batch; if it has not, failure is as
// that of learn.
func (j *Journal) taken(number uint64, cursor catalog.Cursor, known bool, results []error, refusal error) (taken bool, failure error) {
	// Of the whole batch each fact has the same.
	if i := slices.IndexFunc(results, func(err error) bool { return err != nil }); i >= 0 {
		refusal = results[i]
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	next, v := judge(cursor, known, j.state, j.rows)
	switch {
	case v != fits || slices.ContainsFunc(j.ofSeriesLocked(number, results), unsupported):
		j.renumberLocked(fault.New(fault.Conflict, "journal: the network has other batches than this log"))
		return false, nil
	case next > number:
		j.moveLocked(next - 1)
		for _, result := range results {
			if fault.Is(result, fault.Invalid) {
				j.rejected++
			}
		}
		return true, nil
	case refusal == nil:
		return false, fault.New(fault.Unavailable, "journal: batch %d is not taken", number)
	}
	return false, fault.New(fault.KindOf(refusal), "journal: batch %d is refused: %w", number, refusal)
}

// ofSeriesLocked returns those of a batch's results that are of facts of series.
func (j *Journal) ofSeriesLocked(number uint64, results []error) []error {
	if number < j.state.oldest || number >= j.state.next {
		return results
	}
	return results[:min(len(results), j.rows[number-j.state.oldest].series)]
}

// unsupported reports whether a fact leans on what the network does not know: it
// lacks what this node was told it had, and is told everything again.
func unsupported(result error) bool { return fault.Is(result, fault.NotFound) }

// note keeps how the last proposal fared.
func (j *Journal) note(failure error, denied bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.sending
	switch {
	case failure == nil:
		*s = sending{}
	case s.failed == nil:
		s.since = time.Now()
		fallthrough
	default:
		s.failed, s.refused = failure, nil
		if denied {
			s.refused = failure
		}
	}
	j.notifyLocked()
}

// standing is what the catalogue knows of this node, on which alone it depends
// whether the network takes its batches.
func (j *Journal) standing() (string, error) {
	all := ""
	for _, kind := range [...]string{catalog.KindMember, catalog.KindRevoked} {
		record, err := j.catalog.RegistryRecord(kind, j.o.Node)
		if err != nil {
			return "", fmt.Errorf("journal: %w", err)
		}
		all += fmt.Sprintf("%x\n", record)
	}
	return all, nil
}

// awaitStanding returns when that has changed, or ctx has ended.
func (j *Journal) awaitStanding(ctx context.Context, before string) error {
	for {
		changed := j.catalog.Changed()
		now, err := j.standing()
		if err != nil || now != before {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
