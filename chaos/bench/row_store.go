package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/peer"
)

func storeOne(ctx context.Context, b *bench, s *sheet) error {
	files, err := b.ct("ct", seedImages, b.size.images, b.size.perSeries)
	if err != nil {
		return err
	}
	return b.stores(ctx, s, "one", []string{pelago, syncing, dropping, unstalled, shipped}, files, func(ctx context.Context, to *peer.Server) error {
		return to.StoreSCU(ctx, nil, files.paths...)
	})
}

func storeEight(ctx context.Context, b *bench, s *sheet) error {
	files, err := b.ct("ct", seedImages, b.size.images, b.size.perSeries)
	if err != nil {
		return err
	}
	return b.stores(ctx, s, "eight", []string{pelago, syncing, dropping, unstalled}, files, func(ctx context.Context, to *peer.Server) error {
		return parallel(ctx, to, files.paths, nil)
	})
}

func storeTiny(ctx context.Context, b *bench, s *sheet) error {
	files, err := b.tiny(seedTiny, b.size.tiny)
	if err != nil {
		return err
	}
	return b.stores(ctx, s, "tiny", []string{pelago, syncing, dropping, unstalled}, files, func(ctx context.Context, to *peer.Server) error {
		return parallel(ctx, to, files.paths, nil)
	})
}

// parallel sends each folder over an association of its own.
func parallel(ctx context.Context, to *peer.Server, folders, options []string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, folder := range folders {
		group.Go(func() error { return to.StoreSCU(ctx, options, folder) })
	}
	return group.Wait()
}

// stores measures instances a second: each round every contender gets the
// files on an empty directory. What it says it holds afterwards is checked.
func (b *bench) stores(ctx context.Context, s *sheet, name string, contenders []string, files folder, send func(context.Context, *peer.Server) error) error {
	for round := range b.rounds {
		for _, who := range contenders {
			err := b.with(ctx, b.contender(who), nil, func(to *peer.Server) error {
				if err := b.settle(ctx); err != nil {
					return err
				}
				var took time.Duration
				err := b.profiled(ctx, to, fmt.Sprintf("store-%s-%d", name, round), func() error {
					began := time.Now()
					defer func() { took = time.Since(began) }()
					return send(ctx, to)
				})
				if err != nil {
					return err
				}
				s.add("store", "/s", who, float64(files.files)/took.Seconds())
				b.say("  round %d: %s %s/s", round+1, who, number(float64(files.files)/took.Seconds()))
				return b.holds(ctx, to, files.files)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// holds checks that a server has kept what it acknowledged.
func (b *bench) holds(ctx context.Context, s *peer.Server, want int) error {
	if s.Count == nil {
		return nil
	}
	got, err := s.Count(ctx)
	if err == nil && got != int64(want) {
		err = fmt.Errorf("holds %d instances, was sent %d", got, want)
	}
	return err
}

// associations of the sustained row; repeats of a folder that each storescu makes.
const (
	associations = 8
	repeats      = 5
)

func storeSustained(ctx context.Context, b *bench, s *sheet) error {
	files, err := b.ct("ct", seedImages, b.size.images, b.size.perSeries)
	if err != nil {
		return err
	}
	s.note("one round; each of %d senders repeats its images under new series and instance UIDs (`storescu +IR`) until %v or %s GB have passed",
		associations, b.sustainedTime, number(float64(b.sustainedBytes)/1e9))
	for _, who := range []string{pelago, unstalled} {
		err := b.with(ctx, b.contender(who), nil, func(to *peer.Server) error { return b.sustain(ctx, s, who, to, files) })
		if err != nil {
			return err
		}
	}
	return nil
}

// sustain sends until time or bytes are used up, and watches staging.
func (b *bench) sustain(ctx context.Context, s *sheet, who string, to *peer.Server, files folder) error {
	if err := b.settle(ctx); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	staged := make(chan int64, 1)
	go func() { staged <- watch(watching, filepath.Join(to.Dir, "staging")) }()
	var sent, refused atomic.Int64
	began := time.Now()
	group, sending := errgroup.WithContext(ctx)
	perFolder := int64(files.files / len(files.paths))
	for _, path := range files.paths {
		group.Go(func() error {
			options := []string{"+IR", fmt.Sprint(perFolder), "+IS", "4", "+IP", "1", "--repeat", fmt.Sprint(repeats)}
			for time.Since(began) < b.sustainedTime && sent.Load()*files.bytes/int64(files.files) < b.sustainedBytes && sending.Err() == nil {
				if err := to.StoreSCU(sending, options, path); err != nil {
					refused.Add(1)
					s.note("%s: %v", who, err)
					return nil
				}
				sent.Add(repeats * perFolder)
			}
			return nil
		})
	}
	err := group.Wait()
	took := time.Since(began)
	stop()
	most := <-staged
	if err != nil || ctx.Err() != nil {
		return err
	}
	s.add("store", "/s", who, float64(sent.Load())/took.Seconds())
	s.add("refused", "", who, float64(refused.Load()))
	s.note("%s took %s GB in %v", who, number(float64(sent.Load())*float64(files.bytes)/float64(files.files)/1e9), took.Round(time.Second))
	if who != pelago {
		return nil
	}
	s.add("staging", "GiB", who, float64(most)/(1<<30))
	staging, rest, err := peer.Node{Server: to}.Rest()
	s.note("when the last sender was done, staging occupied %s GB and everything else %s GB", number(float64(staging)/1e9), number(float64(rest)/1e9))
	return err
}

// watch returns the most that a folder occupied until ctx ended.
func watch(ctx context.Context, dir string) int64 {
	var most int64
	for tick := time.NewTicker(250 * time.Millisecond); ; {
		if n, err := peer.DiskUsage(dir); err == nil {
			most = max(most, n)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return most
		case <-tick.C:
		}
	}
}
