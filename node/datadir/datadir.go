// Package datadir is the outside of a data directory: who may open it (one
// process at a time), which version of Pelago wrote it, and where the node that
// runs on it can be reached.
package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"pelago/cluster/fault"
)

// Version is the format of the data directory that this code writes, and the
// highest that it opens (docs/formats.md).
const Version = 1

// The files of a data directory that this package owns.
const (
	lockFile    = "lock"
	versionFile = "version"
	nodeFile    = "node.json"
	proofFile   = "proof" // that a synced write succeeded
	newPrefix   = ".new-" // of files that are not whole yet
)

// Dir is a data directory held by this process.
type Dir struct {
	path string
	lock *os.File
}

// Open locks the directory, creating it if need be, and checks its version.
// fault.Unavailable: another process holds it. fault.Unsupported: a newer
// Pelago wrote it. fault.Invalid: it holds something else.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fault.New(fault.Unavailable, "data directory %s is in use by another process: %w", path, err)
	}
	d := &Dir{path: path, lock: lock}
	err = d.checkVersion()
	if err == nil {
		err = d.prove()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// OpenExisting is Open for a directory that must be a data directory already.
// fault.NotFound: there is none.
func OpenExisting(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, versionFile)); err != nil {
		return nil, fault.New(fault.NotFound, "no data directory at %s: %w", path, err)
	}
	return Open(path)
}

// prove writes something and syncs it: a node that ended because it could not
// write must not take anything in before it can (DESIGN §4, Errors). A full
// disk is no reason not to start: what is stored can be read.
func (d *Dir) prove() error {
	left, err := filepath.Glob(filepath.Join(d.path, newPrefix+"*"))
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, name := range left { // of a process that ended in the middle
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	err = writeSynced(filepath.Join(d.path, proofFile), make([]byte, 4096))
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	return fault.New(fault.Unavailable, "data directory %s cannot be written to: %w", d.path, err)
}

// checkVersion reads the version, or writes it into an empty directory.
func (d *Dir) checkVersion() error {
	name := filepath.Join(d.path, versionFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.checkEmpty(); err != nil {
			return err
		}
		return writeSynced(name, fmt.Appendf(nil, "pelago %d\n", Version))
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var version int
	if _, err := fmt.Sscanf(strings.TrimSpace(string(b[:min(len(b), 64)])), "pelago %d", &version); err != nil || version < 1 {
		return fault.New(fault.Invalid, "data directory %s: its version file does not parse", d.path)
	}
	if version > Version {
		return fault.New(fault.Unsupported,
			"data directory %s was written by a newer Pelago (format %d, this one knows %d): nothing was touched", d.path, version, Version)
	}
	return nil
}

// checkEmpty refuses to make an archive inside a directory of something else.
func (d *Dir) checkEmpty() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != "lost+found" && !strings.HasPrefix(e.Name(), newPrefix) {
			return fault.New(fault.Invalid, "directory %s is not empty and holds no Pelago data", d.path)
		}
	}
	return nil
}

// writeSynced writes a file whole or not at all.
func writeSynced(name string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), newPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Path is the directory.
func (d *Dir) Path() string { return d.path }

// Node is where the node that runs on a data directory can be reached.
type Node struct {
	PID  int    `json:"pid"`
	HTTP string `json:"http"` // base URL of the web face
	// Certificate is the SHA-256 of the certificate that the web face shows, in
	// hexadecimal; "" without TLS. It is made out for the names that others use,
	// so commands on this machine know it by that.
	Certificate string `json:"certificate,omitempty"`
	AE          string `json:"ae"`
	// Addresses in use, as listened on.
	DICOM string `json:"dicom"`
	Peer  string `json:"peer,omitempty"` // as other nodes are told
	// Token lets whoever can read the data directory administer the node.
	Token string `json:"token"`
}

// Announce writes where the node is; commands given --data read it.
func (d *Dir) Announce(n Node) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(d.path, nodeFile), b)
}

// Find reads where the node of a data directory is; fault.Unavailable when none
// runs on it.
func Find(path string) (Node, error) {
	var n Node
	b, err := os.ReadFile(filepath.Join(path, nodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return n, fault.New(fault.Unavailable, "no node runs on data directory %[1]s: start it with 'pelago serve --data %[1]s', or name another by --data or --http", path)
	}
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, fault.New(fault.Invalid, "data directory %s: %s does not parse: %w", path, nodeFile, err)
	}
	return n, nil
}

// Close gives the directory up.
func (d *Dir) Close() error {
	err := os.Remove(filepath.Join(d.path, nodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.lock.Close())
}
