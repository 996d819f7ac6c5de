package staging

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// putCRC writes the checksums of a changed segment header.
func putCRC(h []byte) {
	binary.LittleEndian.PutUint32(h[segmentCRCOffset:], checksum(0, h[:segmentCRCOffset]))
	copy(h[segmentCopyBytes:], h[:segmentCopyBytes])
}

// files is the content of a directory.
func files(t testing.TB, fs vfs.FS, dir string) map[string][]byte {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		info, _ := f.Stat()
		b := make([]byte, info.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[name] = b
	}
	return all
}

// fsOf makes a file system of such content.
func fsOf(t testing.TB, dir string, content map[string][]byte) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range content {
		f, err := fs.Create(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(b)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return fs
}

// TestAFlippedBitIsReportedAndTheRestKept flips a bit in each part of every
// frame of a log with five arrivals in several segments.
func TestAFlippedBitIsReportedAndTheRestKept(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s", SegmentBytes: 12 << 10, gather: 1 << 10}
	l, _ := openLog(t, o)
	var placed []Placed
	for i := range 5 {
		placed = append(placed, put(t, l, fmt.Sprint(i), payloadOf(i, 1500*i), 300))
	}
	closeLog(t, l)
	content := files(t, mem, "s")
	if len(content) < 4 {
		t.Fatalf("only %d segments", len(content))
	}
	flips := 0
	for name, b := range content {
		for at := segmentHeaderBytes; at < len(b); at += 29 {
			flips++
			damaged := map[string][]byte{}
			for n, b := range content {
				damaged[n] = b
			}
			damaged[name] = slices.Clone(b)
			damaged[name][at] ^= 1 << (at % 8)
			checkOneFlip(t, fsOf(t, "s", damaged), o, name, at, placed)
		}
	}
	if flips < 300 {
		t.Errorf("only %d flips", flips)
	}
}

func checkOneFlip(t *testing.T, fs *vfs.MemFS, o Options, name string, at int, placed []Placed) {
	t.Helper()
	o.FS = fs
	l, got := openLog(t, o)
	defer closeLog(t, l)
	// The closing mark, written last, is known to be durable by nothing after it.
	lastName := segmentName(placed[len(placed)-1].Extents[0].Segment)
	inMark := at >= len(files(t, fs, "s")[name])-frameHeaderBytes-markBytes && name >= lastName
	if len(l.Corruptions()) == 0 && !inMark {
		t.Fatalf("%s byte %d: not reported", name, at)
	}
	want := len(placed) - 1
	if len(got) < want {
		t.Fatalf("%s byte %d: %d arrivals kept, want at least %d", name, at, len(got), want)
	}
	for _, s := range got {
		var i int
		fmt.Sscan(s.record, &i)
		if !bytes.Equal(read(t, l, s.at), payloadOf(i, 1500*i)) {
			t.Fatalf("%s byte %d: arrival %d differs", name, at, i)
		}
	}
	// The report stands at every start, until an operator moves the segment.
	before := l.Corruptions()
	closeLog(t, l)
	again, _ := openLog(t, o)
	defer closeLog(t, again)
	if fmt.Sprint(again.Corruptions()) != fmt.Sprint(before) {
		t.Fatalf("%s byte %d: reported %v, then %v", name, at, before, again.Corruptions())
	}
}

func TestOneCopyOfASegmentHeaderIsEnough(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s"}
	l, _ := openLog(t, o)
	at := put(t, l, "a", payloadOf(1, 1000), 100)
	closeLog(t, l)
	name := segmentName(at.Extents[0].Segment)
	for _, both := range []bool{false, true} {
		content := files(t, mem, "s")
		clear(content[name][:segmentCopyBytes])
		if both {
			content[name][segmentCopyBytes+20] ^= 1
		}
		o.FS = fsOf(t, "s", content)
		l, got := openLog(t, o)
		if both {
			if len(got) != 0 || len(l.Corruptions()) != 1 {
				t.Errorf("without a header: %v, %v", got, l.Corruptions())
			}
		} else if len(got) != 1 || len(l.Corruptions()) != 0 {
			t.Errorf("with one copy: %v, %v", got, l.Corruptions())
		}
		closeLog(t, l)
		if _, kept := files(t, o.FS, "s")[name]; !kept {
			t.Errorf("the segment was removed")
		}
	}
}

func TestALostTailBelowTheSyncedOffsetIsReported(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s"}
	l, _ := openLog(t, o)
	first := put(t, l, "first", payloadOf(1, 1000), 100)
	put(t, l, "second", payloadOf(2, 1000), 100)
	closeLog(t, l)
	content := files(t, mem, "s")
	name := segmentName(first.Extents[0].Segment)
	content[name] = content[name][:first.Extents[0].Offset+500]
	o.FS = fsOf(t, "s", content)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 0 {
		t.Errorf("replayed %v", got)
	}
	// No commit is left to say what was synced: nothing tells this from a crash.
	if c := l.Corruptions(); len(c) != 0 {
		t.Errorf("corruptions: %v", c)
	}

	content = files(t, mem, "s")
	b := content[name]
	clear(b[first.Extents[0].Offset+500 : first.Extents[0].Offset+600]) // the later commit and the mark still tell
	o.FS = fsOf(t, "s", content)
	l2, got := openLog(t, o)
	defer closeLog(t, l2)
	if len(got) != 1 || got[0].record != "second" || len(l2.Corruptions()) == 0 {
		t.Errorf("replayed %v, corruptions %v", got, l2.Corruptions())
	}
}

func TestZeroTailsOfPreallocatedSegmentsAreNoCorruption(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s"}
	l, _ := openLog(t, o)
	at := put(t, l, "a", payloadOf(1, 1000), 100)
	closeLog(t, l)
	content := files(t, mem, "s")
	name := segmentName(at.Extents[0].Segment)
	content[name] = append(content[name], make([]byte, 3<<20)...)
	o.FS = fsOf(t, "s", content)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 1 || len(l.Corruptions()) != 0 {
		t.Errorf("replayed %v, corruptions %v", got, l.Corruptions())
	}
}

func TestAReadThatMeetsARottenFrameIsCorrupt(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, Options{FS: mem, Dir: "s"})
	defer closeLog(t, l)
	at := put(t, l, "a", payloadOf(1, 1000), 100)
	path := "s/" + segmentName(at.Extents[0].Segment)
	f, err := mem.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0, 0, 0}, at.Extents[0].Offset+10); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r, err := l.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.ReadAt(make([]byte, 1000), 0); !fault.Is(err, fault.Corrupt) {
		t.Errorf("read: %v", err)
	}
	if c := l.Corruptions(); len(c) != 1 || c[0].Segment != at.Extents[0].Segment {
		t.Errorf("corruptions: %v", c)
	}
	if isFailed(l) {
		t.Error("a read error must not fail the log")
	}
}

