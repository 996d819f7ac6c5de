package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/chaos/bench/input"
	"pelago/cluster/identity"
	"pelago/dimse/dicom"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard/keys"
)

// catalogue returns the data directory of a node that knows the many studies and
// has a key for each of them, made once: in a run, or for all runs that are given
// -catalogue.
func (b *bench) catalogue(ctx context.Context) (string, input.Population, error) {
	p := input.Population{Seed: seedMany, Size: b.size.studies}
	home := filepath.Join(b.dir, "many")
	if b.kept != "" {
		home = filepath.Join(b.kept, fmt.Sprintf("studies-%d", p.Size))
	}
	dir, loaded, keyed := filepath.Join(home, "data"), filepath.Join(home, "loaded"), filepath.Join(home, "keyed")
	_, err := b.inputs.make("many", func(string) (folder, error) {
		if _, err := os.Stat(keyed); err == nil {
			return folder{files: p.Size}, nil
		}
		if _, err := os.Stat(loaded); err == nil {
			return folder{files: p.Size}, b.key(ctx, dir, p, keyed)
		}
		if err := errors.Join(os.RemoveAll(home), os.MkdirAll(home, 0o700)); err != nil {
			return folder{}, err
		}
		node, err := b.pelago.Start(ctx, dir) // makes the stores
		if err != nil {
			return folder{}, err
		}
		if err := node.Stop(); err != nil {
			return folder{}, err
		}
		began := time.Now()
		if err := load(ctx, filepath.Join(dir, "catalog"), p); err != nil {
			return folder{}, err
		}
		b.say("  catalogue of %d studies loaded in %v", p.Size, time.Since(began).Round(time.Second))
		if err := os.WriteFile(loaded, nil, 0o600); err != nil {
			return folder{}, err
		}
		return folder{files: p.Size}, b.key(ctx, dir, p, keyed)
	})
	return dir, p, err
}

// key gives every study its key, as packing would have, and says so in a file.
func (b *bench) key(ctx context.Context, dir string, p input.Population, done string) (err error) {
	folder := filepath.Join(dir, "keys")
	self, err := identity.Open(vfs.Default, folder)
	if err != nil {
		return err
	}
	ring, err := keys.Open(vfs.Default, folder, self)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	const batch = 10_000
	for from := 0; from < p.Size; from += batch {
		var studies []string
		for i := from; i < min(from+batch, p.Size); i++ {
			studies = append(studies, p.Study(i).UID)
		}
		if err := errors.Join(ring.Prepare(studies...), ctx.Err()); err != nil {
			return err
		}
	}
	return os.WriteFile(done, nil, 0o600)
}

// load applies the population's studies to a catalogue.
func load(ctx context.Context, dir string, p input.Population) (err error) {
	const cache = 1 << 30 // studies of a patient are far apart
	c, err := catalog.Open(catalog.Options{FS: vfs.Default, Dir: dir, Indexer: plan.Indexer{}, CacheBytes: cache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Sync(), c.Close()) }()
	const batch = 1000
	a := alone.New(c)
	for from := 0; from < p.Size; from += batch {
		var facts []any
		for i := from; i < min(from+batch, p.Size); i++ {
			facts = append(facts, fact(p.Study(i), i))
		}
		results, err := a.Do(facts...)
		if err := errors.Join(append(results, err, ctx.Err())...); err != nil {
			return err
		}
	}
	return nil
}

// fact is what a node would announce of the study's one series.
func fact(s input.Study, i int) *catalog.SeriesFact {
	image := input.Instance{Study: s, Series: 1, Number: 1, Rows: 512, Columns: 512}
	f := &catalog.SeriesFact{
		Origin: "3f9a1c77d0e2b4a6", Site: "local", AsOf: uint64(i + 1), Study: s.UID, Series: s.SeriesUID(1), Issuer: "local",
		Attributes: catalog.Attributes(&dicom.Header{Dataset: image.Header()}),
		Instances:  1 + uint64(i%400), Classes: []string{s.Class}, Arrived: 1_700_000_000_000_000 + int64(i)*1000,
	}
	f.Bytes = f.Instances * 526_000
	for n := range f.UIDHash {
		f.UIDHash[n] = byte(i >> (8 * (n % 4)))
	}
	return f
}
