package staging

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// goldenSegment encodes a segment with every kind of frame and a fixed salt.
func goldenSegment() []byte {
	h := segmentHeader{number: 3, life: 2, prev: 2, prevEnd: 12345}
	copy(h.salt[:], "0123456789abcdef")
	b := h.encode()
	frame := func(f frameHeader, body []byte) {
		f.length, f.bodyCRC = uint32(len(body)), checksum(0, body)
		var head [frameHeaderBytes]byte
		f.put(head[:])
		seal(head[:], &h, int64(len(b)))
		b = append(append(b, head[:]...), body...)
	}
	commit := func(first, bytes uint64, record string) []byte {
		body := make([]byte, commitFixedBytes, 100)
		commitBody{synced: position{3, segmentHeaderBytes}, first: first, bytes: bytes}.put(body)
		return append(body, record...)
	}
	one, two := uint64(2<<40+1), uint64(2<<40+2)
	frame(frameHeader{kind: framePayload, arrival: one}, []byte("first half, "))
	frame(frameHeader{kind: framePayload, arrival: two}, []byte("between"))
	frame(frameHeader{kind: framePayload, arrival: one, index: 1}, []byte("second half"))
	frame(frameHeader{kind: frameCommit, arrival: one, index: 2}, commit(3, 23, "record one"))
	frame(frameHeader{kind: frameCommit, arrival: two, index: 1}, commit(3, 7, "record two"))
	mark := make([]byte, markBytes)
	putPosition(mark, position{3, int64(len(b))})
	frame(frameHeader{kind: frameMark}, mark)
	return b
}

func TestGoldenSegment(t *testing.T) {
	path := filepath.Join("testdata", "segment-v1.stg")
	if *rewrite {
		if err := os.WriteFile(path, goldenSegment(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, goldenSegment()) {
		t.Error("the encoding differs from the released format")
	}
	fs := fsOf(t, "s", map[string][]byte{segmentName(3): golden})
	l, got := openLog(t, Options{FS: fs, Dir: "s"})
	defer closeLog(t, l)
	if len(got) != 2 || len(l.Corruptions()) != 0 {
		t.Fatalf("replayed %v, corruptions %v", got, l.Corruptions())
	}
	for i, want := range []string{"first half, second half", "between"} {
		if string(read(t, l, got[i].at)) != want || got[i].record != []string{"record one", "record two"}[i] {
			t.Errorf("arrival %d: %v", i, got[i])
		}
	}
	if n, life := l.active.header.number, l.life; n != 4 || life != 3 {
		t.Errorf("the next segment is %d of life %d", n, life)
	}
}

// FuzzOpen reads any bytes as a segment: no panic, no allocation by a claimed
// length, every arrival that is told can be read, and a second start comes to
// the same.
func FuzzOpen(f *testing.F) {
	golden := goldenSegment()
	f.Add(golden, uint32(0), byte(0))
	f.Add(golden, uint32(segmentHeaderBytes+21), byte(0xff)) // a length
	f.Add(golden[:len(golden)-30], uint32(segmentHeaderBytes+4), byte(3))
	f.Add(golden[:segmentHeaderBytes], uint32(0), byte(1))
	f.Add([]byte(segmentMagic), uint32(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint32, flip byte) {
		if len(b) > 0 {
			b = bytes.Clone(b)
			b[int(at)%len(b)] ^= flip
		}
		o := Options{FS: fsOf(t, "s", map[string][]byte{segmentName(3): b}), Dir: "s"}
		first := openAny(t, o)
		if second := openAny(t, o); first != second {
			t.Fatalf("first %s, then %s", first, second)
		}
	})
}

// openAny opens what may be refused, and describes what it found.
func openAny(t *testing.T, o Options) string {
	var got []Placed
	l, err := Open(o, func(_ []byte, at Placed) error {
		got = append(got, at)
		return nil
	})
	if err != nil {
		return err.Error()
	}
	defer l.Close()
	for _, at := range got {
		read(t, l, at)
	}
	return fmt.Sprint(got, l.Corruptions())
}

// FuzzScan feeds sealed frames of any content to the scanner, so that the
// fuzzer gets past the checksums.
func FuzzScan(f *testing.F) {
	f.Add(byte(1), uint64(1), uint32(0), []byte("payload"), []byte{})
	f.Add(byte(2), uint64(1), uint32(1), make([]byte, 60), []byte("tail"))
	f.Add(byte(3), uint64(0), uint32(0), make([]byte, markBytes), []byte(frameMagic))
	f.Fuzz(func(t *testing.T, kind byte, arrival uint64, index uint32, body, tail []byte) {
		h := segmentHeader{number: 3, life: 1, salt: [16]byte{1}}
		b := h.encode()
		head := make([]byte, frameHeaderBytes)
		frameHeader{kind: frameKind(kind), arrival: arrival, index: index, length: uint32(len(body)), bodyCRC: checksum(0, body)}.put(head)
		seal(head, &h, int64(len(b)))
		b = append(append(append(b, head...), body...), tail...)
		openAny(t, Options{FS: fsOf(t, "s", map[string][]byte{segmentName(3): b}), Dir: "s"})

		end := int64(segmentHeaderBytes)
		sc := newScanner(bytes.NewReader(b), int64(len(b)), &h, make([]byte, 128))
		next := func(from, to int64) {
			if from != end || to <= from {
				t.Fatalf("%d..%d follows %d", from, to, end)
			}
			end = to
		}
		ended := false
		err := sc.run(func(f foundFrame) error {
			ended = f.kind == frameMark // nothing behind it is read
			next(f.offset, f.offset+frameHeaderBytes+int64(f.length))
			return nil
		}, func(r badRange) { next(r.from, r.to) })
		if err != nil || end != int64(len(b)) && !ended {
			t.Fatalf("ended at %d of %d: %v", end, len(b), err)
		}
	})
}

// TestFramesInsideAPayloadAreNotFrames stores a segment inside of a segment and
// then breaks the outer frame's header, so that the scan goes through it.
func TestFramesInsideAPayloadAreNotFrames(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s"}
	l, _ := openLog(t, o)
	at := put(t, l, "outer", goldenSegment(), 1<<20)
	put(t, l, "next", []byte("x"), 1)
	closeLog(t, l)
	content := files(t, mem, "s")
	content[segmentName(at.Extents[0].Segment)][at.Extents[0].Offset-1] ^= 1
	o.FS = fsOf(t, "s", content)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 1 || got[0].record != "next" {
		t.Errorf("replayed %v", got)
	}
}
