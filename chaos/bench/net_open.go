package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
)

// farAway is the round trip of the rows that open what rests elsewhere.
const farAway = 50 * time.Millisecond

// rates of the links of these rows.
var rates = []struct {
	name string
	rate world.Rate
}{{"1 Gb/s", world.Gbps}, {"100 Mb/s", 100 * world.Mbps}}

// Types that web clients ask for.
const (
	acceptFrame  = `multipart/related; type="application/octet-stream"; transfer-syntax=*`
	acceptSeries = `multipart/related; type="application/dicom"; transfer-syntax=*`
)

// seriesURL and frameURL name what is opened.
func seriesURL(n *fleet.Node, i input.Instance) string {
	return fmt.Sprintf("%s/dicom-web/studies/%s/series/%s", n.HTTP(), i.Study.UID, i.Study.SeriesUID(i.Series))
}

func frameURL(n *fleet.Node, i input.Instance) string {
	return fmt.Sprintf("%s/instances/%s/frames/1", seriesURL(n, i), i.UID())
}

// place stores images at the first site, packs them, waits until all sites know
// them, and returns how much of them rests there.
func place(ctx context.Context, f *fleet.Fleet, files folder) (int64, error) {
	origin := f.Nodes[0]
	before, err := status(ctx, origin)
	if err != nil {
		return 0, err
	}
	if err := server(origin).StoreSCU(ctx, nil, files.paths...); err != nil {
		return 0, err
	}
	if err := (peer.Node{Server: server(origin)}).Pack(ctx); err != nil {
		return 0, err
	}
	if err := quiet(ctx, f, int(before.Instances)+files.files); err != nil {
		return 0, err
	}
	after, err := status(ctx, origin)
	return after.HotBytes - before.HotBytes, err
}

// opened returns the seconds that a client took to read an answer whole.
func opened(ctx context.Context, url, accept string, least int64) (float64, error) {
	client := newDistantClient()
	defer client.close()
	began := time.Now()
	err := client.fetch(ctx, url, accept, least)
	return time.Since(began).Seconds(), err
}

// netFirstFrame opens series that were never opened here, one frame of each.
func netFirstFrame(ctx context.Context, b *bench, s *sheet) error {
	const perSeries = 10
	s.note("WADO-RS of the frame of an image in the middle of a series of %d CT of 512 × 512 that is packed at its origin and was never opened where it is asked for; the median of %d series a round. Bytes are those of the frame as the client gets it, 524,288. The connection between the nodes is warm", perSeries, b.net.opened)
	return b.fleet(ctx, world.Both(farAway, world.Gbps), func(f *fleet.Fleet) error {
		for round := range b.rounds {
			for i, r := range rates {
				files, err := b.ct(fmt.Sprintf("first-%d-%d", round, i), uint64(seedNetwork+10*round+i), perSeries*(b.net.opened+1), perSeries)
				if err != nil {
					return err
				}
				if err := b.firstFrames(ctx, s, f, r.name, r.rate, files, perSeries); err != nil {
					return err
				}
			}
			b.say("  round %d", round+1)
		}
		return nil
	}, sites(2)...)
}

func (b *bench) firstFrames(ctx context.Context, s *sheet, f *fleet.Fleet, name string, rate world.Rate, files folder, perSeries int) error {
	origin, asked := f.Nodes[0], f.Nodes[1]
	if _, err := place(ctx, f, files); err != nil {
		return err
	}
	if err := f.World.SetBoth(origin.Site, asked.Site, world.Both(farAway, rate)); err != nil {
		return err
	}
	var took []float64
	for series := range b.net.opened + 1 {
		image := files.images[series*perSeries+perSeries/2]
		seconds, err := opened(ctx, frameURL(asked, image), acceptFrame, image.Bytes())
		if err != nil {
			return err
		}
		if series > 0 { // the first warms the connection
			took = append(took, seconds/(farAway+rate.Time(image.Bytes())).Seconds())
		}
		// What is read ahead of it must not be in the way of the next.
		if err := calm(ctx, f, origin.Site, asked.Site); err != nil {
			return err
		}
	}
	s.add("frame "+name, "×", pelago, median(took))
	return nil
}

// calm waits until hardly anything goes from one site to another.
func calm(ctx context.Context, f *fleet.Fleet, from, to world.Site) error {
	const look, little = 100 * time.Millisecond, 20 << 10
	last := f.World.Traffic(from, to).Sent
	return until(ctx, "calm", func() (bool, error) {
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		now := f.World.Traffic(from, to).Sent
		still := now-last < little
		last = now
		return still, nil
	})
}

