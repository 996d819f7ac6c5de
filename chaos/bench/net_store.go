package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/fleet"
	"pelago/chaos/world"
)

// netStore measures C-STORE at a node alone, at one in a network, and at the
// same while it is cut off.
func netStore(ctx context.Context, b *bench, s *sheet) error {
	files, err := b.ct("net-ct", seedImages, b.net.images, b.net.images)
	if err != nil {
		return err
	}
	s.note("one association of `storescu` with %d CT of 526 KB a turn, under new UIDs each time; the three take %d turns each in a round, another one first each time, on nodes that go on running and have had a round that is not counted; a round's rate is that of its turns together. Before each turn all nodes know of what was stored, and are connected. The site that stores votes and does not lead; its others share the two cores with it", files.files, b.net.storeTurns)
	return b.fleet(ctx, world.Link{}, func(single *fleet.Fleet) error {
		return b.fleet(ctx, world.Both(80*time.Millisecond, 100*world.Mbps), func(f *fleet.Fleet) error {
			if err := voters(ctx, f, len(f.Nodes)); err != nil {
				return err
			}
			return b.storeTurns(ctx, s, single.Nodes[0], f, files)
		}, sites(3)...)
	}, "alone")
}

func (b *bench) storeTurns(ctx context.Context, s *sheet, single *fleet.Node, f *fleet.Fleet, files folder) error {
	first, err := leader(ctx, f)
	if err != nil {
		return err
	}
	node := f.Nodes[len(f.Nodes)-1]
	if node == first {
		node = f.Nodes[0]
	}
	store := func(n *fleet.Node) (time.Duration, error) {
		if err := b.settle(ctx); err != nil {
			return 0, err
		}
		began := time.Now()
		// New studies of the same images: +II and the like invent UIDs.
		err := server(n).StoreSCU(ctx, []string{"+IR", fmt.Sprint(files.files), "+IS", "1", "+IP", "1"}, files.paths...)
		return time.Since(began), err
	}
	stored := 0 // by the node of the network
	turns := []struct {
		name string
		take func() (time.Duration, error)
	}{
		{"alone", func() (time.Duration, error) { return store(single) }},
		{"connected", func() (time.Duration, error) { stored += files.files; return store(node) }},
		{"cut off", func() (time.Duration, error) {
			if err := cutOff(f, node); err != nil {
				return 0, err
			}
			defer f.World.Heal()
			stored += files.files
			return store(node)
		}},
	}
	// Round -1 is not counted: a process that has just started is slower.
	for round := -1; round < b.rounds; round++ {
		took := map[string]time.Duration{}
		// A turn is half a second, in which one write of the disk's counts: many make a rate.
		for i := range b.net.storeTurns * len(turns) {
			t := turns[(i/len(turns)+i)%len(turns)] // so that none has the best place each time
			once, err := t.take()
			if err != nil {
				return err
			}
			took[t.name] += once
			if err := quiet(ctx, f, stored); err != nil {
				return err
			}
		}
		rates := map[string]float64{}
		for name, all := range took {
			rates[name] = float64(b.net.storeTurns*files.files) / all.Seconds()
		}
		b.say("  round %d: alone %s/s, connected %s/s, cut off %s/s", round+1, number(rates["alone"]), number(rates["connected"]), number(rates["cut off"]))
		if round < 0 {
			continue
		}
		for _, metric := range []string{"connected", "cut off"} {
			s.add(metric, "/s", pelago, rates[metric])
			s.add(metric, "/s", networkOfOne, rates["alone"])
		}
	}
	return nil
}

// cutOff parts a node from all others, until the world is healed.
func cutOff(f *fleet.Fleet, node *fleet.Node) error {
	for _, other := range f.Nodes {
		if other == node {
			continue
		}
		if err := f.World.Part(world.BlackHole, []world.Site{node.Site}, []world.Site{other.Site}); err != nil {
			return err
		}
	}
	return nil
}

