package archive

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// space answers whether bytes may still be written, so that the disk is never
// filled to the brim: the ballast stays free for the work that frees space.
type space struct {
	measure func() (free, size int64, err error)
	least   int64 // Options.Ballast; 0: by size

	mu    sync.Mutex
	free_ int64 // as last measured, less what was granted since
	size_ int64
	asked time.Time // of the last measurement
}

// fresh is how long a measurement is believed. What is granted meanwhile is
// taken off it, so that it errs to the safe side but for what others write.
const fresh = time.Second

func newSpace(o Options) (*space, error) {
	s := &space{measure: o.Free, least: o.Ballast}
	if s.measure == nil {
		s.measure = func() (int64, int64, error) {
			usage, err := o.FS.GetDiskUsage(o.Dir)
			if errors.Is(err, vfs.ErrUnsupported) {
				return 1 << 62, 1 << 62, nil // a file system in memory
			}
			if err != nil {
				return 0, 0, fmt.Errorf("disk usage: %w", err)
			}
			return int64(usage.AvailBytes), int64(usage.TotalBytes), nil
		}
	}
	return s, nil
}

func (s *space) free() (free, size int64, err error) { return s.measure() }

// ballast is what stays free on a file system of a size (DESIGN §4, Errors).
func (s *space) ballast(size int64) int64 {
	if s.least != 0 {
		return s.least
	}
	return max(1<<30, size/100)
}

// reserve grants n bytes or answers fault.Full: the ballast stays free.
func (s *space) reserve(n int64) error { return s.grant(n, 1, 0) }

// reserveToFree grants n bytes to the work that ends with more bytes free than
// it began: tables that staged arrivals are packed into, and tables rewritten
// without their dead. It may use three quarters of the ballast.
func (s *space) reserveToFree(n int64) error { return s.grant(n, 4, 0) }

// grant leaves the given part of the ballast free, and so many bytes besides, which
// others may still be granted.
func (s *space) grant(n, part, besides int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.asked) > fresh {
		free, size, err := s.measure() // statfs: no I/O worth the name
		if err != nil {
			return err
		}
		s.free_, s.size_, s.asked = free, size, now
	}
	if least := s.ballast(s.size_)/part + besides; s.free_-n < least {
		return fault.New(fault.Full, "the disk has %d bytes free, of which %d stay in reserve", s.free_, least)
	}
	s.free_ -= n
	return nil
}
