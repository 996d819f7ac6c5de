package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/bench/input"
)

// inputs are files made once and used by several rows.
type inputs struct {
	dir  string
	made map[string]folder
	mu   sync.Mutex // guards made: some rows make several at once
}

// folder is a tree of instances.
type folder struct {
	paths  []string // its sub-folders
	files  int
	bytes  int64
	images []input.Instance // in the order of their numbers, where few
}

// make makes a folder of a name once.
func (in *inputs) make(name string, fill func(dir string) (folder, error)) (folder, error) {
	in.mu.Lock()
	f, ok := in.made[name]
	in.mu.Unlock()
	if ok {
		return f, nil
	}
	f, err := fill(filepath.Join(in.dir, name))
	if err != nil {
		return f, fmt.Errorf("input %s: %w", name, err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.made == nil {
		in.made = map[string]folder{}
	}
	in.made[name] = f
	return f, nil
}

// seeds of the populations, one for each purpose.
const (
	seedImages = iota + 1
	seedTiny
	seedStudy
	seedMulti
	seedMany
	seedNetwork // and those above, as many as its rows have rounds
)

// ct returns images of CT series of one study each, in one tree: a sub-folder
// a series.
func (b *bench) ct(name string, seed uint64, images, perSeries int) (folder, error) {
	return b.inputs.make(name, func(dir string) (folder, error) {
		study := input.Population{Seed: seed, Size: 1}.Study(0)
		study.Modality, study.Class = "CT", input.CTImageStorage
		var all []input.Instance
		for n := range images {
			all = append(all, input.Instance{
				Study: study, Series: 1 + n/perSeries, Number: 1 + n%perSeries, Rows: b.size.edge, Columns: b.size.edge,
			})
		}
		return write(dir, all, func(n int) string { return fmt.Sprintf("series%02d", all[n].Series) })
	})
}

// tiny returns studies of one 64-pixel instance each, in four sub-folders.
func (b *bench) tiny(seed uint64, studies int) (folder, error) {
	return b.inputs.make(fmt.Sprintf("tiny-%d", studies), func(dir string) (folder, error) {
		p := input.Population{Seed: seed, Size: studies}
		all := make([]input.Instance, studies)
		for n := range all {
			all[n] = input.Instance{Study: p.Study(n), Series: 1, Number: 1, Rows: 8, Columns: 8}
		}
		return write(dir, all, func(n int) string { return fmt.Sprintf("part%d", n%4) })
	})
}

// write writes instances into the sub-folders that place names.
func write(dir string, all []input.Instance, place func(n int) string) (folder, error) {
	f := folder{files: len(all), images: all}
	known := map[string]bool{}
	for n := range all {
		if sub := filepath.Join(dir, place(n)); !known[sub] {
			known[sub] = true
			f.paths = append(f.paths, sub)
			if err := os.MkdirAll(sub, 0o700); err != nil {
				return f, err
			}
		}
	}
	sizes := make([]int64, len(all))
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for n := range all {
		group.Go(func() (err error) {
			sizes[n], err = all[n].WriteFile(filepath.Join(dir, place(n)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return f, err
	}
	for _, size := range sizes {
		f.bytes += size
	}
	return f, nil
}

// small returns studies of several series of 64-pixel images, a sub-folder a
// study; images are in its order.
func (b *bench) small(name string, seed uint64, studies, series, perSeries int) (folder, error) {
	return b.inputs.make(name, func(dir string) (folder, error) {
		p := input.Population{Seed: seed, Size: studies}
		var all []input.Instance
		for n := range studies * series * perSeries {
			all = append(all, input.Instance{
				Study: p.Study(n / (series * perSeries)), Series: 1 + n/perSeries%series, Number: 1 + n%perSeries, Rows: 8, Columns: 8,
			})
		}
		return write(dir, all, func(n int) string { return fmt.Sprintf("study%03d", n/(series*perSeries)) })
	})
}

// noise returns images that hardly shrink, series of one image each, in one study; a
// sub-folder a hundred.
func (b *bench) noise(name string, seed uint64, images, edge int) (folder, error) {
	return b.inputs.make(name, func(dir string) (folder, error) {
		study := input.Population{Seed: seed, Size: 1}.Study(0)
		study.Modality, study.Class = "CT", input.CTImageStorage
		all := make([]input.Instance, images)
		for n := range all {
			all[n] = input.Instance{Study: study, Series: 1 + n, Number: 1, Rows: edge, Columns: edge, Noise: true}
		}
		return write(dir, all, func(n int) string { return fmt.Sprintf("part%02d", n/100) })
	})
}

// drop removes the files of a folder that is not used again.
func (in *inputs) drop(f folder) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for name, made := range in.made {
		if len(made.paths) > 0 && len(f.paths) > 0 && made.paths[0] == f.paths[0] {
			delete(in.made, name)
		}
	}
	for _, path := range f.paths {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
