package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

const (
	cursorMagic   = "PELAGOAC"
	cursorVersion = 1
	cursorBytes   = 32
)

// cursorFile holds a follower's cursor durably beside the log.
type cursorFile struct {
	fs        vfs.FS
	dir, path string
}

func newCursorFile(l *Log, name string) cursorFile {
	fs := l.options.FS
	return cursorFile{fs, l.options.Dir, fs.PathJoin(l.options.Dir, name+".cursor")}
}

// load reads the cursor; 1 if there is none. fault.Corrupt: it is damaged.
func (f cursorFile) load() (Cursor, error) {
	file, err := f.fs.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("audit: cursor: %w", err)
	}
	defer file.Close()
	b := make([]byte, cursorBytes)
	if _, err := io.ReadFull(file, b); err != nil {
		return 0, fault.New(fault.Corrupt, "audit: cursor: %w", err)
	}
	if string(b[:8]) != cursorMagic || binary.LittleEndian.Uint32(b[28:]) != checksum(b[:28]) {
		return 0, fault.New(fault.Corrupt, "audit: cursor fails its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > cursorVersion {
		return 0, fault.New(fault.Unsupported, "audit: cursor of version %d, this program knows %d", v, cursorVersion)
	}
	return max(1, Cursor(binary.LittleEndian.Uint64(b[16:]))), nil
}

// store replaces the cursor; the old one stays if anything fails.
func (f cursorFile) store(c Cursor) error {
	b := make([]byte, cursorBytes)
	copy(b, cursorMagic)
	binary.LittleEndian.PutUint32(b[8:], cursorVersion)
	binary.LittleEndian.PutUint64(b[16:], uint64(c))
	binary.LittleEndian.PutUint32(b[28:], checksum(b[:28]))
	next := f.path + ".next"
	file, err := f.fs.Create(next, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("audit: cursor: %w", err)
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.fs.Rename(next, f.path)
	}
	if err == nil {
		err = syncDirectory(f.fs, f.dir)
	}
	if err != nil {
		return fmt.Errorf("audit: cursor: %w", err)
	}
	return nil
}
