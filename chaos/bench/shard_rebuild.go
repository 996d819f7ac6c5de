package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/input"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/shard"
)

// rebuildSites is a network with a site more than a row needs.
const rebuildSites = 7

// lossy is a network whose last site holds shards of what the others store, and
// nothing of its own.
type lossy struct {
	*fleet.Fleet
	survives int
	lost     *fleet.Node
	shards   int64 // bytes that are held there
	others   int64 // that the others hold
	since    uint64
}

// again makes sure that the others have what was lost, and that what they stored is
// protected as it was.
func (l *lossy) again(ctx context.Context, folders []folder) error {
	others, err := l.rest(ctx)
	if err != nil {
		return err
	}
	if err := madeAgain(l.shards, others-l.others); err != nil {
		return err
	}
	return protect(ctx, l.Nodes[0], l.survives, studiesOf(folders...))
}

// madeAgain reports whether what came is what was lost. What holders count is about what
// they have.
func madeAgain(lost, came int64) error {
	const share = 0.98
	if float64(came) < share*float64(lost) {
		return fmt.Errorf("%d bytes were lost, and %d made again", lost, came)
	}
	return nil
}

// rest is what is held at all sites but the one that is lost.
func (l *lossy) rest(ctx context.Context) (bytes int64, err error) {
	for _, n := range l.Nodes {
		if n == l.lost {
			continue
		}
		one, err := heldBytes(ctx, n)
		if err != nil {
			return 0, err
		}
		bytes += one
	}
	return bytes, nil
}

// lossy runs one, filled with images at each other site.
func (b *bench) lossy(ctx context.Context, link world.Link, round int, use func(*lossy, []folder) error) error {
	return b.striping(ctx, link, rebuildSites, func(f *fleet.Fleet, _ shard.Code, survives int) error {
		last := len(f.Nodes) - 1
		l := &lossy{Fleet: f, survives: survives, lost: f.Nodes[last]}
		var folders []folder
		for i := range last {
			one, err := b.noise(fmt.Sprintf("rebuild-%d-%d", round, i), uint64(seedNetwork+rebuildSites*round+i), b.cut.rebuild, b.cut.noisy)
			if err != nil {
				return err
			}
			folders = append(folders, one)
		}
		if err := fill(ctx, f, survives, f.Nodes[:last], folders); err != nil {
			return err
		}
		var s shardStatus
		err := getJSON(ctx, f.Nodes[0], "/api/status", &s)
		if err != nil {
			return err
		}
		l.since = s.LayoutVersion
		if l.shards, err = heldBytes(ctx, l.lost); err != nil {
			return err
		}
		if l.others, err = l.rest(ctx); err != nil {
			return err
		}
		return errors.Join(use(l, folders), b.drop(folders))
	})
}

