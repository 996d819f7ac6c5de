package archive

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// spoolAbove is the size from which an inflated data set rests in a temporary
// file instead of memory.
const spoolAbove = 32 << 20

// inflated is a deflated data set in the clear.
type inflated struct {
	io.ReaderAt
	file *os.File
}

// inflate reads a raw deflate stream that is known to hold size bytes. A large
// one goes to a file in the data directory, if there is room.
func (a *Archive) inflate(r io.Reader, size int64) (*inflated, error) {
	stream := io.LimitReader(flate.NewReader(r), size+1)
	if size <= spoolAbove {
		var b bytes.Buffer
		n, err := b.ReadFrom(stream)
		if err = whole(n, size, err); err != nil {
			return nil, err
		}
		return &inflated{ReaderAt: bytes.NewReader(b.Bytes())}, nil
	}
	if err := a.space.reserve(size); err != nil {
		return nil, fmt.Errorf("inflating: %w", err)
	}
	folder := a.o.Dir
	if !a.onDisk {
		folder = "" // the archive rests in memory
	}
	file, err := os.CreateTemp(folder, inflatePrefix)
	if err != nil {
		return nil, fmt.Errorf("inflating: %w", err)
	}
	// The name goes at once: whatever happens, nothing of a patient stays.
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	in := &inflated{ReaderAt: file, file: file}
	out := &spool{file: file}
	n, err := io.Copy(out, stream)
	if out.err != nil { // the disk's fault, not the data set's
		return nil, errors.Join(fmt.Errorf("inflating: %w", out.err), in.Close())
	}
	if err = whole(n, size, err); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// inflatePrefix begins the names of spooled files, which go with the process.
const inflatePrefix = ".inflate-"

// spool remembers whether it was writing that failed.
type spool struct {
	file *os.File
	err  error
}

func (s *spool) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	if vfs.IsNoSpaceError(err) {
		err = fault.New(fault.Full, "%w", err)
	}
	s.err = err
	return n, err
}

func whole(n, size int64, err error) error {
	if err != nil {
		return fault.New(fault.Corrupt, "inflating: %w", err)
	}
	if n != size {
		return fault.New(fault.Corrupt, "inflated to %d bytes where %d were stored", n, size)
	}
	return nil
}

// Close gives the temporary file's space back.
func (i *inflated) Close() error {
	if i.file == nil {
		return nil
	}
	return i.file.Close()
}
