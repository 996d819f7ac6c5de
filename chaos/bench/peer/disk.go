package peer

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// DiskUsage returns the bytes that the files of a folder occupy on disk. Files
// that go while it looks count for nothing.
func DiskUsage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && entry.Type().IsRegular() {
			sum += stat.Blocks * 512
		}
		return nil
	})
	return sum, err
}
