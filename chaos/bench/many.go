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
	"pelago/replication"
	"pelago/replication/catalog"
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
		if err := load(ctx, dir, p); err != nil {
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

// load applies the population's studies to the catalogue of a data directory, as
// its node's own.
func load(ctx context.Context, dir string, p input.Population) (err error) {
	self, err := identity.Open(vfs.Default, filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	const cache = 1 << 30 // studies of a patient are far apart
	c, err := catalog.Open(catalog.Options{FS: vfs.Default, Dir: filepath.Join(dir, "catalog"), Indexer: plan.Indexer{}, CacheBytes: cache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Sync(), c.Close()) }()
	const perBatch, perApply = 100, 1000
	batch := catalog.Batch{Node: self.ID(), Site: site, Incarnation: 1}
	at, last := c.Position(), [32]byte{}
	for from := 0; from < p.Size; from += perApply {
		var entries []replication.Entry
		for first := from; first < min(from+perApply, p.Size); first += perBatch {
			batch.Number, batch.Facts = batch.Number+1, nil
			for i := first; i < min(first+perBatch, p.Size); i++ {
				batch.Facts = append(batch.Facts, fact(batch.Node, p.Study(i), i))
			}
			var entry []byte
			if entry, last, err = catalog.EncodeBatch(self, batch, last); err != nil {
				return err
			}
			at.Index, at.Term = at.Index+1, max(at.Term, 1)
			entries = append(entries, replication.Entry{Index: at.Index, Term: at.Term, Data: entry})
		}
		if err := errors.Join(c.Apply(entries, at), ctx.Err()); err != nil {
			return err
		}
		for _, e := range entries {
			results, _ := c.Results(e.Index)
			if err := errors.Join(results...); err != nil {
				return err
			}
		}
	}
	return nil
}

// site is that of nodes that were told no other.
const site = "local"

// fact is what a node would announce of the study's one series.
func fact(node string, s input.Study, i int) *catalog.SeriesFact {
	image := input.Instance{Study: s, Series: 1, Number: 1, Rows: 512, Columns: 512}
	f := &catalog.SeriesFact{
		Origin: node, Site: site, AsOf: uint64(i + 1), Study: s.UID, Series: s.SeriesUID(1), Issuer: site,
		Attributes: catalog.Attributes(&dicom.Header{Dataset: image.Header()}),
		Instances:  1 + uint64(i%400), Classes: []string{s.Class}, Arrived: 1_700_000_000_000_000 + int64(i)*1000,
	}
	f.Bytes = f.Instances * 526_000
	for n := range f.UIDHash {
		f.UIDHash[n] = byte(i >> (8 * (n % 4)))
	}
	return f
}
