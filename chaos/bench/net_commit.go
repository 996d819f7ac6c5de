package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
)

// netCommit measures changes of the registry at the leader while all sites store.
func netCommit(ctx context.Context, b *bench, s *sheet) error {
	const roundTrip = 150 * time.Millisecond
	s.note("changes of the AE registry at the leader, one after the other, as its API answers them; meanwhile each of 5 sites stores studies of 64-pixel images over one association")
	return b.fleet(ctx, world.Both(roundTrip, 100*world.Mbps), func(f *fleet.Fleet) error {
		if err := voters(ctx, f, len(f.Nodes)); err != nil {
			return err
		}
		for round := range b.rounds {
			if err := b.commitRound(ctx, s, f, round, roundTrip); err != nil {
				return err
			}
		}
		return nil
	}, sites(5)...)
}

func (b *bench) commitRound(ctx context.Context, s *sheet, f *fleet.Fleet, round int, roundTrip time.Duration) error {
	first, err := leader(ctx, f)
	if err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	var group errgroup.Group
	for i, n := range f.Nodes {
		files, err := b.small(fmt.Sprintf("commit-%d-%d", round, i), uint64(seedNetwork+10*round+i), b.net.visible, 1, 20)
		if err != nil {
			stop()
			return err
		}
		group.Go(func() error {
			for load.Err() == nil {
				err := server(n).StoreSCU(load, []string{"+IR", "20", "+IS", "1", "+IP", "1"}, files.paths...)
				if err != nil && load.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	var took []float64
	for i := range b.net.changes {
		began := time.Now()
		if err = (peer.Node{Server: server(first)}).Register(ctx, fmt.Sprintf("AE%d", i), 104); err != nil {
			break
		}
		took = append(took, float64(time.Since(began))/float64(roundTrip))
	}
	stop()
	if loadErr := group.Wait(); err == nil {
		err = loadErr
	}
	if err != nil {
		return err
	}
	s.add("commit p50", "round trips", pelago, median(took))
	b.say("  round %d: p50 %s, p99 %s round trips", round+1, number(median(took)), number(percentile(took, 99)))
	return nil
}
