package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"pelago/cluster/fault"
)

// world is a store with a record of what it lost.
type world struct {
	*Store
	t     testing.TB
	fs    vfs.FS
	dir   string
	mu    sync.Mutex
	lost  []Ref
	fatal []error
	room  func(int64) error
}

func open(t testing.TB, fs vfs.FS, dir string) *world {
	t.Helper()
	w, err := tryOpen(t, fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func tryOpen(t testing.TB, fs vfs.FS, dir string) (*world, error) {
	w := &world{t: t, fs: fs, dir: dir}
	var err error
	w.Store, err = Open(Options{FS: fs, Dir: dir, CacheBytes: 1 << 20,
		Reserve: func(n int64) error {
			if w.room != nil {
				return w.room(n)
			}
			return nil
		},
		Lost: func(refs []Ref, cause error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lost = append(w.lost, refs...)
			if !fault.Is(cause, fault.Corrupt) {
				t.Errorf("lost by %v, want corrupt", cause)
			}
		},
		Fatal: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fatal = append(w.fatal, err)
		}})
	return w, err
}

// losses and ends return what was reported so far; Pebble's own goroutines
// report too.
func (w *world) losses() []Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lost)
}

func (w *world) ends() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.fatal)
}

func (w *world) reopen() *world {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	return open(w.t, w.fs, w.dir)
}

func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// put commits one table of blobs.
func (w *world) put(space Space, blobs ...[]byte) []Ref {
	w.t.Helper()
	refs, err := w.tryPut(space, blobs...)
	if err != nil {
		w.t.Fatal(err)
	}
	return refs
}

func (w *world) tryPut(space Space, blobs ...[]byte) ([]Ref, error) {
	t, err := w.NewTable(space)
	if err != nil {
		return nil, err
	}
	defer t.Abort()
	for i, b := range blobs {
		out, err := t.Add()
		if err != nil {
			return nil, err
		}
		for step := 1 + len(b)/(i+2); len(b) > 0; {
			n := min(step, len(b))
			if _, err := out.Write(b[:n]); err != nil {
				return nil, err
			}
			b = b[n:]
		}
		if err := out.Close(); err != nil {
			return nil, err
		}
	}
	return t.Commit(context.Background())
}

func (w *world) read(r Ref) ([]byte, error) {
	b := make([]byte, r.Bytes)
	n, err := w.Reader(r).ReadAt(b, 0)
	if err == io.EOF && n == len(b) {
		err = nil
	}
	return b[:n], err
}

func (w *world) check(r Ref, want []byte) {
	w.t.Helper()
	if got, err := w.read(r); err != nil || !bytes.Equal(got, want) {
		w.t.Fatalf("blob %v: %d of %d bytes, %v", r, len(got), len(want), err)
	}
}

func (w *world) checkGone(refs ...Ref) {
	w.t.Helper()
	for _, r := range refs {
		if _, err := w.Reader(r).ReadAt(make([]byte, 1), 0); !fault.Is(err, fault.NotFound) {
			w.t.Fatalf("blob %v: %v, want not found", r, err)
		}
	}
}

func (w *world) list(space Space) (refs []Ref) {
	w.t.Helper()
	if err := w.Refs(space, func(r Ref) error { refs = append(refs, r); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return refs
}

// onDisk runs a test in memory and on a real folder.
func onDisk(t *testing.T, test func(t *testing.T, fs vfs.FS, dir string)) {
	t.Run("memory", func(t *testing.T) { test(t, vfs.NewMem(), "data/bulk") })
	t.Run("folder", func(t *testing.T) { test(t, vfs.Default, filepath.Join(t.TempDir(), "bulk")) })
}

func (w *world) tables() []string {
	names, err := w.fs.List(w.pebbleDir)
	if err != nil {
		w.t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".sst") })
	slices.Sort(names)
	return names
}

