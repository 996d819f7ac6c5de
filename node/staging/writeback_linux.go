package staging

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// startWriteback asks the kernel to begin writing a range that no commit waits
// for yet, so that the fdatasync finds little left to do. It promises nothing.
// Pebble's SyncTo is not used: it waits for what is under way, and does a whole
// fdatasync on file systems other than ext4.
func (l *Log) startWriteback(s *segment, from, to int64) error {
	fd := s.r.Fd()
	if fd == vfs.InvalidFd {
		return nil
	}
	err := unix.SyncFileRange(int(fd), from, to-from, unix.SYNC_FILE_RANGE_WRITE)
	switch {
	case err == nil, errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESPIPE), errors.Is(err, unix.EOPNOTSUPP):
		return nil
	}
	return l.fail(fmt.Errorf("write back segment %d: %w", s.header.number, err))
}

// onlyName reports whether a file has one name alone. Files in memory have.
func onlyName(info vfs.FileInfo) bool {
	of, ok := info.Sys().(*syscall.Stat_t)
	return !ok || of.Nlink == 1
}

// forgetCached makes later reads of a file come from the disk. After a failed
// fsync the cache may hold bytes, marked clean, that the disk never took; a
// replay must not believe them.
func forgetCached(f vfs.File) {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		// Advice: where it is not taken, nothing is lost but this precaution.
		_ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED)
	}
}
