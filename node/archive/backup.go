package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/node/staging"
)

// A backup is a data directory like any other: what the node would find if the
// power had failed at one moment. Hold of all files is taken in an order in
// which each may know more than those before it, never less: the rows (a
// checkpoint), then the catalogue, then the bytes that the rows name (packs,
// staging) and their keys, while nothing is moved or dropped. That takes
// seconds, for files are linked; copying them may take hours, and stops nobody.

// spoolPrefix begins the names of files in which the web face keeps parts of a
// request; they lose their names at once, unless the process ends in between.
const spoolPrefix = ".spool-"

// stagePrefix begins the names of folders beside the stores that hold what a
// backup has taken hold of; a start removes what a crash left of them.
const stagePrefix = ".backup-"

// Backup copies the archive into an empty or missing directory outside of its
// own. progress is called with bytes done and known. The node goes on serving
// and storing. The version file comes last: without it the directory is no
// backup. fault.Conflict: the directory is not empty; fault.Full: it has no
// room.
func (a *Archive) Backup(ctx context.Context, to string, progress func(done, total uint64)) error {
	return a.observe("backup", func() error { return a.backup(ctx, to, progress) })
}

func (a *Archive) backup(ctx context.Context, to string, progress func(done, total uint64)) error {
	if a.o.FS != vfs.FS(ordered{vfs.Default}) {
		return fault.New(fault.Unsupported, "backup: only from a real file system")
	}
	if err := checkTarget(a.o.Dir, to); err != nil {
		return err
	}
	// Links need the same file system.
	stage, err := os.MkdirTemp(a.o.Dir, stagePrefix)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer os.RemoveAll(stage) //nolint:errcheck // a leftover is removed at the next start
	if err := a.o.Still(func() error { return a.holdFiles(stage) }); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	c := &copier{ctx: ctx, progress: progress}
	if err := c.measure(stage); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := a.roomFor(to, c.total); err != nil {
		return err
	}
	if err := c.tree(stage, to); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	for _, part := range []string{"audit", "version"} {
		err := c.tree(filepath.Join(a.o.Dir, part), filepath.Join(to, part))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("backup: %w", err)
		}
	}
	return syncTree(to)
}

// holdFiles gives everything that a backup needs a second name, or copies what
// is small and changes in place.
func (a *Archive) holdFiles(stage string) error {
	a.still.Lock()
	defer a.still.Unlock()
	a.changing.Lock()
	defer a.changing.Unlock()
	if err := errors.Join(
		a.store.Checkpoint(filepath.Join(stage, "store"), pebble.WithFlushedWAL()),
		a.catalog.Checkpoint(filepath.Join(stage, "catalog")),
		a.bulk.Checkpoint(filepath.Join(stage, "bulk")),
		linkTree(filepath.Join(a.o.Dir, "staging"), filepath.Join(stage, "staging")),
	); err != nil {
		return err
	}
	keys := &copier{ctx: context.Background()}
	err := keys.tree(filepath.Join(a.o.Dir, "keys"), filepath.Join(stage, "keys"))
	if errors.Is(err, fs.ErrNotExist) { // the keys are somebody else's
		return nil
	}
	return err
}

// checkTarget refuses a directory for a backup that is not empty, or that lies
// inside the data directory.
func checkTarget(data, to string) error {
	inside, err := filepath.Abs(data)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	target, err := filepath.Abs(to)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if relative, err := filepath.Rel(inside, target); err == nil && filepath.IsLocal(relative) {
		return fault.New(fault.Invalid, "backup: %s lies inside the data directory", to)
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return fault.New(fault.Conflict, "backup: %s is not empty", to)
	}
	return nil
}

// roomFor reports fault.Full when a directory's file system has no room for so
// many bytes; on the node's own file system the ballast stays free.
func (a *Archive) roomFor(to string, bytes uint64) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	usage, err := vfs.Default.GetDiskUsage(to)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	least := uint64(0)
	if sameDisk(to, a.o.Dir) {
		least = uint64(a.space.ballast(int64(usage.TotalBytes)))
	}
	if usage.AvailBytes < bytes+least {
		return fault.New(fault.Full, "backup: %d bytes are free where %d are needed and %d stay in reserve", usage.AvailBytes, bytes, least)
	}
	return nil
}

// sameDisk reports whether two folders share a file system; if that cannot be
// told they do.
func sameDisk(one, other string) bool {
	device := func(name string) (uint64, bool) {
		info, err := os.Stat(name)
		if err != nil {
			return 0, false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, false
		}
		return uint64(stat.Dev), true //nolint:unconvert // its type differs between systems
	}
	a, fine := device(one)
	b, ok := device(other)
	return !fine || !ok || a == b
}

// Restore makes a data directory, which must be empty or missing, from a
// backup. fault.Invalid: what is given is no backup, or not a whole one.
func Restore(ctx context.Context, from, to string, progress func(done, total uint64)) error {
	if _, err := os.Stat(filepath.Join(from, "version")); err != nil {
		return fault.New(fault.Invalid, "%s is no whole backup: %w", from, err)
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

// removeStages removes what the end of a process left beside the stores: of a
// backup, of a data set being inflated, or of a request.
func removeStages(dir string) error {
	var errs []error
	for _, prefix := range []string{stagePrefix, inflatePrefix, spoolPrefix} {
		left, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
		errs = append(errs, err)
		for _, name := range left {
			errs = append(errs, os.RemoveAll(name))
		}
	}
	return errors.Join(errs...)
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
		if staging.IsSpare(entry.Name()) {
			return nil
		}
		err = os.Link(name, filepath.Join(to, relative)) //nolint:gosec // both folders are ours alone
		if errors.Is(err, fs.ErrNotExist) {              // a segment that nothing needed any more
			return nil
		}
		return err
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
		err = c.file(name, target)
		if errors.Is(err, fs.ErrNotExist) && name != from { // gone since it was listed
			return nil
		}
		return err
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

// syncTree makes the names in a tree durable, and the tree's own.
func syncTree(dir string) error {
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return syncFolder(vfs.Default, name)
	})
	return errors.Join(err, syncFolder(vfs.Default, filepath.Dir(filepath.Clean(dir))))
}