// netVisible measures how long a study takes to be whole everywhere.
func netVisible(ctx context.Context, b *bench, s *sheet) error {
	const perStudy = 10
	s.note("each of 5 sites stores %d studies of %d images of 64 pixels a round, one after the other, all sites at once; from the end of `storescu` to the first QIDO at the last site that counts all images, asked every %v at each", b.net.visible, perStudy, pause)
	return b.fleet(ctx, world.Both(80*time.Millisecond, 100*world.Mbps), func(f *fleet.Fleet) error {
		if err := voters(ctx, f, len(f.Nodes)); err != nil {
			return err
		}
		for round := range b.rounds {
			var group errgroup.Group
			waits := make([][]float64, len(f.Nodes))
			for i, n := range f.Nodes {
				group.Go(func() (err error) {
					waits[i], err = b.visibleFrom(ctx, f, n, fmt.Sprintf("visible-%d-%d", round, i), uint64(seedNetwork+round*len(f.Nodes)+i), perStudy)
					return err
				})
			}
			if err := group.Wait(); err != nil {
				return err
			}
			var all []float64
			for _, w := range waits {
				all = append(all, w...)
			}
			s.add("visible p50", "s", pelago, percentile(all, 50))
			s.add("visible p99", "s", pelago, percentile(all, 99))
			b.say("  round %d: p50 %s s, p99 %s s", round+1, number(percentile(all, 50)), number(percentile(all, 99)))
		}
		return nil
	}, sites(5)...)
}

// visibleFrom stores studies at a node and returns the seconds that each took to
// be known at all.
func (b *bench) visibleFrom(ctx context.Context, f *fleet.Fleet, at *fleet.Node, name string, seed uint64, perStudy int) ([]float64, error) {
	files, err := b.small(name, seed, b.net.visible, 1, perStudy)
	if err != nil {
		return nil, err
	}
	var waits []float64
	for i, folder := range files.paths {
		if err := server(at).StoreSCU(ctx, nil, folder); err != nil {
			return nil, err
		}
		ended := time.Now()
		study := files.images[i*perStudy].Study.UID
		var group errgroup.Group
		for _, n := range f.Nodes {
			group.Go(func() error {
				return until(ctx, "study at "+string(n.Site), func() (bool, error) {
					count, err := instancesAt(ctx, n, study)
					return count == perStudy, err
				})
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		waits = append(waits, time.Since(ended).Seconds())
	}
	return waits, nil
}

// netLog measures what goes through Raft for studies that arrive slowly.
func netLog(ctx context.Context, b *bench, s *sheet) error {
	s.note("%d studies of %d × %d images of 64 pixels a round, each over one association that lasts %v; the bytes of all entries that are committed until all sites have all of it, of registry changes too; then until all is protected: the keys of studies and the seals of packs, with their receipts", b.net.slowStudies, b.net.slowSeries, b.net.slowN, b.net.slow)
	return b.fleet(ctx, world.Both(80*time.Millisecond, 100*world.Mbps), func(f *fleet.Fleet) error {
		if err := voters(ctx, f, len(f.Nodes)); err != nil {
			return err
		}
		for round := range b.rounds {
			files, err := b.small(fmt.Sprintf("log-%d", round), uint64(seedNetwork+round), b.net.slowStudies, b.net.slowSeries, b.net.slowN)
			if err != nil {
				return err
			}
			before, err := counter(ctx, f.Nodes[0], logBytes)
			if err != nil {
				return err
			}
			var group errgroup.Group
			for i, folder := range files.paths {
				group.Go(func() error { return sendSlowly(ctx, server(f.Nodes[i%len(f.Nodes)]), folder, b.net.slow) })
			}
			if err := group.Wait(); err != nil {
				return err
			}
			if err := quiet(ctx, f, (round+1)*files.files); err != nil {
				return err
			}
			after, err := counter(ctx, f.Nodes[0], logBytes)
			if err != nil {
				return err
			}
			var st shardStatus
			if err := getJSON(ctx, f.Nodes[0], "/api/status", &st); err != nil {
				return err
			}
			if err := protect(ctx, f.Nodes[0], st.SurvivesSites, studiesOf(files)); err != nil {
				return err
			}
			sealed, err := counter(ctx, f.Nodes[0], logBytes)
			if err != nil {
				return err
			}
			s.add("log bytes", "B", pelago, (after-before)/float64(b.net.slowStudies))
			s.add("sealed bytes", "B", pelago, (sealed-before)/float64(b.net.slowStudies))
			b.say("  round %d: %s B a study, %s B with its seals", round+1, number((after-before)/float64(b.net.slowStudies)), number((sealed-before)/float64(b.net.slowStudies)))
		}
		return nil
	}, sites(3)...)
}

// logBytes counts the bytes of entries that a node has applied.
const logBytes = "pelago_log_entry_bytes_total"
