package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
)

// clients that ask for frames at once.
const clients = 8

func frames(ctx context.Context, b *bench, s *sheet) (err error) {
	files, err := b.ct("study", seedStudy, b.size.retrieve, b.size.retrieve/4)
	if err != nil {
		return err
	}
	// As many as are asked for in all, so that none is asked for twice.
	many, err := b.ct("packed", seedStudy, b.size.frames, b.size.retrieve/4)
	if err != nil {
		return err
	}
	s.note("%d requests for images of %d × %d each; packs: after a restart of the node, each of %d images once; recently read: %d of them, which were just read; recently stored: %d from staging; Orthanc and net/http: %d, which were read in earlier rounds",
		b.size.frames, b.size.edge, b.size.edge, many.files, files.files, files.files, files.files)
	plain := filepath.Join(b.dir, "frames")
	if err := writeFrames(plain, files.images); err != nil {
		return err
	}
	served, err := peer.Files{Folder: plain}.Start(ctx, b.fresh())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, served.Stop()) }()
	return b.with(ctx, b.contender(shipped), []folder{files}, func(orthanc *peer.Server) error {
		return b.with(ctx, b.contender(pelago), []folder{files}, func(recent *peer.Server) error {
			packed := b.fresh()
			if err := b.pack(ctx, packed, many); err != nil {
				return err
			}
			for round := range b.rounds {
				if err := b.frameRound(ctx, s, round, many.images, files.images, packed, recent, orthanc, served); err != nil {
					return err
				}
			}
			return os.RemoveAll(packed)
		})
	})
}

// pack makes a data directory whose instances all rest in packs.
func (b *bench) pack(ctx context.Context, dir string, folders ...folder) error {
	node, err := b.filled(ctx, b.contender(pelago), dir, folders)
	if err != nil {
		return err
	}
	return errors.Join(peer.Node{Server: node}.Pack(ctx), node.Stop())
}

// frameRound gives everyone a turn.
func (b *bench) frameRound(ctx context.Context, s *sheet, round int, many, images []input.Instance, packed string, recent, orthanc, served *peer.Server) error {
	dicomweb := func(server *peer.Server) func(int) string {
		return func(n int) string {
			i := many[n] // images are its first
			return fmt.Sprintf("%s/studies/%s/series/%s/instances/%s/frames/1", server.Web, i.Study.UID, i.Study.SeriesUID(i.Series), i.UID())
		}
	}
	size := images[0].Bytes()
	node, err := b.pelago.Start(ctx, packed)
	if err != nil {
		return err
	}
	err = b.profiled(ctx, node, fmt.Sprintf("frames-packed-%d", round), func() error {
		first, err := rate(ctx, len(many), len(many), size, dicomweb(node))
		s.add("packed", "/s", pelago, first)
		return err
	})
	if err == nil {
		_, err = rate(ctx, len(images), len(images), size, dicomweb(node))
	}
	if err == nil {
		var again float64
		again, err = rate(ctx, len(images), b.size.frames, size, dicomweb(node))
		s.add("read", "/s", pelago, again)
	}
	if err := errors.Join(err, node.Stop()); err != nil {
		return err
	}
	var fresh float64
	err = b.profiled(ctx, recent, fmt.Sprintf("frames-stored-%d", round), func() (err error) {
		fresh, err = rate(ctx, len(images), b.size.frames, size, dicomweb(recent))
		return err
	})
	theirs, theirErr := rate(ctx, len(images), b.size.frames, size, dicomweb(orthanc))
	plain, plainErr := rate(ctx, len(images), b.size.frames, size, func(n int) string { return fmt.Sprintf("%s/%d", served.Web, n) })
	s.add("stored", "/s", pelago, fresh)
	for _, metric := range []string{"packed", "read", "stored"} {
		s.add(metric, "/s", shipped, theirs)
		s.add(metric, "/s", nethttp, plain)
	}
	b.say("  round %d", round+1)
	return errors.Join(err, theirErr, plainErr)
}

// rate has the clients fetch so many objects in turn, and returns how many a
// second came.
func rate(ctx context.Context, objects, requests int, size int64, url func(n int) string) (float64, error) {
	const accept = `multipart/related; type="application/octet-stream"; transfer-syntax=*`
	var next atomic.Int64
	client := newClient()
	defer client.close()
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= requests {
					return nil
				}
				if err := client.fetch(ctx, url(n%objects), accept, size); err != nil {
					return err
				}
			}
		})
	}
	err := group.Wait()
	return float64(requests) / time.Since(began).Seconds(), err
}

// writeFrames writes the frames' bytes into files named by their number.
func writeFrames(dir string, images []input.Instance) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for n, i := range images {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), i.Frame(0), 0o600); err != nil {
			return err
		}
	}
	return nil
}
