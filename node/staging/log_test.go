package staging

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// payloadOf is arrival i's payload: unlike every other, and checkable alone.
func payloadOf(i, n int) []byte {
	r := rand.NewPCG(uint64(i), uint64(n))
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, r.Uint64())
	}
	return p[:n]
}

// stored is what a replay told of one arrival.
type stored struct {
	record string
	at     Placed
}

// openLog opens and collects the replay in its order.
func openLog(t testing.TB, o Options) (*Log, []stored) {
	t.Helper()
	var got []stored
	l, err := Open(o, func(record []byte, at Placed) error {
		got = append(got, stored{string(record), at})
		return nil
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l, got
}

// tryPut stores one arrival in pieces.
func tryPut(l *Log, record string, payload []byte, piece int) (Placed, error) {
	a, err := l.Begin()
	if err != nil {
		return Placed{}, err
	}
	defer a.Abort()
	for p := payload; len(p) > 0; {
		n := min(piece, len(p))
		if _, err := a.Write(p[:n]); err != nil {
			return Placed{}, err
		}
		p = p[n:]
	}
	return a.Commit(context.Background(), []byte(record))
}

func put(t testing.TB, l *Log, record string, payload []byte, piece int) Placed {
	t.Helper()
	at, err := tryPut(l, record, payload, piece)
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	return at
}

func read(t testing.TB, l *Log, at Placed) []byte {
	t.Helper()
	r, err := l.Open(at)
	if err != nil {
		t.Fatalf("open reader: %v", err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.NewSectionReader(r, 0, at.Bytes))
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return b
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func TestWhatIsCommittedIsReadAndReplayedByteForByte(t *testing.T) {
	for _, n := range []int{0, 1, 1000, gatherBytes - 1, gatherBytes, gatherBytes + 1, 3*maxPayloadBody + 7} {
		for _, piece := range []int{1 << 10, 16 << 10, gatherBytes + 3, 8 << 20} {
			t.Run(fmt.Sprintf("bytes=%d/piece=%d", n, piece), func(t *testing.T) {
				o := Options{FS: vfs.NewMem(), Dir: "a/b/staging"}
				l, _ := openLog(t, o)
				want := payloadOf(n, n)
				at := put(t, l, "record", want, piece)
				if at.Bytes != int64(n) || !bytes.Equal(read(t, l, at), want) {
					t.Fatalf("read differs from what was written")
				}
				closeLog(t, l)
				l, got := openLog(t, o)
				defer closeLog(t, l)
				if len(got) != 1 || got[0].record != "record" || fmt.Sprint(got[0].at) != fmt.Sprint(at) {
					t.Fatalf("replayed %v, committed %v", got, at)
				}
				if !bytes.Equal(read(t, l, got[0].at), want) {
					t.Fatalf("read after the restart differs")
				}
				if c := l.Corruptions(); len(c) != 0 {
					t.Fatalf("corruptions: %v", c)
				}
			})
		}
	}
}

func TestLargeRecordsAreKept(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "s"}
	l, _ := openLog(t, o)
	for _, n := range []int{0, inlineRecord, inlineRecord + 1, 3 << 20} {
		put(t, l, string(payloadOf(n, n)), []byte("x"), 1)
	}
	a, _ := l.Begin()
	if _, err := a.Commit(context.Background(), make([]byte, MaxRecord+1)); !fault.Is(err, fault.Invalid) {
		t.Fatalf("a record beyond the limit: %v", err)
	}
	closeLog(t, l)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	for i, n := range []int{0, inlineRecord, inlineRecord + 1, 3 << 20} {
		if got[i].record != string(payloadOf(n, n)) {
			t.Errorf("record of %d bytes differs", n)
		}
	}
}

func TestReadAtAnywhere(t *testing.T) {
	l, _ := openLog(t, Options{FS: vfs.NewMem(), Dir: "s", SegmentBytes: 100 << 10})
	defer closeLog(t, l)
	want := payloadOf(1, 3*gatherBytes+5)
	at := put(t, l, "", want, 10<<10)
	if len(at.Extents) < 4 || at.Extents[0].Segment == at.Extents[3].Segment {
		t.Fatalf("the arrival should span segments: %v", at)
	}
	r, err := l.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		off := random.IntN(len(want) + 10)
		p := make([]byte, random.IntN(2*gatherBytes))
		n, err := r.ReadAt(p, int64(off))
		expect := want[min(off, len(want)):min(off+len(p), len(want))]
		if !bytes.Equal(p[:n], expect) {
			t.Fatalf("ReadAt(%d bytes, %d): %d bytes, or other ones", len(p), off, n)
		}
		if (n < len(p)) != errors.Is(err, io.EOF) || err != nil && n == len(p) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
		}
	}
}

func TestUncommittedAndAbortedArrivalsAreNotReplayed(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "s"}
	l, _ := openLog(t, o)
	aborted, _ := l.Begin()
	if _, err := aborted.Write(payloadOf(1, 2*gatherBytes)); err != nil {
		t.Fatal(err)
	}
	open, _ := l.Begin()
	if _, err := open.Write(payloadOf(2, 2*gatherBytes)); err != nil {
		t.Fatal(err)
	}
	aborted.Abort()
	if _, err := aborted.Write([]byte{1}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("write after abort: %v", err)
	}
	if _, err := aborted.Commit(context.Background(), nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("commit after abort: %v", err)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	late, _ := l.Begin()
	if _, err := late.Commit(canceled, nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("commit with a canceled context: %v", err)
	}
	put(t, l, "whole", payloadOf(3, 100), 100)
	closeLog(t, l)
	if _, err := open.Write([]byte{1}); err == nil {
		// A gathered write may be taken; what counts is the commit.
		if _, err := open.Commit(context.Background(), nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("commit after close: %v", err)
		}
	}
	if _, err := l.Begin(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("begin after close: %v", err)
	}
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 1 || got[0].record != "whole" {
		t.Fatalf("replayed %v", got)
	}
}

func TestConcurrentArrivalsDoNotMix(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "s", SegmentBytes: 1 << 20, gather: 1 << 10}
	l, _ := openLog(t, o)
	const writers, each = 8, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				n := w*each + i
				if _, err := tryPut(l, fmt.Sprint(n), payloadOf(n, 100*n), 100); err != nil {
					t.Errorf("put %d: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != writers*each {
		t.Fatalf("%d arrivals replayed, %d committed", len(got), writers*each)
	}
	for _, s := range got {
		var n int
		fmt.Sscan(s.record, &n)
		if !bytes.Equal(read(t, l, s.at), payloadOf(n, 100*n)) {
			t.Fatalf("arrival %d differs", n)
		}
	}
}

// TestOneSyncServesAllThatWait holds as many syncs as may run at once until all
// others have written their commit frames: one more sync is enough for them.
func TestOneSyncServesAllThatWait(t *testing.T) {
	ops := newOpFS(vfs.NewMem())
	l, _ := openLog(t, Options{FS: ops, Dir: "s"})
	defer closeLog(t, l)
	const others = 20
	blocked, release, written := make(chan struct{}), make(chan struct{}), make(chan struct{}, others+maxSyncs)
	var syncs atomic.Int32
	ops.before = func(op string) error {
		switch op {
		case "syncdata":
			if syncs.Add(1) <= maxSyncs {
				blocked <- struct{}{}
				<-release
			}
		case "writeat":
			written <- struct{}{}
		}
		return nil
	}
	var wg sync.WaitGroup
	one := func(record string) {
		if _, err := tryPut(l, record, []byte("1"), 1); err != nil {
			t.Errorf("put: %v", err)
		}
	}
	for i := range maxSyncs {
		wg.Go(func() { one(fmt.Sprint("first ", i)) })
		<-written
		<-blocked
	}
	for i := range others {
		wg.Go(func() { one(fmt.Sprint(i)) })
	}
	for range others {
		<-written
	}
	// Appends publish under the log's locks: taking them once puts us behind.
	l.writeMu.Lock()
	l.writeMu.Unlock() //nolint:staticcheck // only the order counts
	close(release)
	wg.Wait()
	if n := syncs.Load(); n != maxSyncs+1 {
		t.Errorf("%d syncs for %d commits that waited for %d, want one more", n, others, maxSyncs)
	}
}

func TestBeginIsRefusedBeyondMaxBytes(t *testing.T) {
	l, _ := openLog(t, Options{FS: vfs.NewMem(), Dir: "s", SegmentBytes: 64 << 10, MaxBytes: 300 << 10})
	defer closeLog(t, l)
	var placed []Placed
	for {
		a, err := l.Begin()
		if err != nil {
			if !fault.Is(err, fault.Full) {
				t.Fatalf("begin: %v", err)
			}
			break
		}
		a.Abort()
		placed = append(placed, put(t, l, "", payloadOf(1, 50<<10), 10<<10))
		if len(placed) > 20 {
			t.Fatal("the limit does not hold")
		}
	}
	for _, at := range placed {
		if err := l.Release(at); err != nil {
			t.Fatal(err)
		}
	}
	a, err := l.Begin()
	if err != nil {
		t.Fatalf("begin after all was released: %v", err)
	}
	a.Abort()
}

func TestReserveIsAskedBeforeSpaceIsUsed(t *testing.T) {
	granted := int64(0)
	limit := int64(1 << 20)
	l, _ := openLog(t, Options{FS: vfs.NewMem(), Dir: "s", SegmentBytes: 4 << 20, Reserve: func(n int64) error {
		if granted+n > limit {
			return fault.New(fault.Full, "no space")
		}
		granted += n
		return nil
	}})
	defer closeLog(t, l)
	stored := 0
	for ; stored < 100; stored++ {
		a, err := l.Begin()
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Write(payloadOf(1, gatherBytes))
		if err == nil {
			_, err = a.Commit(context.Background(), nil)
		}
		a.Abort()
		if err != nil {
			if !fault.Is(err, fault.Full) {
				t.Fatalf("refused with %v", err)
			}
			break
		}
	}
	if stored != 3 { // three whole ones fit into 1 MiB with their frames
		t.Errorf("%d arrivals fitted", stored)
	}
	total, live := l.Bytes()
	if total > limit+segmentHeaderBytes || live != int64(stored)*gatherBytes {
		t.Errorf("total %d, live %d", total, live)
	}
	limit = 8 << 20
	put(t, l, "", payloadOf(1, gatherBytes), gatherBytes)
	select {
	case <-l.Failed():
		t.Error("a refusal must not fail the log")
	default:
	}
}
