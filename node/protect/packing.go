package protect

import (
	"context"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/node/archive"
	"pelago/node/work"
)

const (
	// gather is how long what is waited for may gather, so that series of a request
	// share a table, and packs a call.
	gather = 20 * time.Millisecond
	// maxSeries bounds the series that are packed by one call.
	maxSeries = 1000
	// packAgain is how long what comes to a series after it was packed may gather: each
	// time makes a pack. Packing that failed is tried again after packRetry, doubling to
	// packRetryMost.
	packAgain     = 3 * time.Second
	packRetry     = 5 * time.Second
	packRetryMost = 5 * time.Minute
)

// runPacking packs what somebody waits for.
func (p *Protect) runPacking(ctx context.Context, progress *work.Progress) error {
	for ctx.Err() == nil {
		began := time.Now()
		due, wait := p.dueSeries(began)
		if len(due) == 0 {
			waitFor(ctx, wait, p.wakePk)
			if !pause.For(ctx, gather) {
				return nil
			}
			continue
		}
		err := p.o.Archive.PackSeries(ctx, due...)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was cut short
		}
		progress.Note(err)
		if err != nil {
			p.o.Log.Warn("series that storage commitment waits for are not packed", "series", len(due), "error", err, "kind", fault.KindOf(err).String())
		}
		p.packedSeries(due, began, err)
		p.notify()
	}
	return nil
}

// dueSeries takes the series that are to be packed now, or says how long there is none.
func (p *Protect) dueSeries(now time.Time) (due []archive.SeriesName, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = time.Minute
	for name, s := range p.series {
		switch {
		case now.Sub(s.asked) > forgetAfter:
			delete(p.series, name)
		case !s.waits():
		case s.next.After(now):
			wait = min(wait, s.next.Sub(now))
		case len(due) < maxSeries:
			due = append(due, name)
		}
	}
	return due, wait
}

// packedSeries notes what became of packing that began at a time. What is packed is left
// alone until somebody asks again: for what was left where it is, or came since. What
// failed is tried again later.
func (p *Protect) packedSeries(names []archive.SeriesName, began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, name := range names {
		if s := p.series[name]; s != nil {
			wait := packAgain
			s.packed = began
			if err != nil {
				wait, s.packed = min(packRetryMost, packRetry<<min(s.tries, 10)), time.Time{}
			}
			s.tries++
			s.next = now.Add(wait)
		}
	}
}
