package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"pelago/chaos/bench/peer"
)

// warm is how often a series is asked for again.
const warm = 5

// metadata measures a series' metadata: at first after a start, and again.
func metadata(ctx context.Context, b *bench, s *sheet) error {
	s.note("cold: the first request after a start of the server, its files in the page cache; warm: the median of %d more", warm)
	short, err := b.ct("short", seedStudy+10, b.size.short, b.size.short)
	if err != nil {
		return err
	}
	long, err := b.ct("long", seedStudy+11, b.size.long, b.size.long)
	if err != nil {
		return err
	}
	dirs := map[string]string{pelago: b.fresh(), shipped: b.fresh()}
	if err := b.pack(ctx, dirs[pelago], short, long); err != nil {
		return err
	}
	orthanc, err := b.filled(ctx, b.contender(unstalled), dirs[shipped], []folder{short, long})
	if err != nil {
		return err
	}
	if err := orthanc.Stop(); err != nil {
		return err
	}
	for round := range b.rounds {
		for _, who := range []string{pelago, shipped} {
			for name, series := range map[string]folder{"short": short, "long": long} {
				if err := b.metadataOnce(ctx, s, who, dirs[who], name, series); err != nil {
					return err
				}
			}
		}
		b.say("  round %d", round+1)
	}
	return errors.Join(os.RemoveAll(dirs[pelago]), os.RemoveAll(dirs[shipped]))
}

func (b *bench) metadataOnce(ctx context.Context, s *sheet, who, dir, name string, series folder) error {
	server, err := b.contender(who).start(ctx, dir)
	if err != nil {
		return err
	}
	err = askMetadata(ctx, s, who, server, name, series)
	return errors.Join(err, server.Stop())
}

func askMetadata(ctx context.Context, s *sheet, who string, server *peer.Server, name string, series folder) error {
	study := series.images[0].Study
	url := fmt.Sprintf("%s/studies/%s/series/%s/metadata", server.Web, study.UID, study.SeriesUID(1))
	const leastEach = 1000 // bytes of JSON an instance
	client := newClient()
	defer client.close()
	var again []float64
	for n := range 1 + warm {
		began := time.Now()
		if err := client.fetch(ctx, url, "application/dicom+json", int64(leastEach*series.files)); err != nil {
			return err
		}
		took := float64(time.Since(began).Microseconds()) / 1e3
		if n == 0 {
			s.add(name+" cold", "ms", who, took)
		} else {
			again = append(again, took)
		}
	}
	s.add(name+" warm", "ms", who, median(again))
	return nil
}