// netSeries opens a whole series elsewhere.
func netSeries(ctx context.Context, b *bench, s *sheet) error {
	s.note("WADO-RS of a series of %d CT of 526 KB that is packed at its origin and was never opened where it is asked for; the share is the bytes of the series at rest, as they travel, over time and the link's rate. The nodes go on running, have had a round that is not counted, and have nothing else to do", b.net.series)
	return b.fleet(ctx, world.Both(farAway, world.Gbps), func(f *fleet.Fleet) error {
		for round := -1; round < b.rounds; round++ { // round -1 is not counted: a process that has just started is slower
			for i, r := range rates {
				files, rests, err := b.remote(ctx, f, fmt.Sprintf("series-%d-%d", round, i), uint64(seedNetwork+10*(round+1)+i))
				if err != nil {
					return err
				}
				if err := b.idle(ctx, f); err != nil {
					return err
				}
				if err := f.World.SetBoth(f.Nodes[0].Site, f.Nodes[1].Site, world.Both(farAway, r.rate)); err != nil {
					return err
				}
				var seconds float64
				var cpu []float64
				err = b.profiled(ctx, server(f.Nodes[1]), fmt.Sprintf("net-series-%d-%d", r.rate/world.Mbps, round), func() (err error) {
					cpu, err = processorTime(f, func() (err error) {
						seconds, err = opened(ctx, seriesURL(f.Nodes[1], files.images[0]), acceptSeries, files.images[0].Bytes()*int64(files.files))
						return err
					})
					return err
				})
				if err != nil {
					return err
				}
				if round >= 0 {
					s.add("series "+r.name, "", pelago, r.rate.Time(rests).Seconds()/seconds)
				}
				b.say("  round %d, %s: %s MB at rest in %s s; processor time: origin %s s, asked %s s, relay and client %s s",
					round+1, r.name, number(float64(rests)/1e6), number(seconds), number(cpu[0]), number(cpu[1]), number(cpu[2]))
				if err := b.inputs.drop(files); err != nil {
					return err
				}
			}
		}
		return nil
	}, sites(2)...)
}

const (
	// idleShare is what the nodes that have nothing to do take together of a core at
	// most, over idleTime: rows that pack or compact what they have stored wait for it
	// before they measure something else.
	idleShare = 0.05
	idleTime  = time.Second
	// maxIdle bounds waiting for it.
	maxIdle = 15 * time.Minute
)

// idle waits until the nodes that run have nothing more to do.
func (b *bench) idle(ctx context.Context, f *fleet.Fleet) error {
	began := time.Now()
	for before, first := time.Duration(0), true; ; first = false {
		var spent time.Duration
		for _, n := range f.Nodes {
			if !n.Running() {
				continue
			}
			cpu, err := peer.CPU(n.PID())
			if errors.Is(err, errors.ErrUnsupported) {
				return nil
			}
			if err != nil {
				return err
			}
			spent += cpu
		}
		if !first && (spent-before).Seconds() < idleShare*idleTime.Seconds() {
			return nil
		}
		if before = spent; time.Since(began) > maxIdle {
			return fmt.Errorf("the nodes are at work %s s after there was something to do", number(time.Since(began).Seconds()))
		}
		select {
		case <-time.After(idleTime):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// processorTime returns the seconds of processor time that something takes: of the
// first two nodes, and of this process, in which relay and client are.
func processorTime(f *fleet.Fleet, run func() error) (took []float64, err error) {
	pids := []int{f.Nodes[0].PID(), f.Nodes[1].PID(), os.Getpid()}
	for _, pid := range pids {
		began, failed := peer.CPU(pid)
		err = errors.Join(err, failed)
		took = append(took, -began.Seconds())
	}
	err = errors.Join(err, run())
	for i, pid := range pids {
		ended, failed := peer.CPU(pid)
		err = errors.Join(err, failed)
		took[i] += ended.Seconds()
	}
	return took, err
}

// remote stores a series at the first site, packs it, and returns how much of it
// rests there.
func (b *bench) remote(ctx context.Context, f *fleet.Fleet, name string, seed uint64) (folder, int64, error) {
	files, err := b.ct(name, seed, b.net.series, b.net.series)
	if err != nil {
		return files, 0, err
	}
	rests, err := place(ctx, f, files)
	return files, rests, err
}

// netReaders has one reader, and then eight, open series of the same size.
func netReaders(ctx context.Context, b *bench, s *sheet) error {
	s.note("WADO-RS of a series of %d CT of 526 KB at four sites that do not own it, two clients each, over links of 100 Mb/s and %v to each site; one reader: the same of another series at one of them", b.net.series, farAway)
	return b.fleet(ctx, world.Both(farAway, 100*world.Mbps), func(f *fleet.Fleet) error {
		for round := range b.rounds {
			if err := b.readersRound(ctx, s, f, round); err != nil {
				return err
			}
		}
		return nil
	}, sites(5)...)
}

func (b *bench) readersRound(ctx context.Context, s *sheet, f *fleet.Fleet, round int) error {
	first, _, err := b.remote(ctx, f, fmt.Sprintf("reader-%d", round), uint64(seedNetwork+10*round))
	if err != nil {
		return err
	}
	whole := first.images[0].Bytes() * int64(first.files)
	one, err := opened(ctx, seriesURL(f.Nodes[1], first.images[0]), acceptSeries, whole)
	if err != nil {
		return err
	}
	second, rests, err := b.remote(ctx, f, fmt.Sprintf("readers-%d", round), uint64(seedNetwork+10*round+1))
	if err != nil {
		return err
	}
	sent := map[world.Site]int64{}
	for _, n := range f.Nodes[1:] {
		sent[n.Site] = f.World.Traffic(f.Nodes[0].Site, n.Site).Sent
	}
	began := time.Now()
	var group errgroup.Group
	for _, n := range f.Nodes[1:] {
		for range 2 {
			group.Go(func() error {
				_, err := opened(ctx, seriesURL(n, second.images[0]), acceptSeries, whole)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	all := time.Since(began).Seconds()
	var worst float64
	for _, n := range f.Nodes[1:] {
		worst = max(worst, float64(f.World.Traffic(f.Nodes[0].Site, n.Site).Sent-sent[n.Site])/float64(rests))
	}
	s.add("readers", "×", pelago, all/one)
	s.add("readers sent", "×", pelago, worst)
	b.say("  round %d: one reader %s s, eight %s s; %s× to a site", round+1, number(one), number(all), number(worst))
	if err := b.inputs.drop(first); err != nil {
		return err
	}
	return b.inputs.drop(second)
}