func TestBlobsAreReadByRangesAndSurviveRestarts(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		var blobs [][]byte
		for i, n := range []int{0, 1, 100, pieceBytes - 1, pieceBytes, pieceBytes + 1, 3*pieceBytes + 7} {
			blobs = append(blobs, content(uint64(i), n))
		}
		want := map[Ref][]byte{}
		for _, space := range []Space{Held, Hot, Cached, Hot} {
			for i, r := range w.put(space, blobs...) {
				if r.Space != space || r.Blob != uint32(i) || r.Bytes != int64(len(blobs[i])) {
					t.Fatalf("ref %+v for blob %d", r, i)
				}
				want[r] = blobs[i]
			}
		}
		for range 2 {
			random := rand.New(rand.NewPCG(1, 2))
			for r, b := range want {
				w.check(r, b)
				for range 5 {
					off, p := random.IntN(len(b)+2), make([]byte, random.IntN(len(b)+3))
					n, err := w.Reader(r).ReadAt(p, int64(off))
					wantN := max(0, min(len(p), len(b)-off))
					if n != wantN || (err == io.EOF) != (n < len(p)) || (n > 0 && !bytes.Equal(p[:n], b[off:off+n])) {
						t.Fatalf("ReadAt(%d bytes, %d) of %d = %d, %v", len(p), off, len(b), n, err)
					}
				}
			}
			if got := len(w.list(Hot)); got != 2*len(blobs) {
				t.Errorf("%d hot blobs listed, want %d", got, 2*len(blobs))
			}
			if !slices.IsSortedFunc(w.list(Hot), func(a, b Ref) int { return int(a.Table)*100 + int(a.Blob) - int(b.Table)*100 - int(b.Blob) }) {
				t.Error("refs are not in key order")
			}
			total := int64(0)
			for _, b := range blobs {
				total += 4 * int64(len(b))
			}
			if n := w.Bytes(); n < total || n > total+40_000 {
				t.Errorf("Bytes = %d", n)
			}
			w = w.reopen()
		}
		if len(w.losses()) > 0 {
			t.Errorf("lost %v", w.losses())
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNumbersAreNeverGivenTwice(t *testing.T) {
	w := open(t, vfs.NewMem(), "b")
	seen := map[uint64]bool{}
	for i := range 4 {
		refs := w.put(Hot, content(1, 10))
		if seen[refs[0].Table] {
			t.Fatalf("number %d again", refs[0].Table)
		}
		seen[refs[0].Table] = true
		if err := w.Delete(refs...); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			w = w.reopen()
		}
	}
	w.Close()
}

func TestDeadTablesGiveTheirSpaceBack(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		keep, go1 := w.put(Hot, content(1, 500_000)), w.put(Hot, content(2, 500_000), content(3, 70_000))
		if err := w.Delete(go1[0], go1[0], Ref{Hot, 99, 0, 5}); err != nil {
			t.Fatal(err)
		}
		w.checkGone(go1[0])
		w.check(go1[1], content(3, 70_000))
		if n := len(w.tables()); n != 2 {
			t.Errorf("%d tables, want 2", n)
		}
		w = w.reopen()
		w.checkGone(go1[0])
		if err := w.Delete(go1...); err != nil {
			t.Fatal(err)
		}
		if n := w.Bytes(); n > 520_000 {
			t.Errorf("%d bytes after the second table died", n)
		}
		w = w.reopen()
		w.checkGone(go1...)
		w.check(keep[0], content(1, 500_000))
		if n := w.tables(); len(n) != 1 {
			t.Errorf("tables %v, want one", n)
		}
		w.Close()
	})
}

