package staging

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const benchInstance = 526 << 10

// inParallel splits n operations among writers.
func inParallel(b *testing.B, writers, n int, one func(writer int) error) {
	b.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				if err := one(w); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		b.Fatal(err)
	}
}

// storeOne writes one instance in the pieces that PDUs come in, and releases it
// once it is durable so that the disk does not fill.
func storeOne(l *Log, payload, record []byte, piece int) error {
	a, err := l.Begin()
	if err != nil {
		return err
	}
	defer a.Abort()
	for p := payload; len(p) > 0; {
		n := min(piece, len(p))
		if _, err := a.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	at, err := a.Commit(context.Background(), record)
	if err != nil {
		return err
	}
	return l.Release(at)
}

// BenchmarkCommit is to be read beside BenchmarkAppendFdatasync of the same
// number of writers.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			l, err := Open(Options{Dir: filepath.Join(b.TempDir(), "staging")}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			payload, record := make([]byte, benchInstance), make([]byte, 1500)
			for i := range payload {
				payload[i] = byte(i * 7)
			}
			b.SetBytes(benchInstance)
			b.ResetTimer()
			inParallel(b, writers, b.N, func(int) error { return storeOne(l, payload, record, 64<<10) })
		})
	}
}

// BenchmarkAppendFdatasync is the limit: every writer appends each instance to
// a file with one write and syncs it; shared: all to one file.
func BenchmarkAppendFdatasync(b *testing.B) {
	for _, shared := range []bool{false, true} {
		for _, writers := range []int{1, 8} {
			b.Run(fmt.Sprintf("shared=%v/writers=%d", shared, writers), func(b *testing.B) {
				dir := b.TempDir()
				files := make([]*os.File, writers)
				for i := range files {
					if shared && i > 0 {
						files[i] = files[0]
						continue
					}
					f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(i)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
					if err != nil {
						b.Fatal(err)
					}
					defer f.Close()
					files[i] = f
				}
				payload := make([]byte, benchInstance+1500)
				for i := range payload {
					payload[i] = byte(i * 7)
				}
				b.SetBytes(benchInstance)
				b.ResetTimer()
				inParallel(b, writers, b.N, func(w int) error {
					if _, err := files[w].Write(payload); err != nil {
						return err
					}
					return syscall.Fdatasync(int(files[w].Fd()))
				})
			})
		}
	}
}

// BenchmarkCommitSmall stores instances of 1 KB without a disk: what the log
// itself costs.
func BenchmarkCommitSmall(b *testing.B) {
	l, err := Open(Options{FS: vfs.NewMem(), Dir: "staging", SegmentBytes: 16 << 20}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	payload, record := make([]byte, 1<<10), make([]byte, 500)
	b.ReportAllocs()
	b.ResetTimer()
	inParallel(b, 8, b.N, func(int) error { return storeOne(l, payload, record, 64<<10) })
}
