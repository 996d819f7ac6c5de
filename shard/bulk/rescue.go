package bulk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble reads its manifest up to the first broken record and removes every
// table that it does not find there: one rotten byte would take whole years.
// So its tables pass a guard: what lies in its folder when it opens is not
// removed before the ledger agreed.

// guard is the file system as Pebble sees it.
type guard struct {
	vfs.FS

	mu   sync.Mutex
	held map[string]bool // paths
}

// Remove removes a file unless it is held. Pebble then forgets it.
func (g *guard) Remove(name string) error {
	g.mu.Lock()
	held := g.held[name]
	g.mu.Unlock()
	if held {
		return nil
	}
	return g.FS.Remove(name)
}

// Create creates a file. Pebble's markers name other files of the folder, and it
// does not sync the folder in between: a crash could keep a marker and lose what
// it names.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(g.FS.PathBase(name), "marker.") {
		if err := syncDir(g.FS, g.FS.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return g.FS.Create(name, category)
}

// Unwrap is for vfs.Root.
func (g *guard) Unwrap() vfs.FS { return g.FS }

// hold protects the tables that lie in a folder.
func (g *guard) hold(dir string) error {
	names, err := g.FS.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		if strings.HasSuffix(name, tableSuffix) {
			g.held[g.FS.PathJoin(dir, name)] = true
		}
	}
	return nil
}

// release leaves the tables that Pebble knows to Pebble, and returns the paths
// of the others, which it will not touch any more.
func (g *guard) release(known map[string]bool) (left []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for path := range g.held {
		if known[g.FS.PathBase(path)] {
			delete(g.held, path)
		} else {
			left = append(left, path)
		}
	}
	slices.Sort(left)
	return left
}

const tableSuffix = ".sst"

// rescue looks at table files that Pebble does not know. One that the ledger
// counts on comes back; one that the ledger knows as gone is removed; one that
// cannot be read is put aside.
func (s *Store) rescue(ctx context.Context, left []string, found *inventory, damaged bool) error {
	for i := len(left) - 1; i >= 0; i-- { // the newest of a table first
		path := left[i]
		key, err := s.identify(path)
		if err != nil {
			if err := s.putAside(path, err); err != nil {
				return err
			}
			continue
		}
		_, present := found.present[key]
		t := s.tables[key]
		wanted := t != nil && t.live > 0 || t == nil && (damaged || key.number >= s.next)
		if !wanted || present || s.begun[key] {
			if err := s.o.FS.Remove(path); err != nil {
				return fmt.Errorf("bulk: remove a dead table: %w", err)
			}
			continue
		}
		s.o.Log.Warn("a table of bulk storage that the manifest had lost comes back", "table", key.String())
		if err := s.bringBack(ctx, key, path, found); err != nil {
			return err
		}
	}
	return nil
}

// bringBack ingests a table file anew.
func (s *Store) bringBack(ctx context.Context, key tableKey, path string, found *inventory) error {
	info, err := s.o.FS.Stat(path)
	if err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	out := s.o.FS.PathJoin(s.ingestDir, s.o.FS.PathBase(path))
	if err := s.o.FS.Rename(path, out); err != nil {
		return fmt.Errorf("bulk: bring back a table: %w", err)
	}
	if _, err := s.db.IngestAndExcise(ctx, []string{out}, nil, nil, key.span()); err != nil {
		return diskError("bring back a table", err)
	}
	delete(found.missing, key)
	found.present[key] = info.Size()
	return s.usable()
}

// putAside keeps a table file that cannot be read, for the operator.
func (s *Store) putAside(path string, cause error) error {
	fs := s.o.FS
	dir := fs.PathJoin(s.o.Dir, "damaged")
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return diskError("put a table aside", err)
	}
	to := fs.PathJoin(dir, fs.PathBase(path))
	s.o.Log.Error("a table file of bulk storage cannot be read; it is put aside", "file", to, "error", cause)
	if err := fs.Rename(path, to); err != nil {
		return fmt.Errorf("bulk: put a table aside: %w", err)
	}
	return nil
}

// identify reads which table a file holds, by its first key.
func (s *Store) identify(path string) (tableKey, error) {
	opened, err := s.o.FS.Open(path)
	if err != nil {
		return tableKey{}, err
	}
	f := &closedOnce{File: opened}
	it, err := pebble.NewExternalIter(s.pebbleOptions, &pebble.IterOptions{KeyTypes: pebble.IterKeyTypePointsOnly},
		[][]sstable.ReadableFile{{f}})
	if err != nil {
		return tableKey{}, errors.Join(err, f.Close())
	}
	var key tableKey
	ok := it.First()
	if ok {
		key, ok = parseKey(it.Key())
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return tableKey{}, err
	}
	if !ok {
		return tableKey{}, errors.New("no keys of ours")
	}
	return key, nil
}

// closedOnce is a file that may be closed again: of one that it cannot read, Pebble closes
// it or not, by where it failed.
type closedOnce struct {
	vfs.File
	closed bool
}

// Close closes it the first time.
func (f *closedOnce) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.File.Close()
}