// rottenFS cannot read some bytes of a file.
type rottenFS struct {
	vfs.FS
	name     string
	from, to int64
}

type rottenFile struct {
	vfs.File
	fs *rottenFS
}

func (f *rottenFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	if err != nil || name != f.name {
		return file, err
	}
	return &rottenFile{file, f}, nil
}

func (f *rottenFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.fs.to && f.fs.from < off+int64(len(p)) {
		return 0, fmt.Errorf("medium error")
	}
	return f.File.ReadAt(p, off)
}

func TestUnreadableSectorsCostOnlyWhatTheyHold(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s"}
	l, _ := openLog(t, o)
	var placed []Placed
	for i := range 10 {
		placed = append(placed, put(t, l, fmt.Sprint(i), payloadOf(i, 20<<10), 4<<10))
	}
	closeLog(t, l)
	bad := placed[4].Extents[0]
	from := (bad.Offset + 8<<10) &^ 4095
	o.FS = &rottenFS{mem, "s/" + segmentName(bad.Segment), from, from + 4096}
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 9 {
		t.Errorf("%d arrivals kept, want 9", len(got))
	}
	if c := l.Corruptions(); len(c) == 0 || c[0].Reason != errUnreadable.Error() {
		t.Errorf("corruptions: %v", c)
	}
}