// shardRebuild has a network lose a site that nobody reads from meanwhile.
func shardRebuild(ctx context.Context, b *bench, s *sheet) error {
	rate := b.cut.narrow
	s.note("%d sites, 20 ms apart, %d series of one image at each of six, of noise, so that each is a pack of 0.6 MB and what was lost falls to all sites alike; the seventh is ended and declared lost. Each site is connected by %d Mb/s, so that links and not the two cores of all of them are what it takes; from before `pelago lost` until every node says that it has all that the next layout gives it, against the bytes of the shards that the lost site held, but for the sixth of them that falls to their origins, who make them from their own copies, over the sum of the other sites' links. A network of its own each round", rebuildSites, b.cut.rebuild, rate/world.Mbps)
	for round := range b.rounds {
		err := b.lossy(ctx, world.Both(20*time.Millisecond, world.Gbps), round, func(l *lossy, folders []folder) error {
			for _, n := range l.Nodes {
				if err := l.World.SetAccess(n.Site, world.Access{Up: rate, Down: rate}); err != nil {
					return err
				}
			}
			sent, began := between(l.Fleet), time.Now()
			if err := b.lose(ctx, l.Fleet, l.lost); err != nil {
				return err
			}
			if err := rebuilt(ctx, l.Fleet, l.since); err != nil {
				return err
			}
			took := time.Since(began)
			sent = between(l.Fleet) - sent
			ratio := rebuildRatio(took, travels(l.shards, len(l.Nodes)), len(l.Nodes)-1, rate)
			s.add("rebuild", "×", pelago, ratio)
			s.note("round %d: %s MB were lost, %s MB were sent, in %s s", round+1, number(float64(l.shards)/1e6), number(float64(sent)/1e6), number(took.Seconds()))
			b.say("  round %d: %s MB in %s s, %s×", round+1, number(float64(l.shards)/1e6), number(took.Seconds()), number(ratio))
			return l.again(ctx, folders)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// travels is how much of what a site has lost must come to others over links, where a
// row lacks one of so many sites: that is the origin of a pack as often as any other,
// who then makes the shard from its own copy.
func travels(lost int64, sites int) int64 {
	return lost * int64(sites-2) / int64(sites-1)
}

// rebuildRatio is the time over that in which the links of so many sites carry the
// bytes.
func rebuildRatio(took time.Duration, bytes int64, sites int, rate world.Rate) float64 {
	return took.Seconds() / (rate * world.Rate(sites)).Time(bytes).Seconds()
}

// shardReaders has frames read while nothing else happens, and while a site is rebuilt.
func shardReaders(ctx context.Context, b *bench, s *sheet) error {
	s.note("%d sites, 20 ms and 1 Gb/s apart, %d series of one image of noise at each of six, 0.6 MB at rest each, and series of %d CT at the first; at each of the six a client wants a frame by WADO-RS every %v, so that every node knows that it is read from, and paces what it makes again: by turns of an image that rests there, and of one of those series, which were never opened there. Quiet for %v; then the seventh site is ended and declared lost, and they read until all is rebuilt, for as long at least; all nodes share the cores, where hospitals have their own. Scrub runs all the time at its own pace, a thirtieth of what is held a day", rebuildSites, b.cut.rebuild, perShort, every, b.cut.reading)
	for round := range b.rounds {
		err := b.lossy(ctx, world.Both(20*time.Millisecond, world.Gbps), round, func(l *lossy, folders []folder) error {
			return b.readersBeside(ctx, s, l, folders, round)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// perShort are the images of a series of which one frame is read.
const perShort = 4

// reading is one client at a node.
type reading struct {
	node   *fleet.Node
	here   []input.Instance // that rest there
	far    []input.Instance // that rest elsewhere, a series each
	client *client
	n      int
	// seconds that frames took, of those that rest there and elsewhere.
	near, away []float64
}

// every is how often a reader wants a frame, of whom there is one at each site. All of
// them, and the nodes, share the cores: who read as fast as he can would measure those.
const every = 50 * time.Millisecond

// read reads at least so long, and until a channel is closed.
func (r *reading) read(ctx context.Context, least time.Duration, until <-chan struct{}) error {
	r.near, r.away = nil, nil
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if time.Since(began) >= least {
			select {
			case <-until:
				return nil
			default:
			}
		}
		image, into := r.here[r.n*7%len(r.here)], &r.near
		if r.n%2 == 1 && len(r.far) > 0 {
			image, into, r.far = r.far[0], &r.away, r.far[1:]
		}
		r.n++
		from := time.Now()
		if err := r.client.fetch(ctx, frameURL(r.node, image), acceptFrame, image.Bytes()); err != nil {
			return err
		}
		*into = append(*into, time.Since(from).Seconds())
	}
}

// warm reads each frame once that rests there.
func (r *reading) warm(ctx context.Context) error {
	for _, image := range r.here {
		if err := r.client.fetch(ctx, frameURL(r.node, image), acceptFrame, image.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) readersBeside(ctx context.Context, s *sheet, l *lossy, folders []folder, round int) error {
	short, err := b.ct(fmt.Sprintf("short-readers-%d", round), uint64(seedNetwork+5000+round), perShort*b.cut.short, perShort)
	if err != nil {
		return err
	}
	if err := fill(ctx, l.Fleet, l.survives, l.Nodes[:1], []folder{short}); err != nil {
		return err
	}
	if l.shards, err = heldBytes(ctx, l.lost); err != nil { // with what came now
		return err
	}
	if l.others, err = l.rest(ctx); err != nil {
		return err
	}
	var clients []*reading
	for i, n := range l.Nodes[:len(folders)] {
		r := &reading{node: n, here: folders[i].images, client: newDistantClient()}
		defer r.client.close()
		for at := 0; at < len(short.images) && i > 0; at += perShort { // at the first they rest
			r.far = append(r.far, short.images[at+perShort/2])
		}
		clients = append(clients, r)
	}
	run := func(during func() error) (near, away []float64, err error) {
		ended := make(chan struct{})
		var group errgroup.Group
		for _, r := range clients {
			group.Go(func() error { return r.read(ctx, b.cut.reading, ended) })
		}
		err = during()
		close(ended)
		err = errors.Join(err, group.Wait())
		for _, r := range clients {
			near, away = append(near, r.near...), append(away, r.away...)
		}
		return near, away, err
	}
	rest := make([][]input.Instance, len(clients)) // for when the site is lost
	for i, r := range clients {
		half := len(r.far) / 2
		r.far, rest[i] = r.far[:half], r.far[half:]
	}
	quiet := func() error { return nil }
	for _, r := range clients { // what is read first is read from disk
		if err := r.warm(ctx); err != nil {
			return err
		}
	}
	near, away, err := run(quiet)
	if err != nil {
		return err
	}
	for i, r := range clients {
		r.far = rest[i]
	}
	var took time.Duration
	nearNow, awayNow, err := run(func() error {
		began := time.Now()
		if err := b.lose(ctx, l.Fleet, l.lost); err != nil {
			return err
		}
		err := rebuilt(ctx, l.Fleet, l.since)
		took = time.Since(began)
		return err
	})
	if err != nil {
		return err
	}
	if len(away) == 0 || len(awayNow) == 0 {
		return errors.New("no frame of a series elsewhere was read")
	}
	s.add("readers near", "×", pelago, percentile(nearNow, 99)/percentile(near, 99))
	s.add("readers away", "×", pelago, percentile(awayNow, 99)/percentile(away, 99))
	s.note("round %d: %s MB were rebuilt in %s s, %s MB/s; p99 of %d frames that rest there %s ms (quiet, of %d, %s ms), of %d elsewhere %s ms (quiet, of %d, %s ms)", round+1,
		number(float64(l.shards)/1e6), number(took.Seconds()), number(float64(l.shards)/1e6/took.Seconds()),
		len(nearNow), number(1e3*percentile(nearNow, 99)), len(near), number(1e3*percentile(near, 99)),
		len(awayNow), number(1e3*percentile(awayNow, 99)), len(away), number(1e3*percentile(away, 99)))
	b.say("  round %d: rebuilt in %s s; p99 of frames there %s×, elsewhere %s×", round+1, number(took.Seconds()),
		number(percentile(nearNow, 99)/percentile(near, 99)), number(percentile(awayNow, 99)/percentile(away, 99)))
	return b.inputs.drop(short)
}
