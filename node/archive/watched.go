package archive

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// watched is a file system on which a Pebble lives that cannot go on after a
// failed write: what it has in memory and what is on disk differ from then on,
// and it panics on whatever goroutine comes next, which may be one that contains
// panics. The first such error ends the process instead (DESIGN §4, Errors). Only
// the store's own folder is watched: a checkpoint that fails elsewhere does no
// harm. It is used by its address: Pebble compares file systems.
type watched struct {
	vfs.FS
	dir string
	die func(error)
}

// failed reports an error of a write to the store.
func (w watched) failed(name string, err error) error {
	if err == nil || w.PathDir(name) != w.dir || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrClosed) {
		return err
	}
	w.die(fault.New(fault.Unavailable, "%s cannot be written: %w", w.PathBase(w.dir), err))
	return err
}

// Create implements [vfs.FS].
func (w watched) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, category)
	return w.file(f, name, err)
}

// OpenReadWrite implements [vfs.FS].
func (w watched) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.OpenReadWrite(name, category, options...)
	return w.file(f, name, err)
}

// ReuseForWrite implements [vfs.FS].
func (w watched) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.ReuseForWrite(from, to, category)
	return w.file(f, to, err)
}

// Unwrap implements [vfs.FS].
func (w watched) Unwrap() vfs.FS { return w.FS }

func (w watched) file(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, w.failed(name, fmt.Errorf("create: %w", err))
	}
	return watchedFile{f, name, w}, nil
}

// watchedFile is a file that was opened for writing.
type watchedFile struct {
	vfs.File
	name string
	fs   watched
}

func (f watchedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.failed(f.name, err)
}

func (f watchedFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	return n, f.fs.failed(f.name, err)
}

func (f watchedFile) Sync() error { return f.fs.failed(f.name, f.File.Sync()) }

func (f watchedFile) SyncData() error { return f.fs.failed(f.name, f.File.SyncData()) }

func (f watchedFile) SyncTo(length int64) (bool, error) {
	whole, err := f.File.SyncTo(length)
	return whole, f.fs.failed(f.name, err)
}
