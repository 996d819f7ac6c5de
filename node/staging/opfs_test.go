package staging

import (
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// opFS calls before at every operation that changes a file system, and at
// reads if told so; an error of it is the operation's.
type opFS struct {
	vfs.FS
	before func(op string) error // set while nothing runs
	after  func(op string)
	reads  bool

	mu     sync.Mutex
	counts map[string]int
}

func newOpFS(fs vfs.FS) *opFS { return &opFS{FS: fs, counts: map[string]int{}} }

func (f *opFS) op(name string) error {
	f.mu.Lock()
	f.counts[name]++
	f.mu.Unlock()
	if f.before != nil {
		return f.before(name)
	}
	return nil
}

func (f *opFS) done(name string, err error) error {
	if f.after != nil && err == nil {
		f.after(name)
	}
	return err
}

func (f *opFS) wrap(op string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &opFile{file, f}, f.done(op, nil)
}

func (f *opFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.op("open"); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	return f.wrap("open", file, err)
}

func (f *opFS) OpenDir(name string) (vfs.File, error) {
	if err := f.op("opendir"); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenDir(name)
	return f.wrap("opendir", file, err)
}

func (f *opFS) MkdirAll(name string, mode os.FileMode) error {
	if err := f.op("mkdir"); err != nil {
		return err
	}
	return f.done("mkdir", f.FS.MkdirAll(name, mode))
}

func (f *opFS) Remove(name string) error {
	if err := f.op("remove"); err != nil {
		return err
	}
	return f.done("remove", f.FS.Remove(name))
}

func (f *opFS) Rename(from, to string) error {
	if err := f.op("rename"); err != nil {
		return err
	}
	return f.done("rename", f.FS.Rename(from, to))
}

func (f *opFS) List(name string) ([]string, error) {
	if f.reads {
		if err := f.op("list"); err != nil {
			return nil, err
		}
	}
	return f.FS.List(name)
}

type opFile struct {
	vfs.File
	fs *opFS
}

func (f *opFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.op("writeat"); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	return n, f.fs.done("writeat", err)
}

func (f *opFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.reads {
		if err := f.fs.op("readat"); err != nil {
			return 0, err
		}
	}
	return f.File.ReadAt(p, off)
}

func (f *opFile) Preallocate(off, n int64) error {
	if err := f.fs.op("preallocate"); err != nil {
		return err
	}
	return f.fs.done("preallocate", f.File.Preallocate(off, n))
}

func (f *opFile) Sync() error {
	if err := f.fs.op("sync"); err != nil {
		return err
	}
	return f.fs.done("sync", f.File.Sync())
}

func (f *opFile) SyncData() error {
	if err := f.fs.op("syncdata"); err != nil {
		return err
	}
	return f.fs.done("syncdata", f.File.SyncData())
}
