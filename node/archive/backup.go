package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// A backup is a data directory like any other: what the node would find if the
// power had failed at one moment. Folders are copied in an order in which each
// may know more than those before it, never less: the rows (a checkpoint), then
// the catalogue, then the bytes that the rows name (packs, staging, keys),
// while the packer holds still so that none of them goes meanwhile.

// backupParts are the folders and files of a data directory that belong into a
// backup besides the stores; what is missing is passed over.
var backupParts = []string{"keys", "audit", "version"}

// Backup copies the archive into an empty or missing directory. progress is
// called with bytes done and known. The node goes on serving and storing.
func (a *Archive) Backup(ctx context.Context, to string, progress func(done, total uint64)) error {
	if a.o.FS != vfs.FS(ordered{vfs.Default}) {
		return fault.New(fault.Unsupported, "backup: only from a real file system")
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return fault.New(fault.Conflict, "backup: %s is not empty", to)
	}
	a.still.Lock()
	defer a.still.Unlock()
	// Checkpoints are links, which need the same file system: they are made
	// beside the stores and copied from there.
	stage, err := os.MkdirTemp(a.o.Dir, ".backup-")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer os.RemoveAll(stage) //nolint:errcheck // a leftover is removed at the next start
	if err := errors.Join(
		a.store.Checkpoint(filepath.Join(stage, "store"), pebble.WithFlushedWAL()),
		a.catalog.Checkpoint(filepath.Join(stage, "catalog")),
		a.bulk.Checkpoint(filepath.Join(stage, "bulk")),
		linkTree(filepath.Join(a.o.Dir, "staging"), filepath.Join(stage, "staging")),
	); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	sources := []string{stage}
	c := &copier{ctx: ctx, progress: progress}
	if err := c.measure(stage); err != nil {
		return err
	}
	for _, source := range sources {
		if err := c.tree(source, to); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	for _, part := range backupParts {
		if err := c.tree(filepath.Join(a.o.Dir, part), filepath.Join(to, part)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("backup: %w", err)
		}
	}
	return syncTree(to)
}

// Restore makes a data directory, which must be empty or missing, from a
// backup.
func Restore(ctx context.Context, from, to string, progress func(done, total uint64)) error {
	if _, err := os.Stat(filepath.Join(from, "version")); err != nil {
		return fault.New(fault.Invalid, "%s is no backup: %w", from, err)
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return fault.New(fault.Conflict, "%s is not empty", to)
	}
	c := &copier{ctx: ctx, progress: progress}
	if err := errors.Join(c.measure(from), c.tree(from, to)); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return syncTree(to)
}

// removeStages removes what an interrupted backup left beside the stores.
func removeStages(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".backup-*"))
	for _, stage := range left {
		err = errors.Join(err, os.RemoveAll(stage))
	}
	return err
}

// linkTree gives every file of a folder a second name in another.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, relative), 0o700)
		}
		return os.Link(name, filepath.Join(to, relative))
	})
}

// copier copies trees of files and tells how far it is.
type copier struct {
	ctx         context.Context
	progress    func(done, total uint64)
	done, total uint64
}

func (c *copier) measure(dir string) error {
	return filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			c.total += uint64(info.Size())
		}
		return err
	})
}

func (c *copier) tree(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		case !entry.Type().IsRegular():
			return nil
		}
		return c.file(name, target)
	})
}

func (c *copier) file(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &counting{in, c})
	return errors.Join(err, out.Sync(), out.Close())
}

// counting reads a file piece by piece, with progress and an eye on the context.
type counting struct {
	r io.Reader
	c *copier
}

func (r *counting) Read(p []byte) (int, error) {
	if err := context.Cause(r.c.ctx); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.c.done += uint64(n)
	if r.c.progress != nil {
		r.c.progress(min(r.c.done, r.c.total), r.c.total)
	}
	return n, err
}

// syncTree makes the names in a tree durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
