package main

import (
	"context"
	"fmt"
	"time"

	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/shard"
)

// shardSpread stores large packs at every site of a network as large as its stripes,
// and counts what travels and what rests.
func shardSpread(ctx context.Context, b *bench, s *sheet) error {
	const n = 6
	s.note("%d sites, %d images of 526 KB in a series of its own at each a round, so that every pack has over 16 MiB; from before the first image is stored until all is protected and all sites have settled. Bytes between sites are all that they sent each other, over TLS: the catalogue's, gossip's and Raft's too. Bytes on disk are those of `bulk/` but for hot copies, and the shard that these stand for; bytes stored are those of the tables of hot copies", n, b.cut.spread)
	return b.striping(ctx, world.Both(20*time.Millisecond, world.Gbps), n, func(f *fleet.Fleet, code shard.Code, survives int) error {
		for round := range b.rounds {
			var large []folder
			for i := range f.Nodes {
				one, err := b.ct(fmt.Sprintf("spread-%d-%d", round, i), uint64(seedNetwork+n*round+i), b.cut.spread, b.cut.spread)
				if err != nil {
					return err
				}
				large = append(large, one)
			}
			took, err := b.spreadAll(ctx, f, code, survives, large)
			if err != nil {
				return err
			}
			s.add("spread bytes", "×", pelago, took.sent)
			s.add("spread disk", "×", pelago, took.rests)
			b.say("  round %d: %s MB stored, %s× between sites, %s× on disk", round+1, number(took.stored/1e6), number(took.sent), number(took.rests))
			if err := b.drop(large); err != nil {
				return err
			}
		}
		return b.wholeCorpus(ctx, s, f, code, survives)
	})
}

// spreading is what spreading took.
type spreading struct {
	stored float64 // bytes at rest, where they arrived
	sent   float64 // bytes between sites, over (n - n/N)/k of those
	rests  float64 // bytes on disk, over n/k of all
}

// spreadAll stores a folder at each site.
func (b *bench) spreadAll(ctx context.Context, f *fleet.Fleet, code shard.Code, survives int, folders []folder) (t spreading, err error) {
	before, err := hot(ctx, f)
	if err != nil {
		return t, err
	}
	began := between(f)
	if err := fill(ctx, f, survives, f.Nodes, folders); err != nil {
		return t, err
	}
	sent := between(f) - began
	after, err := hot(ctx, f)
	if err != nil {
		return t, err
	}
	rests := int64(0)
	for _, n := range f.Nodes {
		bytes, err := bulkBytes(n)
		if err != nil {
			return t, err
		}
		rests += bytes
	}
	return spread(code, len(f.Nodes), after-before, after, sent, rests), nil
}

// spread judges: stored is what came now of hot bytes in all, rests what is on disk.
func spread(code shard.Code, sites int, stored, hot, sent, rests int64) spreading {
	n, k, all := float64(code.N()), float64(code.K), float64(sites)
	virtual := n / all / k // of a byte, the part of the shards that hot copies stand for
	return spreading{
		stored: float64(stored),
		sent:   float64(sent) / float64(stored) / ((n - n/all) / k),
		rests:  (float64(rests-hot) + float64(hot)*virtual) / (float64(hot) * n / k),
	}
}

// wholeCorpus adds what hospitals have besides: short series, and tiny ones, whose
// figures are told and not held to a limit.
func (b *bench) wholeCorpus(ctx context.Context, s *sheet, f *fleet.Fleet, code shard.Code, survives int) error {
	const short, perShort, tiny = 8, 20, 20
	for _, kind := range []struct {
		what string
		make func(i int) (folder, error)
	}{
		{fmt.Sprintf("%d series of %d CT at each site", short, perShort), func(i int) (folder, error) {
			return b.ct(fmt.Sprintf("short-%d", i), uint64(seedNetwork+1000+i), short*perShort, perShort)
		}},
		{fmt.Sprintf("%d studies of one image of 64 pixels at each site", tiny), func(i int) (folder, error) {
			return b.small(fmt.Sprintf("tiny-spread-%d", i), uint64(seedNetwork+2000+i), tiny, 1, 1)
		}},
	} {
		var folders []folder
		for i := range f.Nodes {
			one, err := kind.make(i)
			if err != nil {
				return err
			}
			folders = append(folders, one)
		}
		t, err := b.spreadAll(ctx, f, code, survives, folders)
		if err != nil {
			return err
		}
		s.note("then %s, %s MB at rest: %s× between sites; all on disk until then %s×", kind.what, number(t.stored/1e6), number(t.sent), number(t.rests))
		if err := b.drop(folders); err != nil {
			return err
		}
	}
	return nil
}
