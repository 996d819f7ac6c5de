package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/chaos/proc"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/scp"
)

// Bucket is a limit: it serves C-STORE with our own network layer and keeps
// nothing. A dropping one reads and forgets; a syncing one appends what it
// receives to one file and syncs the file's data before each response.
type Bucket struct{ Syncing bool }

// Start implements [Starter]: it runs [ServeBucket] in a process of its own,
// which is this program's binary with the arguments that [Helper] understands.
func (b Bucket) Start(ctx context.Context, dir string) (*Server, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, AE: "BUCKET", DICOM: fmt.Sprintf("127.0.0.1:%d", port)}
	name, file := "bit bucket", ""
	if b.Syncing {
		name, file = "syncing bucket", dir+".bucket"
	}
	if s.Process, err = helper(name, dir, "bucket", s.DICOM, file); err != nil {
		return nil, err
	}
	if err := s.await(ctx, readyTime, accepts(s.DICOM)); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// ServeBucket is a bucket until ctx ends; without a file it drops.
func ServeBucket(ctx context.Context, address, file string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	b := &bucket{buffers: sync.Pool{New: func() any { return new([256 << 10]byte) }}}
	if file != "" {
		if b.file, err = vfs.Default.Create(file, vfs.WriteCategoryUnspecified); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	server := &scp.Server{Admit: b, Config: assoc.Config{UserInfo: assoc.UserInfo{
		ImplementationClassUID: dicom.ImplementationClassUID, ImplementationVersion: "BUCKET",
	}}}
	err = server.Serve(ctx, l)
	if ctx.Err() != nil {
		err = nil
	}
	if b.file != nil {
		err = errors.Join(err, b.file.Close())
	}
	return err
}

type bucket struct {
	buffers sync.Pool

	mu   sync.Mutex // held while appending, so that pieces do not overlap
	file vfs.File
}

func (b *bucket) Admit(context.Context, *assoc.Request) (*scp.Session, error) {
	return &scp.Session{Echo: b, Store: b}, nil
}

func (b *bucket) Echo(context.Context) error { return nil }

func (b *bucket) Store(_ context.Context, r *scp.StoreRequest) error {
	if b.file == nil {
		return nil // what is not read is dropped
	}
	buffer := b.buffers.Get().(*[256 << 10]byte)
	defer b.buffers.Put(buffer)
	for {
		n, err := io.ReadFull(r.Data, buffer[:])
		if n > 0 {
			if err := b.append(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return b.file.SyncData()
		}
		if err != nil {
			return err
		}
	}
}

func (b *bucket) append(p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.file.Write(p)
	return err
}
