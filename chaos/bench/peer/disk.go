package peer

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// block is what file systems round files up to, in bytes.
const block = 4 << 10

// DiskUsage returns the bytes that the files of a folder occupy on disk, without
// what is allocated beyond their ends for bytes to come: a database's newest log
// has tens of megabytes of it or none, by chance. Files that go while it looks
// count for nothing.
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
			sum += min(stat.Blocks*512, (info.Size()+block-1)/block*block)
		}
		return nil
	})
	return sum, err
}
