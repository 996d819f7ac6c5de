package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"pelago/chaos/bench/peer"
)

// row is what is measured together.
type row struct {
	name    string
	measure func(ctx context.Context, b *bench, s *sheet) error
	lines   []line
}

// rows lists those that were asked for, the most telling first.
func (o *options) rows() []row {
	switch {
	case o.network:
		return networkRows()
	case o.shards:
		return shardRows()
	}
	return aloneRows()
}

// aloneRows are those of a node alone.
func aloneRows() []row {
	return []row{
		{"store-one", storeOne, []line{
			{"C-STORE, one association, `storescu`, 800 CT of 526 KB", "store", "≥ 25× Orthanc, ≥ 0.8× the syncing bucket",
				[]check{{atLeast, shipped, 25}, {atLeast, syncing, 0.8}}},
		}},
		{"store-eight", storeEight, []line{
			{"the same, 8 associations", "store", "≥ 2.5× Orthanc without the stall, ≥ 0.8× the syncing bucket",
				[]check{{atLeast, unstalled, 2.5}, {atLeast, syncing, 0.8}}},
		}},
		{"store-tiny", storeTiny, []line{
			{"20,000 tiny studies, 4 associations", "store", "≥ 4× Orthanc without the stall", []check{{atLeast, unstalled, 4}}},
		}},
		{"store-sustained", storeSustained, []line{
			{"8 associations, sustained: rate", "store", "≥ 0.5× Orthanc without the stall, no sender refused", []check{{atLeast, unstalled, 0.5}}},
			{"8 associations, sustained: most that staging occupied", "staging", "≤ 8 GiB", []check{{most, "", 8}}},
			{"8 associations, sustained: senders refused", "refused", "0", []check{{most, "", 0}}},
		}},
		{"query", queries, queryLines()},
		{"start", starts, []line{
			{"start to ready, 1,000,000 studies", "start", "< 2 s", []check{{most, "", 2}}},
			{"CPU time of that", "start CPU", "< 2 s", []check{{most, "", 2}}},
			{"resident memory after queries of every shape, 1,000,000 studies", "resident", "< 512 MB", []check{{most, "", 512}}},
		}},
		{"frames", frames, []line{
			{"WADO-RS frames, 8 clients, from compressed packs", "packed", "≥ 3× Orthanc", []check{{atLeast, shipped, 3}}},
			{"the same, recently read", "read", "≥ 0.5× net/http serving the same bytes from files", []check{{atLeast, nethttp, 0.5}}},
			{"the same, recently stored", "stored", "≥ 0.5× net/http serving the same bytes from files", []check{{atLeast, nethttp, 0.5}}},
		}},
		{"metadata", metadata, []line{
			{"metadata of a series of 200, cold", "short cold", "≥ 10× Orthanc", []check{{faster, shipped, 10}}},
			{"metadata of a series of 200, warm", "short warm", "≥ 10× Orthanc", []check{{faster, shipped, 10}}},
			{"metadata of a series of 600, cold", "long cold", "≥ 10× Orthanc", []check{{faster, shipped, 10}}},
			{"metadata of a series of 600, warm", "long warm", "≥ 10× Orthanc", []check{{faster, shipped, 10}}},
		}},
		{"retrieve", retrieve, []line{
			{"C-GET of 400 images to `getscu`", "get", "≥ 10× Orthanc, ≥ 1× Orthanc without the stall", []check{{atLeast, shipped, 10}, {atLeast, unstalled, 1}}},
			{"C-MOVE of 400 images to `storescp`", "move", "≥ 10× Orthanc, ≥ 1× Orthanc without the stall", []check{{atLeast, shipped, 10}, {atLeast, unstalled, 1}}},
		}},
		{"rest", rest, []line{
			{"bytes at rest per byte received, real CT and MR", "rest CT and MR", "≤ 0.4", []check{{most, "", 0.4}}},
			{"of these CT alone", "rest CT", "≤ 0.4", []check{{most, "", 0.4}}},
			{"of these MR alone", "rest MR", "≤ 0.4", []check{{most, "", 0.4}}},
			{"bytes written per byte received, native pixels (real CT and MR)", "written CT and MR", "≤ 1.7", []check{{most, "", 1.7}}},
			{"bytes written per byte received, encapsulated pixels", "written encapsulated", "≤ 2.2", []check{{most, "", 2.2}}},
		}},
		{"memory", memory, []line{
			{"peak memory: 1 GB multi-frame stored, packed and read back", "multi-frame", "< 400 MB", []check{{most, "", 400}}},
			{"peak memory: 16 associations at once", "associations", "< 400 MB", []check{{most, "", 400}}},
		}},
	}
}

// contender is a server under a name.
type contender struct {
	name  string
	start peer.Starter
	fill  peer.Starter // of the server that fills it, where it is slow itself; nil: itself
}

func (b *bench) contender(name string) contender {
	switch name {
	case pelago:
		return contender{name: name, start: b.pelago.Start}
	case shipped:
		return contender{name: name, start: peer.Orthanc{}.Start, fill: peer.Orthanc{Preload: b.shim}.Start}
	case unstalled:
		return contender{name: name, start: peer.Orthanc{Preload: b.shim}.Start}
	case dropping:
		return contender{name: name, start: peer.Bucket{}.Start}
	case syncing:
		return contender{name: name, start: peer.Bucket{Syncing: true}.Start}
	}
	panic("no contender " + name) // the names are constants
}

// settle lets the disk write back, so that nobody pays for the one before.
func (b *bench) settle(ctx context.Context) error {
	return exec.CommandContext(ctx, "sync", "-f", b.dir).Run()
}

// with starts a server on a directory that holds nothing but what it is filled
// with, uses it, ends it and removes the directory.
func (b *bench) with(ctx context.Context, c contender, filled []folder, use func(*peer.Server) error) error {
	dir := b.fresh()
	s, err := b.filled(ctx, c, dir, filled)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	err = errors.Join(use(s), s.Stop())
	for _, left := range []string{dir, dir + ".log", dir + ".bucket"} {
		err = errors.Join(err, os.RemoveAll(left))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// filled starts a server and stores folders into it, or has them stored by the
// one that fills its directory first.
func (b *bench) filled(ctx context.Context, c contender, dir string, folders []folder) (*peer.Server, error) {
	start := c.start
	if c.fill != nil && len(folders) > 0 {
		start = c.fill
	}
	s, err := start(ctx, dir)
	if err != nil {
		return nil, err
	}
	files := 0
	for _, f := range folders {
		files += f.files
		if err := parallel(ctx, s, f.paths, nil); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
	}
	if len(folders) > 0 {
		err = b.holds(ctx, s, files)
	}
	if err != nil || c.fill == nil || len(folders) == 0 {
		return s, err
	}
	if err := s.Stop(); err != nil {
		return nil, err
	}
	return c.start(ctx, dir)
}

// profiled runs something while a profile of a node is taken, if wanted.
func (b *bench) profiled(ctx context.Context, s *peer.Server, name string, run func() error) error {
	if b.profile == "" || s.AE != "PELAGO" {
		return run()
	}
	if err := os.MkdirAll(b.profile, 0o700); err != nil {
		return err
	}
	const seconds = 5
	taken := make(chan error, 1)
	go func() {
		taken <- peer.Node{Server: s}.Profile(ctx, seconds*time.Second, filepath.Join(b.profile, name+".pprof"))
	}()
	return errors.Join(run(), <-taken)
}
