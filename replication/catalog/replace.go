package catalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

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
// index of that. Beside the folder it leaves what [Catalog.Replace] takes in, in
// one of the same name with ".tables" behind it. fault.Corrupt if the copy is not
// whole.
func (c *Catalog) Inspect(ctx context.Context, dir, self string) (hash [32]byte, index uint64, err error) {
	if err := Adopt(c.fs, dir, self); err != nil {
		return hash, 0, err
	}
	copied, err := Open(Options{FS: c.fs, Dir: dir, CacheBytes: inspectCacheBytes, Indexer: c.indexer})
	if err != nil {
		return hash, 0, err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	// Both read every row, and the node waits for them: on all cores.
	group, within := errgroup.WithContext(ctx)
	group.Go(func() error { return copied.whole(within) })
	group.Go(func() error { return c.writeTables(within, copied.db, tablesFolder(dir)) })
	if err := group.Wait(); err != nil {
		return hash, 0, errors.Join(err, c.fs.RemoveAll(tablesFolder(dir)))
	}
	hash, index = copied.StateHash()
	return hash, index, nil
}

const inspectCacheBytes = 16 << 20

func tablesFolder(dir string) string { return dir + ".tables" }

// whole is Verify, whose breaches are fault.Corrupt.
func (c *Catalog) whole(ctx context.Context) error {
	var first error
	breaches := 0
	err := c.verify(ctx, runtime.GOMAXPROCS(0), func(breach error) {
		if breaches++; first == nil {
			first = breach
		}
	})
	if err == nil && first != nil {
		err = fault.New(fault.Corrupt, "catalog: the copy has %d breaches, the first: %w", breaches, first)
	}
	return err
}

// Replace puts the checkpoint in dir, which Inspect has found whole, in the place
// of all that this catalogue holds, under its users: readers go on before or
// after, and never see some of each. It is one step of Pebble's, durable when
// Replace returns; after a crash there is the one or the other. What this node has
// said ahead of the log is gone unless the copy has it.
//
// fault.Unavailable when there is no moment without readers: nothing has changed
// then, and it may be called again. After any other error Inspect and Replace must
// be called again before Apply.
func (c *Catalog) Replace(ctx context.Context, dir string) error {
	tables := tablesFolder(dir)
	names, err := c.fs.List(tables)
	if err == nil && len(names) == 0 {
		err = errors.New("no tables")
	}
	if err != nil {
		return fault.New(fault.Invalid, "catalog: replace: the copy was not inspected: %w", err)
	}
	slices.Sort(names)
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = c.fs.PathJoin(tables, name)
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
		return errors.Join(fmt.Errorf("catalog: replace: %w", err), c.fs.RemoveAll(tables))
	}
	c.vocabulary, c.patients = remembered{}, remembered{}
	if err := errors.Join(c.fs.RemoveAll(tables), c.load()); err != nil {
		return err
	}
	c.told.forget()
	c.told.notify(nil)
	return nil
}

// writeTables writes all rows of a copy into tables that Pebble can take in.
func (c *Catalog) writeTables(ctx context.Context, from *pebble.DB, tables string) (err error) {
	if err := errors.Join(c.fs.RemoveAll(tables), c.fs.MkdirAll(tables, 0o700)); err != nil {
		return fmt.Errorf("catalog: tables of a copy: %w", err)
	}
	it, err := from.NewIter(nil)
	if err != nil {
		return fmt.Errorf("catalog: tables of a copy: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n := 0
	for valid := it.First(); valid; n++ {
		if err := ctx.Err(); err != nil {
			return fault.New(fault.KindOf(err), "catalog: tables of a copy: %w", err)
		}
		if valid, err = c.tableOf(it, c.fs.PathJoin(tables, fmt.Sprintf("%06d.sst", n))); err != nil {
			return fmt.Errorf("catalog: tables of a copy: %w", err)
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: tables of a copy: %w", err)
	}
	if n == 0 {
		return fault.New(fault.Corrupt, "catalog: an empty copy")
	}
	return nil
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
