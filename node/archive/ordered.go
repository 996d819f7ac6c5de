package archive

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ordered is a file system on which the file that names a Pebble's manifest
// never becomes durable before the manifest's own name. Pebble syncs the
// folder only after it has made the marker, which is enough where names become
// durable in the order in which they were made; where they do not, a power
// failure in between would leave a store that never opens again.
type ordered struct{ vfs.FS }

// markerPrefix begins the names of Pebble's markers (vfs/atomicfs).
const markerPrefix = "marker."

// Create implements [vfs.FS].
func (o ordered) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(o.PathBase(name), markerPrefix) {
		if err := syncFolder(o.FS, o.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return o.FS.Create(name, category)
}

// Remove implements [vfs.FS]: an old marker goes only after the new one is
// durable.
func (o ordered) Remove(name string) error {
	if strings.HasPrefix(o.PathBase(name), markerPrefix) {
		if err := syncFolder(o.FS, o.PathDir(name)); err != nil {
			return err
		}
	}
	return o.FS.Remove(name)
}

// Unwrap implements [vfs.FS].
func (o ordered) Unwrap() vfs.FS { return o.FS }

func syncFolder(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
