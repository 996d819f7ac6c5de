package bulk

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Ranged reads as viewers make them: a frame of 150 KB out of packs of 16 MB.
func BenchmarkReadFrame(b *testing.B) {
	w := open(b, vfs.Default, filepath.Join(b.TempDir(), "bulk"))
	defer w.Close()
	var refs []Ref
	for i := range 4 {
		refs = append(refs, w.put(Hot, content(uint64(i), 16<<20))...)
	}
	p := make([]byte, 150_000)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		r := refs[rand.IntN(len(refs))]
		if _, err := w.Reader(r).ReadAt(p, rand.Int64N(r.Bytes-int64(len(p)))); err != nil {
			b.Fatal(err)
		}
	}
}

// One table of 64 MB, written, synced, ingested.
func BenchmarkCommit(b *testing.B) {
	w := open(b, vfs.Default, filepath.Join(b.TempDir(), "bulk"))
	defer w.Close()
	blob := content(1, 64<<20)
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		refs := w.put(Hot, blob)
		b.StopTimer()
		if err := w.Delete(refs...); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
