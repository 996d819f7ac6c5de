package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
	"pelago/cluster/fault"
)

// tempSuffix ends the names of files that are not in place yet.
const tempSuffix = ".new"

// maxFile bounds what is read of a key file.
const maxFile = 1 << 20

// WriteFile writes a file of secrets: private to its owner, synced, and put in
// its place in one step, which is synced too.
func WriteFile(fs vfs.FS, dir, name string, b []byte) error {
	temp := fs.PathJoin(dir, name+tempSuffix)
	f, err := CreateFile(fs, temp)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(b)) // vfs may change what it is given
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		if err = fs.Rename(temp, fs.PathJoin(dir, name)); err == nil {
			err = SyncDir(fs, dir)
		}
	}
	if err != nil {
		return fmt.Errorf("identity: write %s: %w", name, err)
	}
	return nil
}

// CreateFile creates a file that only its owner may read.
func CreateFile(fs vfs.FS, path string) (vfs.File, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := restrict(f, 0o600); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// SyncDir makes the names in a folder durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// restrict sets a file's mode where there is a real one.
func restrict(f vfs.File, mode uint32) error {
	fd := f.Fd()
	if fd == vfs.InvalidFd {
		return nil
	}
	if err := unix.Fchmod(int(fd), mode); err != nil {
		return fmt.Errorf("identity: restrict a key file: %w", err)
	}
	return nil
}

// Frame frames a payload: 8 bytes of magic, the payload, and the SHA-256 of
// both.
func Frame(magic string, payload []byte) []byte {
	b := append([]byte(magic), payload...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// ReadFramed reads and checks a framed file. fault.Corrupt if it is not what was
// written, fault.Unsupported for a newer version; an error of the file system
// is left as it is.
func ReadFramed(fs vfs.FS, path, magic string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return parseFile(b, magic, fs.PathBase(path))
}

func parseFile(b []byte, magic, name string) ([]byte, error) {
	version := len(magic) - 1
	end := len(b) - sha256.Size
	switch {
	case len(b) > maxFile || end < len(magic) || string(b[:version]) != magic[:version]:
		return nil, fault.New(fault.Corrupt, "identity: %s is not a key file", name)
	case b[version] != magic[version]:
		return nil, fault.New(fault.Unsupported, "identity: %s is of version %d", name, b[version])
	case sha256.Sum256(b[:end]) != [32]byte(b[end:]):
		return nil, fault.New(fault.Corrupt, "identity: %s does not match its checksum", name)
	}
	return b[len(magic):end], nil
}
