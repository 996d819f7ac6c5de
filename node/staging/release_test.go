package staging

import (
	"bytes"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

func segmentFiles(t *testing.T, fs vfs.FS) int {
	t.Helper()
	return len(files(t, fs, "s"))
}

func TestASegmentGoesOnceItIsFullAndNothingInItIsLive(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, Options{FS: mem, Dir: "s", SegmentBytes: 16 << 10, gather: 1 << 10})
	defer closeLog(t, l)
	var placed []Placed
	for i := range 20 {
		placed = append(placed, put(t, l, "", payloadOf(i, 4000), 4000))
	}
	many := segmentFiles(t, mem)
	for i, at := range placed {
		if !bytes.Equal(read(t, l, at), payloadOf(i, 4000)) {
			t.Fatalf("arrival %d cannot be read before its release", i)
		}
		if err := l.Release(at); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(at); !fault.Is(err, fault.NotFound) {
			t.Fatalf("second release: %v", err)
		}
	}
	if n := segmentFiles(t, mem); n != 1 || many < 5 {
		t.Errorf("%d segments, then %d; want only the newest", many, n)
	}
	if _, live := l.Bytes(); live != 0 {
		t.Errorf("live: %d", live)
	}
	if _, err := l.Open(placed[0]); !fault.Is(err, fault.NotFound) {
		t.Errorf("open of a removed segment: %v", err)
	}
}

func TestASegmentThatIsSealedEmptyOfLiveGoesToo(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, Options{FS: mem, Dir: "s", SegmentBytes: 16 << 10, gather: 1 << 10})
	defer closeLog(t, l)
	for i := range 20 { // each is released before its segment is full
		if err := l.Release(put(t, l, "", payloadOf(i, 4000), 4000)); err != nil {
			t.Fatal(err)
		}
	}
	if n := segmentFiles(t, mem); n > 2 {
		t.Errorf("%d segments", n)
	}
}

func TestAReaderKeepsItsSegments(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openLog(t, Options{FS: mem, Dir: "s", SegmentBytes: 16 << 10, gather: 1 << 10})
	want := payloadOf(1, 30000)
	at := put(t, l, "", want, 500)
	put(t, l, "", payloadOf(2, 16000), 500) // rolls
	r, err := l.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(at); err != nil {
		t.Fatal(err)
	}
	before := segmentFiles(t, mem)
	got, err := io.ReadAll(io.NewSectionReader(r, 0, at.Bytes))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read after the release: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n := segmentFiles(t, mem); n >= before {
		t.Errorf("%d segments while open, %d after", before, n)
	}
	late, err := l.Open(put(t, l, "", want, 500))
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if _, err := late.ReadAt(make([]byte, 10), 0); err != nil {
		t.Errorf("a reader outlives Close: %v", err)
	}
	if err := late.Close(); err != nil {
		t.Error(err)
	}
}

// TestTheCommitFramesSegmentStaysWithThePayload covers an arrival whose commit frame is in another
// segment than its payload: neither may go without the other.
func TestTheCommitFramesSegmentStaysWithThePayload(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s", SegmentBytes: 16 << 10, gather: 1 << 10}
	l, _ := openLog(t, o)
	a, _ := l.Begin()
	want := payloadOf(7, 3<<10) // whole frames: nothing is left for the commit's segment
	if _, err := a.Write(want); err != nil {
		t.Fatal(err)
	}
	for range 6 { // others fill this segment and the next ones
		if err := l.Release(put(t, l, "other", payloadOf(1, 8000), 8000)); err != nil {
			t.Fatal(err)
		}
	}
	at, err := a.Commit(t.Context(), []byte("late"))
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if err := l.Release(put(t, l, "other", payloadOf(1, 8000), 8000)); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	l, got := openLog(t, o)
	found := 0
	for _, s := range got {
		if s.record == "late" {
			found++
			if !bytes.Equal(read(t, l, s.at), want) {
				t.Error("payload differs")
			}
		} else if err := l.Release(s.at); err != nil {
			t.Fatal(err)
		}
	}
	if found != 1 || len(l.Corruptions()) != 0 {
		t.Fatalf("found %d times, corruptions %v", found, l.Corruptions())
	}
	if err := l.Release(at); err != nil {
		t.Fatal(err)
	}
	if n := segmentFiles(t, mem); n != 1 {
		t.Errorf("%d segments are left", n)
	}
	closeLog(t, l)
}

// TestACommitWhoseReleasedPayloadHasGoneIsNoCorruption: segments of a released
// arrival go one by one, as what else is in them is released.
func TestACommitWhoseReleasedPayloadHasGoneIsNoCorruption(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s", SegmentBytes: 16 << 10, gather: 1 << 10}
	l, _ := openLog(t, o)
	at := put(t, l, "spans", payloadOf(1, 30000), 500)
	stays := put(t, l, "stays", payloadOf(2, 3000), 500)
	if at.Extents[len(at.Extents)-1].Segment != stays.Extents[0].Segment {
		t.Fatal("the test needs a shared segment")
	}
	put(t, l, "", payloadOf(3, 16000), 500)
	if err := l.Release(at); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 2 || got[0].record != "stays" {
		t.Errorf("replayed %v", got)
	}
	if c := l.Corruptions(); len(c) != 0 {
		t.Errorf("corruptions: %v", c)
	}
}

func TestNumbersAndArrivalIDsAreNeverUsedAgain(t *testing.T) {
	mem := vfs.NewMem()
	ids, numbers := map[uint64]bool{}, map[uint64]bool{}
	for range 5 {
		l, got := openLog(t, Options{FS: mem, Dir: "s"})
		for _, s := range got {
			if err := l.Release(s.at); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.active.header.number; numbers[n] {
			t.Fatalf("segment %d again", n)
		} else {
			numbers[n] = true
		}
		for range 3 {
			a, err := l.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if ids[a.id] {
				t.Fatalf("arrival id %x again", a.id)
			}
			ids[a.id] = true
			if _, err := a.Commit(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		closeLog(t, l)
	}
}
