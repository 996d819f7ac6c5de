package archive

import (
	"context"
	"errors"
	"time"

	"pelago/cluster/fault"
	"pelago/node/work"
)

// reclaimEvery is how often tables are looked through for those that are worth
// being rewritten without their dead.
const reclaimEvery = 10 * time.Minute

// eraseEvery is how long files of staging that wait to be used again keep bytes
// of what was released: far less than any grace.
const eraseEvery = time.Hour

// Tasks is the archive's background work, in starting order. Without it
// instances are taken in and served, but not found, packed or purged.
func (a *Archive) Tasks() []work.Task {
	again := &work.Restart{}
	every := purgeEvery
	if a.o.Graces != nil {
		every = min(every, max(a.o.Grace/purgeRounds, time.Second))
	}
	return []work.Task{
		{Name: "disk_watch", Run: a.watch},
		{Name: "journal", Run: func(ctx context.Context, _ *work.Progress) error {
			return a.journal.Run(ctx, facts{a, &a.said}, a.o.Propose)
		}},
		{Name: "finish_left", Run: a.finishLeft, Restart: again},
		{Name: "tombstones", Run: a.followTombstones, Restart: again},
		{Name: "mend", Run: a.runMender, Restart: again},
		{Name: "pack", Run: a.runPacker},
		{Name: "purge", Restart: again, Run: work.Every(every, a.purgeRound())},
		{Name: "erase", Restart: again, Run: work.Every(eraseEvery, func(ctx context.Context, _ *work.Progress) error {
			return a.observe("erase", func() error { return a.staging.Erase(ctx) })
		})},
		{Name: "reclaim", Restart: again, Run: work.Every(reclaimEvery, a.reclaim)},
	}
}

// Run runs the archive's tasks alone until ctx ends or the node must end; it
// returns when all its goroutines have. It is called once, and not together
// with [Archive.Tasks].
func (a *Archive) Run(ctx context.Context) error {
	return work.New(a.log, a.Tasks()...).Run(ctx)
}

// watch returns when nothing may be acknowledged any more.
func (a *Archive) watch(ctx context.Context, _ *work.Progress) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.staging.Failed():
		a.die(fault.New(fault.Unavailable, "staging: a write or fsync failed"))
	case <-a.fatal:
	}
	return a.fatalErr
}

// finishLeft finishes what the end of the last process cut short, and from then on
// what decisions left whose outcome nobody was told.
func (a *Archive) finishLeft(ctx context.Context, _ *work.Progress) error {
	if err := errors.Join(a.againLeft(ctx), a.settleLeft(ctx)); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-a.undecided:
			if !a.awaitDecision(ctx, d.before) {
				return nil
			}
			a.deciding.end(d.changed)
			if err := a.againLeft(ctx); err != nil {
				return err
			}
		}
	}
}

// reclaim rewrites tables of which much is dead. It needs no lock: bulk keeps
// every reference good meanwhile.
func (a *Archive) reclaim(ctx context.Context, p *work.Progress) error {
	err := a.observe("reclaim", func() error {
		freed, err := a.bulk.Reclaim(ctx)
		p.Add(freed)
		return err
	})
	if fault.Is(err, fault.Full) {
		p.Note(err) // there is no room to make room; tables that die wholly still go
		return nil
	}
	return err
}

// observe tells how long a piece of work took.
func (a *Archive) observe(name string, do func() error) error {
	began := time.Now()
	err := do()
	a.o.Observe(name, time.Since(began), err)
	return err
}
