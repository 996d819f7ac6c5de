package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
)

// corpus is a part of the real files.
type corpus struct {
	name    string
	folders []string
	native  bool
}

var (
	realCT = []string{"ct/series-ge-head-28", "ct/series-slicer-head-93", "ct/single"}
	realMR = []string{"mr/series-dcmqi-adc-20", "mr/series-nih-ge-epi-150", "mr/siemens-e11-diffusion", "mr/single"}

	corpora = []corpus{
		{"CT and MR", slices.Concat(realCT, realMR), true},
		{"CT", realCT, true},
		{"MR", realMR, true},
		{"encapsulated", []string{"ct/same-image-many-syntaxes", "ct/single", "mr/single", "mr/single-j2k-multifragment", "us", "xa", "cr-dx"}, false},
	}
)

// rest measures what the node writes and keeps of real files.
func rest(ctx context.Context, b *bench, s *sheet) error {
	s.note("each real file %d times, in studies under invented UIDs; at rest: what the data directory without staging has grown by once all is packed and the node was started again; written: /proc/PID/io from the first byte to the end of packing", b.size.copies)
	for _, c := range corpora {
		files, err := b.real(c)
		if err != nil {
			return err
		}
		s.note("%s: %d instances, %s MB", c.name, files.files, number(float64(files.bytes)/1e6))
		for range b.rounds {
			err := b.with(ctx, b.contender(pelago), nil, func(server *peer.Server) error {
				return b.restOnce(ctx, s, c, server, files)
			})
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return nil
}

func (b *bench) restOnce(ctx context.Context, s *sheet, c corpus, fresh *peer.Server, files folder) (err error) {
	server, empty, err := b.rested(ctx, fresh)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	before, err := server.Written()
	if err != nil {
		return err
	}
	if err := sendReal(ctx, server, files.paths); err != nil {
		return err
	}
	if err := errors.Join(b.holds(ctx, server, files.files), peer.Node{Server: server}.Pack(ctx), b.settle(ctx)); err != nil {
		return err
	}
	after, err := server.Written()
	if err != nil {
		return err
	}
	again, kept, err := b.rested(ctx, server)
	if err != nil {
		return err
	}
	server = again
	s.add("written "+c.name, "×", pelago, float64(after-before)/float64(files.bytes))
	s.add("rest "+c.name, "×", pelago, float64(kept-empty)/float64(files.bytes))
	return nil
}

// rested ends a node and starts it again, which turns logs into tables and
// gives back what was allocated ahead, and returns it with what it keeps then.
func (b *bench) rested(ctx context.Context, server *peer.Server) (*peer.Server, int64, error) {
	if err := server.Stop(); err != nil {
		return nil, 0, err
	}
	again, err := b.pelago.Start(ctx, server.Dir)
	if err != nil {
		return nil, 0, err
	}
	_, kept, err := peer.Node{Server: again}.Rest()
	if err != nil {
		return nil, 0, errors.Join(err, again.Stop())
	}
	return again, kept, nil
}

// real returns variants of a corpus's files.
func (b *bench) real(c corpus) (folder, error) {
	return b.inputs.make("real-"+c.name, func(dir string) (folder, error) {
		f := folder{paths: []string{dir}}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return f, err
		}
		for _, sub := range c.folders {
			err := filepath.WalkDir(filepath.Join(b.samples, sub), func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() {
					return err
				}
				return vary(&f, dir, path, c.native, b.size.copies)
			})
			if err != nil {
				return f, fmt.Errorf("the real files (-samples): %w", err)
			}
		}
		if f.files == 0 {
			return f, errors.New("no suitable file among the samples")
		}
		return f, nil
	})
}

// vary writes the copies of one file, if it belongs to the corpus.
func vary(f *folder, dir, path string, native bool, copies int) error {
	file, err := input.Load(path)
	if errors.Is(err, input.ErrUnsuitable) || err == nil && file.Native() != native {
		return nil
	}
	if err != nil {
		return err
	}
	for n := range copies {
		variant := file.Vary(f.files, n)
		if err := variant.Write(dir); err != nil {
			return err
		}
		f.files++
		f.bytes += int64(len(variant.File))
	}
	return nil
}
