package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Pebble that loses power while it is being made can be left with a marker
// that names a manifest which is not there, and then never opens again. So each
// store is made under a name that says so, closed, synced, and renamed: under
// its own name it is whole.

// born makes sure that a store exists. create opens it under the path it is
// given, creating it.
func born(disk vfs.FS, dir, name string, create func(path string) (io.Closer, error)) error {
	path := disk.PathJoin(dir, name)
	_, err := disk.Stat(path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, err)
	}
	unborn := path + ".new"
	if err := disk.RemoveAll(unborn); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	store, err := create(unborn)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := errors.Join(
		store.Close(),
		syncFolders(disk, unborn),
		disk.Rename(unborn, path),
		syncFolder(disk, dir),
	); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// syncFolders makes the names in a folder and its folders durable.
func syncFolders(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if err := syncFolders(fs, path); err != nil {
				return err
			}
		}
	}
	return syncFolder(fs, dir)
}

func syncFolder(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
