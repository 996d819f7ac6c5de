package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

const (
	// replaceTableBytes is how long the tables are that a replacement is made of.
	replaceTableBytes = 64 << 20
	// replaceWait bounds the waiting for a moment without readers: they are short.
	replaceWait = time.Minute
)

// Inspect makes a copied checkpoint, which nobody has open, that of the node self
// (see [Adopt]), verifies all of it, and returns the hash of its state and the
// index of that. fault.Corrupt if it is not whole.
func (c *Catalog) Inspect(ctx context.Context, dir, self string) (hash [32]byte, index uint64, err error) {
	if err := Adopt(c.fs, dir, self); err != nil {
		return hash, 0, err
	}
	copied, err := Open(Options{FS: c.fs, Dir: dir, CacheBytes: inspectCacheBytes, Indexer: c.indexer})
	if err != nil {
		return hash, 0, err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	var bad error
	breaches := 0
	err = copied.Verify(ctx, func(breach error) {
		if breaches++; bad == nil {
			bad = breach
		}
	})
	if err == nil && bad != nil {
		err = fault.New(fault.Corrupt, "catalog: the copy has %d breaches, the first: %w", breaches, bad)
	}
	hash, index = copied.StateHash()
	return hash, index, err
}

const inspectCacheBytes = 16 << 20

// Replace puts the checkpoint in dir, which Inspect has found whole, in the place
// of all that this catalogue holds, under its users: readers go on before or
// after, and never see some of each. It is one step of Pebble's, durable when
// Replace returns; after a crash there is the one or the other. What this node has
// said ahead of the log is gone unless the copy has it.
//
// fault.Unavailable when there is no moment without readers: nothing has changed
// then. After any other error Replace must be called again before Apply.
func (c *Catalog) Replace(ctx context.Context, dir string) (err error) {
	tables := dir + ".tables"
	defer func() { err = errors.Join(err, c.fs.RemoveAll(tables)) }()
	paths, err := c.tablesOf(ctx, dir, tables)
	if err != nil {
		return err
	}
	if err := c.readers.shut(ctx, replaceWait); err != nil {
		return err
	}
	defer c.readers.open()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stones.Store(true) // who asks for a tombstone meanwhile looks for it
	everything := pebble.KeyRange{Start: []byte{0}, End: []byte{0xFF}}
	if _, err := c.db.IngestAndExcise(ctx, paths, nil, nil, everything); err != nil {
		return fmt.Errorf("catalog: replace: %w", err)
	}
	c.vocabulary, c.patients = remembered{}, remembered{}
	if err := c.load(); err != nil {
		return err
	}
	c.told.forget()
	c.told.notify(nil)
	return nil
}

// tablesOf writes all rows of a checkpoint into tables that Pebble can take in.
func (c *Catalog) tablesOf(ctx context.Context, dir, tables string) (paths []string, err error) {
	if err := errors.Join(c.fs.RemoveAll(tables), c.fs.MkdirAll(tables, 0o700)); err != nil {
		return nil, fmt.Errorf("catalog: replace: %w", err)
	}
	cache := pebble.NewCache(inspectCacheBytes)
	defer cache.Unref()
	o := pebbleOptions(c.fs, cache)
	o.ReadOnly = true
	from, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("catalog: replace: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	it, err := from.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("catalog: replace: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for valid := it.First(); valid; {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.KindOf(err), "catalog: replace: %w", err)
		}
		path := c.fs.PathJoin(tables, fmt.Sprintf("%06d.sst", len(paths)))
		if valid, err = c.tableOf(it, path); err != nil {
			return nil, fmt.Errorf("catalog: replace: %w", err)
		}
		paths = append(paths, path)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("catalog: replace: %w", err)
	}
	if len(paths) == 0 {
		return nil, fault.New(fault.Corrupt, "catalog: replace: an empty checkpoint")
	}
	return paths, nil
}

// tableOf writes one table from where an iterator stands, and leaves it behind
// the last row, or not valid at the end.
func (c *Catalog) tableOf(it *pebble.Iterator, path string) (valid bool, err error) {
	f, err := c.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return false, err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), c.writing)
	for valid = true; valid && err == nil && w.Raw().EstimatedSize() < replaceTableBytes; {
		if err = w.Set(it.Key(), it.Value()); err == nil {
			valid = it.Next()
		}
	}
	return valid, errors.Join(err, w.Close())
}

// gate lets readers of several rows in together, and keeps them out while all rows
// are replaced. Who is in may enter again: the gate shuts only while nobody is.
type gate struct {
	mu     sync.Mutex
	inside int
	empty  chan struct{} // of who waits for it to be shut; else nil
	closed chan struct{} // while it is shut; else nil
}

func (g *gate) enter() {
	g.mu.Lock()
	for g.closed != nil {
		closed := g.closed
		g.mu.Unlock()
		<-closed
		g.mu.Lock()
	}
	g.inside++
	g.mu.Unlock()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.empty != nil {
		// Shut here, not by who waits: a search goes from one view to the next, and
		// would be in again before that one wakes.
		g.closed = make(chan struct{})
		close(g.empty)
		g.empty = nil
	}
}

// shut waits for a moment without readers. One caller at a time.
func (g *gate) shut(ctx context.Context, limit time.Duration) error {
	g.mu.Lock()
	if g.inside == 0 {
		g.closed = make(chan struct{})
		g.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	g.empty = empty
	g.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var err error
	select {
	case <-empty:
		return nil
	case <-timer.C:
		err = fault.New(fault.Unavailable, "catalog: it is being read all the time")
	case <-ctx.Done():
		err = fault.New(fault.KindOf(ctx.Err()), "catalog: replace: %w", ctx.Err())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty == nil { // it was shut at the same moment
		return nil
	}
	g.empty = nil
	return err
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.closed)
	g.closed = nil
}
