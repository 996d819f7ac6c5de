package staging

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// aheadOptions keep two spares of 16 KiB.
func aheadOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "s", SegmentBytes: 16 << 10, MaxBytes: 1 << 20, Ahead: 32 << 10, gather: 1 << 10}
}

func spareFiles(t *testing.T, fs vfs.FS) (names []string) {
	t.Helper()
	for name := range files(t, fs, "s") {
		if IsSpare(name) {
			names = append(names, name)
		}
	}
	return names
}

func contentOf(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// churn stores and releases enough to fill n segments.
func churn(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range 4 * n {
		if err := l.Release(put(t, l, "released", payloadOf(1000+i, 3900), 1000)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANewDirectoryIsWrittenAhead(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, aheadOptions(mem))
	defer closeLog(t, l)
	if n := len(spareFiles(t, mem)); n != 1 || l.active.ahead != 16<<10 {
		t.Errorf("%d spares, the segment is written to %d", n, l.active.ahead)
	}
	if total, _ := l.Bytes(); total != segmentHeaderBytes {
		t.Errorf("%d bytes are said to be occupied by arrivals", total)
	}
}

func TestADiskWithoutRoomIsNotWrittenAhead(t *testing.T) {
	mem := vfs.NewMem()
	o := aheadOptions(mem)
	o.Reserve = func(int64) error { return fault.New(fault.Full, "no space") }
	l, _ := openLog(t, o)
	defer closeLog(t, l)
	if n := len(spareFiles(t, mem)); n != 0 || l.active.ahead != 0 {
		t.Errorf("%d spares, the segment is written to %d", n, l.active.ahead)
	}
}

func TestReleasedSegmentsAreOverwrittenAndNotMoreThanAllowed(t *testing.T) {
	mem := vfs.NewMem()
	ops := newOpFS(mem)
	l, _ := openLog(t, aheadOptions(ops))
	defer closeLog(t, l)
	churn(t, l, 10)
	if n := len(spareFiles(t, mem)); n < 1 || n > 2 {
		t.Errorf("%d spares", n)
	}
	if l.active.ahead == 0 || !l.active.stale {
		t.Error("the segment is not one that was used before")
	}
	var kept []Placed
	for i := range 40 {
		kept = append(kept, put(t, l, "kept", payloadOf(i, 3900), 1000))
	}
	if n := len(spareFiles(t, mem)); n != 0 {
		t.Errorf("%d spares while new files were made", n)
	}
	for i, at := range kept {
		if !bytes.Equal(read(t, l, at), payloadOf(i, 3900)) {
			t.Fatalf("arrival %d differs", i)
		}
	}
}

// TestBytesOfAnEarlierUseAreNeverReplayed cuts the power with a segment half
// written over an older one whose frames are all whole.
func TestBytesOfAnEarlierUseAreNeverReplayed(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := aheadOptions(mem)
	l, _ := openLog(t, o)
	churn(t, l, 10)
	for number := l.active.header.number; number == l.active.header.number; { // until one was just begun
		if err := l.Release(put(t, l, "new", payloadOf(5, 500), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if !l.active.stale {
		t.Fatal("the test needs a segment over an older one")
	}
	want := payloadOf(7, 2500)
	put(t, l, "kept", want, 1000)
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, l)

	under := contentOf(t, after, l.active.path)
	if n := bytes.Count(under, []byte(frameMagic)); n < 9 {
		t.Fatalf("the test needs old frames behind the new ones, there are %d in all", n)
	}
	o.FS = after
	again, got := openLog(t, o)
	defer closeLog(t, again)
	found := 0
	for _, s := range got {
		if s.record == "kept" {
			found++
			if !bytes.Equal(read(t, again, s.at), want) {
				t.Error("other bytes")
			}
			continue
		}
		// A released arrival may be told once more while its own segment is there.
		if s.record != "new" && s.at.Extents[0].Segment == l.active.header.number {
			t.Errorf("an arrival of the earlier use is replayed from the new one: %v", s.at)
		}
	}
	if found != 1 || len(again.Corruptions()) != 0 {
		t.Errorf("found %d times, corruptions %v", found, again.Corruptions())
	}
}

func TestAReaderNeverSeesALaterUse(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, aheadOptions(mem))
	defer closeLog(t, l)
	want := payloadOf(1, 14000)
	at := put(t, l, "", want, 1000)
	r, err := l.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(at); err != nil {
		t.Fatal(err)
	}
	churn(t, l, 10)
	got, err := io.ReadAll(io.NewSectionReader(r, 0, at.Bytes))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read after the release: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Open(at); !fault.Is(err, fault.NotFound) {
		t.Errorf("open of a segment that went: %v", err)
	}
}

// TestAFileWithAnotherNameKeepsItsBytes: a backup takes hold of segments by
// links and copies them later.
func TestAFileWithAnotherNameKeepsItsBytes(t *testing.T) {
	dir := t.TempDir()
	o := aheadOptions(vfs.Default)
	o.Dir = filepath.Join(dir, "s")
	l, _ := openLog(t, o)
	defer closeLog(t, l)
	at := put(t, l, "linked", payloadOf(1, 5000), 1000)
	linked := filepath.Join(dir, "linked")
	if err := os.Link(filepath.Join(o.Dir, segmentName(at.Extents[0].Segment)), linked); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(at); err != nil {
		t.Fatal(err)
	}
	churn(t, l, 10)
	b, err := os.ReadFile(linked)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range at.Extents {
		if !bytes.Equal(b[e.Offset:e.Offset+e.Length], payloadOf(1, 5000)[i<<10:min((i+1)<<10, 5000)]) {
			t.Fatalf("extent %d was overwritten", i)
		}
	}
	if l.active.ahead == 0 {
		t.Error("other files are not used again")
	}
}

func TestEraseLeavesNothingOfWhatWasReleased(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, aheadOptions(mem))
	defer closeLog(t, l)
	secret := []byte(strings.Repeat("DOE^JANE", 400))
	for range 40 {
		if err := l.Release(put(t, l, "", secret, 500)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // spares; then the segment that was made of one
		if err := l.Erase(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name := range files(t, mem, "s") {
		if bytes.Contains(contentOf(t, mem, mem.PathJoin("s", name)), secret[:64]) {
			t.Errorf("%s holds what was released", name)
		}
	}
	if len(spareFiles(t, mem)) == 0 || l.active.ahead == 0 {
		t.Error("erased files are not used again")
	}
}

func TestEraseThatIsCanceledKeepsTheSpare(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, aheadOptions(mem))
	defer closeLog(t, l)
	churn(t, l, 10)
	before := len(spareFiles(t, mem))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Erase(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(spareFiles(t, mem)); n != before || len(l.spares) != before || l.coming != 0 {
		t.Errorf("%d spares before, %d after, %d known, %d coming", before, n, len(l.spares), l.coming)
	}
}

func TestSparesOfAnEarlierProcessAreRemoved(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, aheadOptions(mem))
	put(t, l, "kept", payloadOf(1, 100), 100)
	left := spareFiles(t, mem)
	closeLog(t, l)
	l, got := openLog(t, aheadOptions(mem))
	defer closeLog(t, l)
	if n := len(spareFiles(t, mem)); len(left) != 1 || n != 0 || len(got) != 1 {
		t.Errorf("%v were left, %d are there; %d arrivals", left, n, len(got))
	}
}

func TestAFullDiskGetsTheSpares(t *testing.T) {
	mem := vfs.NewMem()
	full := false
	o := aheadOptions(mem)
	o.Reserve = func(int64) error {
		if full {
			return fault.New(fault.Full, "no space")
		}
		return nil
	}
	l, _ := openLog(t, o)
	defer closeLog(t, l)
	churn(t, l, 10)
	full = true
	for range 10 {
		if _, err := tryPut(l, "", payloadOf(1, 3900), 1000); err != nil {
			if !fault.Is(err, fault.Full) {
				t.Fatal(err)
			}
			if n := len(spareFiles(t, mem)); n != 0 {
				t.Errorf("%d spares on a full disk", n)
			}
			return
		}
	}
	t.Error("nothing was refused")
}
