package archive

import (
	"context"
	"time"
)

// A modality that is refused shows an alarm, and what it held may never be sent
// again; one that is kept waiting only waits. So while staging is nearly full an
// arrival waits, before anything of it is read, until the packer has made room:
// the sender's own connection tells it to go slower. The last share of staging
// is for those that have waited as long as senders put up with.

const (
	// spareShare of staging is not given to arrivals that may still wait.
	spareShare = 8
	// defaultPatience is shorter than the 30 s after which many senders give up.
	defaultPatience = 20 * time.Second
	// roomEvery is how often an arrival that waits looks for room.
	roomEvery = 20 * time.Millisecond
)

// crowded reports whether staging is so full that arrivals wait.
func (a *Archive) crowded() bool {
	total, _ := a.staging.Bytes()
	return total >= a.o.StagingBytes-a.o.StagingBytes/spareShare
}

// awaitRoom returns once staging is not crowded, or it makes no sense to wait
// longer: staging itself then decides. The error is that of ctx.
func (a *Archive) awaitRoom(ctx context.Context) error {
	if a.o.Patience < 0 || !a.crowded() {
		return nil
	}
	a.stats.Held.Add(1)
	limit := time.NewTimer(a.o.Patience)
	defer limit.Stop()
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for a.crowded() && !a.stuck.Load() {
		select {
		case a.hurry <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return nil
		case <-a.stopped:
			return nil
		case <-tick.C:
		}
	}
	return nil
}