func TestReclaimRewritesFromThirtyPercentAndKeepsRefs(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		var blobs [][]byte
		for i := range 20 {
			blobs = append(blobs, content(uint64(i), 100_000+i*10_000))
		}
		refs := w.put(Held, blobs...)
		if err := w.Delete(refs[1:5]...); err != nil {
			t.Fatal(err)
		}
		if freed, err := w.Reclaim(context.Background()); freed != 0 || err != nil || w.Reclaimable() != 0 {
			t.Fatalf("freed %d at less than 30 %%, %d are reclaimable, %v", freed, w.Reclaimable(), err)
		}
		w = w.reopen() // what is dead is remembered
		if err := w.Delete(refs[5:10]...); err != nil {
			t.Fatal(err)
		}
		var dead int64
		for _, r := range refs[1:10] {
			dead += r.Bytes
		}
		if n := w.Reclaimable(); n != dead {
			t.Errorf("%d are reclaimable of %d that are dead", n, dead)
		}
		before := w.Bytes()
		freed, err := w.Reclaim(context.Background())
		if err != nil || freed < dead || w.Bytes() != before-freed {
			t.Fatalf("freed %d of %d, %d remain, %v", freed, before, w.Bytes(), err)
		}
		for range 2 {
			w.checkGone(refs[1:10]...)
			w.check(refs[0], blobs[0])
			for i := 10; i < 20; i++ {
				w.check(refs[i], blobs[i])
			}
			if n := len(w.list(Held)); n != 11 {
				t.Errorf("%d blobs listed", n)
			}
			w = w.reopen()
		}
		if again, err := w.Reclaim(context.Background()); again != 0 || err != nil || w.Reclaimable() != 0 {
			t.Errorf("a rewritten table is rewritten again: %d, %v; %d are reclaimable", again, err, w.Reclaimable())
		}
		if n := len(w.tables()); n != 1 {
			t.Errorf("%d tables", n)
		}
		w.Close()
	})
}

func TestEndedTablesLeaveNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w := open(t, vfs.NewMem(), "b")
	defer w.Close()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, end := range map[string]func(*Table) error{
		"abort":         func(t *Table) error { t.Abort(); t.Abort(); return errors.New("aborted") },
		"canceled":      func(t *Table) error { _, err := t.Commit(canceled); return err },
		"an open blob":  func(t *Table) error { t.Add(); _, err := t.Commit(context.Background()); return err },
		"after aborted": func(t *Table) error { t.Abort(); _, err := t.Commit(context.Background()); return err },
	} {
		table, err := w.NewTable(Hot)
		if err != nil {
			t.Fatal(err)
		}
		out, err := table.Add()
		if err != nil {
			t.Fatal(err)
		}
		out.Write(content(1, 3*pieceBytes))
		out.Close()
		if table.Bytes() != 3*pieceBytes {
			t.Errorf("%s: %d bytes", name, table.Bytes())
		}
		if err := end(table); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := table.Add(); err == nil {
			t.Errorf("%s: takes another blob", name)
		}
	}
	empty, err := w.NewTable(Hot)
	if err != nil {
		t.Fatal(err)
	}
	if refs, err := empty.Commit(context.Background()); len(refs) != 0 || err != nil {
		t.Errorf("empty table: %v, %v", refs, err)
	}
	if names, _ := w.fs.List(w.ingestDir); len(names) != 0 || len(w.tables()) != 0 || len(w.list(Hot)) != 0 {
		t.Errorf("left %v, %v, %v", names, w.tables(), w.list(Hot))
	}
	if _, err := w.NewTable('x'); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown space: %v", err)
	}
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	w := open(t, vfs.NewMem(), "b")
	refs := w.put(Hot, []byte("abc"))
	table, err := w.NewTable(Hot)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := table.Add()
	out.Write([]byte("abc"))
	out.Close()
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	_, commit := table.Commit(context.Background())
	_, newTable := w.NewTable(Hot)
	_, read := w.read(refs[0])
	_, reclaim := w.Reclaim(context.Background())
	for _, err := range []error{commit, newTable, read, reclaim, w.Delete(refs...)} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%v, want unavailable", err)
		}
	}
}

func TestRefsThatDoNotFitAreRefused(t *testing.T) {
	w := open(t, vfs.NewMem(), "b")
	defer w.Close()
	r := w.put(Hot, content(1, 1000))[0]
	longer := r
	longer.Bytes++
	for _, c := range []struct {
		ref  Ref
		off  int64
		kind fault.Kind
	}{{longer, 0, fault.Invalid}, {r, -1, fault.Invalid}, {Ref{Hot, 77, 0, 1}, 0, fault.NotFound},
		{Ref{Hot, r.Table, 1, 1}, 0, fault.NotFound}, {Ref{Hot, r.Table, indexBlob, 1}, 0, fault.NotFound}, {Ref{Held, r.Table, 0, 1000}, 0, fault.NotFound}} {
		if _, err := w.Reader(c.ref).ReadAt(make([]byte, 1), c.off); !fault.Is(err, c.kind) {
			t.Errorf("%v at %d: %v, want %v", c.ref, c.off, err, c.kind)
		}
	}
	if len(w.losses()) > 0 {
		t.Errorf("wrong refs were taken for losses: %v", w.losses())
	}
}

