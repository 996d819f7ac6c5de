// Package bulktest has what tests of crashes need of a disk: those of bulk
// itself, and those of the archive that stands on it. Tests only.
package bulktest

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is a file system in memory that can lose power while it is used. Linking
// and copying take turns: MemFS.Link takes the lock that keeps copying out twice,
// and waits for itself if a copy comes between. Linking is what a Pebble does
// that ingests a table.
type Disk struct {
	*vfs.MemFS
	turn sync.RWMutex // held for writing by the copying
}

// NewDisk returns an empty one.
func NewDisk() *Disk { return &Disk{MemFS: vfs.NewCrashableMem()} }

// Over returns one that holds what a file system does, which must be used
// through it alone from then on. It must have been made by
// [vfs.NewCrashableMem], or by a crash.
func Over(mem *vfs.MemFS) *Disk { return &Disk{MemFS: mem} }

// Link implements [vfs.FS].
func (d *Disk) Link(oldname, newname string) error {
	d.turn.RLock()
	defer d.turn.RUnlock()
	return d.MemFS.Link(oldname, newname)
}

// CrashClone returns what the disk would hold if the power went now. It may be
// called from within an operation of the disk other than Link.
func (d *Disk) CrashClone(how vfs.CrashCloneCfg) *vfs.MemFS {
	d.turn.Lock()
	defer d.turn.Unlock()
	return d.MemFS.CrashClone(how)
}

// Rot flips bits of one byte of a file.
func Rot(t testing.TB, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x55
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
