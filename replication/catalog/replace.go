package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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
	replaceTableBytes = 32 << 20
	// replaceWait bounds the waiting for a moment without readers: they are short.
	replaceWait = time.Minute
)

// Prepare makes a copied checkpoint, which nobody has open, that of the node self
// (see [Adopt]), reads every block of it, and returns the hash of its state, as it
// says itself, and the index of that. Beside the folder it leaves what
// [Catalog.Replace] takes in, in one of the same name with ".tables" behind it. That
// its records add up to that hash, and its indexes to its records, is for
// [Catalog.Verify] to tell, which takes longer than all of this.
func (c *Catalog) Prepare(ctx context.Context, dir, self string) (hash [32]byte, index uint64, err error) {
	if err := Adopt(c.fs, dir, self); err != nil {
		return hash, 0, err
	}
	copied, err := Open(Options{FS: c.fs, Dir: dir, CacheBytes: prepareCacheBytes, Indexer: c.indexer, resting: true})
	if err != nil {
		return hash, 0, err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	if err := c.writeTables(ctx, copied.db, tablesFolder(dir)); err != nil {
		return hash, 0, errors.Join(err, c.fs.RemoveAll(tablesFolder(dir)))
	}
	hash, index = copied.StateHash()
	return hash, index, nil
}

const prepareCacheBytes = 16 << 20

func tablesFolder(dir string) string { return dir + ".tables" }

// Replace puts the checkpoint in dir, which Prepare has read, in the place
// of all that this catalogue holds, under its users: readers go on before or
// after, and never see some of each. It is one step of Pebble's, durable when
// Replace returns; after a crash there is the one or the other. What this node has
// said ahead of the log is gone unless the copy has it.
//
// fault.Unavailable when there is no moment without readers: nothing has changed
// then, and it may be called again. After any other error Prepare and Replace must
// be called again before Apply.
func (c *Catalog) Replace(ctx context.Context, dir string) error {
	tables := tablesFolder(dir)
	names, err := c.fs.List(tables)
	if err == nil && len(names) == 0 {
		err = errors.New("no tables")
	}
	if err != nil {
		return fault.New(fault.Invalid, "catalog: replace: the copy was not prepared: %w", err)
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
	c.slots.forget()
	if err := errors.Join(c.fs.RemoveAll(tables), c.load()); err != nil {
		return err
	}
	c.told.forget()
	c.told.notify(nil)
	return nil
}

// writeTables writes all rows of a copy into tables that Pebble can take in: stretches
// of keys at the same time, for the node waits for it.
func (c *Catalog) writeTables(ctx context.Context, from *pebble.DB, tables string) (err error) {
	if err := errors.Join(c.fs.RemoveAll(tables), c.fs.MkdirAll(tables, 0o700)); err != nil {
		return fmt.Errorf("catalog: tables of a copy: %w", err)
	}
	stretches, err := stretchesOf(from)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var rows atomic.Uint64
	for i, keys := range stretches {
		group.Go(func() error {
			n, err := c.writeStretch(ctx, from, keys, c.fs.PathJoin(tables, fmt.Sprintf("%06d", i)))
			rows.Add(n)
			if err != nil {
				return fault.New(fault.KindOf(err), "catalog: tables of a copy: %w", err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if rows.Load() == 0 {
		return fault.New(fault.Corrupt, "catalog: an empty copy")
	}
	return nil
}

// stretchesOf cuts the keys of a database where tables of it begin, so that what
// lies between two cuts rests in about replaceTableBytes.
func stretchesOf(db *pebble.DB) ([]pebble.KeyRange, error) {
	levels, err := db.SSTables()
	if err != nil {
		return nil, fmt.Errorf("catalog: tables of a copy: %w", err)
	}
	tables := slices.Concat(levels...)
	slices.SortFunc(tables, func(a, b pebble.SSTableInfo) int { return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey) })
	var cuts []pebble.KeyRange
	var from []byte
	var size uint64
	for _, t := range tables {
		if size >= replaceTableBytes && bytes.Compare(t.Smallest.UserKey, from) > 0 {
			cuts = append(cuts, pebble.KeyRange{Start: from, End: t.Smallest.UserKey})
			from, size = t.Smallest.UserKey, 0
		}
		size += t.Size
	}
	return append(cuts, pebble.KeyRange{Start: from}), nil
}

// writeStretch writes the rows of some keys into tables whose names begin alike,
// and returns how many they are.
func (c *Catalog) writeStretch(ctx context.Context, from *pebble.DB, keys pebble.KeyRange, name string) (rows uint64, err error) {
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: keys.Start, UpperBound: keys.End})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n := 0
	for valid := it.First(); valid; n++ {
		if err := ctx.Err(); err != nil {
			return rows, err
		}
		var written uint64
		valid, written, err = c.tableOf(it, fmt.Sprintf("%s-%06d.sst", name, n))
		if rows += written; err != nil {
			return rows, err
		}
	}
	return rows, it.Error()
}

// tableOf writes one table from where an iterator stands, and leaves it behind
// the last row, or not valid at the end.
func (c *Catalog) tableOf(it *pebble.Iterator, path string) (valid bool, rows uint64, err error) {
	f, err := c.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return false, 0, err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), c.writing)
	for valid = true; valid && err == nil && w.Raw().EstimatedSize() < replaceTableBytes; rows++ {
		if err = w.Set(it.Key(), it.Value()); err == nil {
			valid = it.Next()
		}
	}
	return valid, rows, errors.Join(err, w.Close())
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