// Readers, deletions and rewriting at the same time: a blob is either whole or
// not found, and what nobody deleted stays.
func TestReadersSeeWholeBlobsDuringReclaim(t *testing.T) {
	w := open(t, vfs.NewMem(), "b")
	var refs []Ref
	var blobs [][]byte
	for table := range 3 {
		var b [][]byte
		for i := range 16 {
			b = append(b, content(uint64(table*100+i), 30_000+i))
		}
		refs, blobs = append(refs, w.put(Hot, b...)...), append(blobs, b...)
	}
	var wait sync.WaitGroup
	done := make(chan struct{})
	for g := range 3 {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(g)))
			for {
				select {
				case <-done:
					return
				default:
				}
				i := random.IntN(len(refs))
				got, err := w.read(refs[i])
				if (err != nil && !fault.Is(err, fault.NotFound)) || (err == nil && !bytes.Equal(got, blobs[i])) ||
					(err != nil && i%4 == 0) {
					t.Errorf("blob %v: %v", refs[i], err)
					return
				}
			}
		})
	}
	for i, r := range refs {
		if i%4 != 0 {
			if err := w.Delete(r); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Reclaim(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wait.Wait()
	if len(w.losses()) > 0 {
		t.Errorf("lost %v", w.losses())
	}
	w = w.reopen()
	for i, r := range refs {
		if i%4 == 0 {
			w.check(r, blobs[i])
		} else {
			w.checkGone(r)
		}
	}
	w.Close()
}

func TestWritingIsOncePerByte(t *testing.T) {
	written := func() (n int64) {
		text, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Skip("no /proc/self/io here")
		}
		for line := range strings.Lines(string(text)) {
			fmt.Sscanf(line, "wchar: %d", &n)
			if n > 0 {
				break
			}
		}
		return n
	}
	dir := filepath.Join(t.TempDir(), "bulk")
	w := open(t, vfs.Default, dir)
	before, user := written(), int64(0)
	for i := range 24 {
		b := content(uint64(i), 1<<20)
		w.put([]Space{Hot, Held, Cached}[i%3], b, b)
		user += 2 << 20
		if i%8 == 7 {
			w = w.reopen()
		}
	}
	for _, r := range w.list(Held)[:4] {
		if err := w.Delete(r); err != nil {
			t.Fatal(err)
		}
	}
	w = w.reopen()
	w.Close()
	if ratio := float64(written()-before) / float64(user); ratio > 1.02 {
		t.Errorf("%.3f bytes written for each", ratio)
	}
}

func TestACheckpointIsAStoreOfThatMoment(t *testing.T) {
	onDisk(t, func(t *testing.T, fs vfs.FS, dir string) {
		w := open(t, fs, dir)
		refs, blobs := blobsOf(w)
		if err := errors.Join(w.Delete(refs[1]...), w.Delete(refs[0][0])); err != nil {
			t.Fatal(err)
		}
		to := dir + "-checkpoint"
		done := make(chan struct{})
		go func() { // changes go on
			defer close(done)
			for range 5 {
				if _, err := w.tryPut(Cached, blobs[0]); err != nil {
					t.Error(err)
				}
			}
		}()
		if err := w.Checkpoint(to); err != nil {
			t.Fatal(err)
		}
		<-done
		if err := w.Checkpoint(to); !fault.Is(err, fault.Conflict) {
			t.Errorf("over another: %v, want conflict", err)
		}
		if err := w.Delete(refs[2]...); err != nil {
			t.Fatal(err)
		}
		w.Close()
		c := open(t, fs, to)
		for i := range 3 {
			c.check(refs[2][i], blobs[i])
		}
		c.check(refs[0][1], blobs[1])
		c.checkGone(refs[1]...)
		c.checkGone(refs[0][0])
		for _, r := range c.list(Cached) {
			c.check(r, blobs[0])
		}
		if len(c.losses()) > 0 {
			t.Errorf("lost %v", c.losses())
		}
		c.Close()
	})
}
