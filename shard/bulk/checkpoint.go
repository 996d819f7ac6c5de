package bulk

import (
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Checkpoint makes a copy of the store in a folder that must not exist, on the
// same file system: tables are links, so it costs no bytes. The caller sees to
// it that no table is written, deleted from or rewritten meanwhile. What is
// lost meanwhile does no harm: the copy finds out by itself.
func (s *Store) Checkpoint(dir string) error {
	fs := s.o.FS
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return diskError("checkpoint", err)
	}
	if err := s.db.Checkpoint(fs.PathJoin(dir, "tables")); err != nil {
		return diskError("checkpoint", err)
	}
	if err := copyFile(fs, fs.PathJoin(s.o.Dir, ledgerName), fs.PathJoin(dir, ledgerName)); err != nil {
		return diskError("checkpoint", err)
	}
	return syncDir(fs, dir)
}

// copyFile copies a file and syncs the copy.
func copyFile(fs vfs.FS, from, to string) error {
	in, err := fs.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := fs.Create(to, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
