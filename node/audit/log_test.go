package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
)

// eventOf is an event that tells its number, and is unlike every other.
func eventOf(n int) Event {
	e := Deleted(Peer{User: "ann", Address: "10.0.0.1"}, Subject{Studies: []Study{{UID: fmt.Sprintf("1.2.%d", n)}}}, Success)
	e.Time = time.Date(2026, 1, 2, 3, 4, 5, n*1000, time.UTC)
	return e
}

func numberOf(t testing.TB, e Event) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(e.Objects[0].ID, "1.2.%d", &n); err != nil {
		t.Fatalf("event %+v: %v", e, err)
	}
	return n
}

// running opens a log and runs it until stop is called.
func running(t testing.TB, o Options) (l *Log, stop func() error) {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = errors.Join(<-done, l.Close())
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return l, stop
}

func record(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := l.Record(context.Background(), eventOf(n)); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
	}
}

func flush(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Flush(context.Background()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// readAll returns the events' own numbers, and how many are lost.
func readAll(t testing.TB, l *Log, c Cursor) (numbers []int, lost uint64) {
	t.Helper()
	last := max(c, 1) - 1
	_, err := l.Read(context.Background(), c, func(e Entry) error {
		if e.Number != last+1+Cursor(e.Lost) {
			t.Fatalf("event %d after %d with %d lost", e.Number, last, e.Lost)
		}
		last = e.Number
		lost += e.Lost
		numbers = append(numbers, numberOf(t, e.Event))
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return numbers, lost
}

func checkRange(t testing.TB, got []int, from, to int) {
	t.Helper()
	if len(got) != to-from {
		t.Fatalf("%d events, want %d", len(got), to-from)
	}
	for i, n := range got {
		if n != from+i {
			t.Fatalf("event %d at place %d", n, i)
		}
	}
}

func TestEventsAreReadAsTheyWereRecordedAcrossRestarts(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "d/audit", SegmentBytes: 4 << 10}
	for round := range 3 {
		l, stop := running(t, o)
		record(t, l, round*50, round*50+50)
		flush(t, l)
		got, lost := readAll(t, l, 0)
		checkRange(t, got, 0, round*50+50)
		if lost != 0 || len(l.Damage()) != 0 {
			t.Fatalf("lost %d, damage %v", lost, l.Damage())
		}
		got, _ = readAll(t, l, 31)
		checkRange(t, got, 30, round*50+50)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnEventSurvivesItsEncoding(t *testing.T) {
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d"})
	want := Queried(Peer{AE: "WS1", Address: "10.0.0.7"}, Peer{AE: "PELAGO"}, "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2", []byte{8, 0, 0x52, 0, 0xff}, Minor)
	if err := l.Record(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	_, err := l.Read(t.Context(), 0, func(e Entry) error {
		if e.Event.Time.IsZero() || time.Since(e.Event.Time) > time.Minute {
			t.Errorf("time %v", e.Event.Time)
		}
		e.Event.Time = time.Time{}
		a, _ := json.Marshal(e.Event)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Errorf("read %s, recorded %s", a, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsAreDurableAfterTheFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := running(t, Options{FS: vfs.NewMem(), Dir: "d"})
		defer stop()
		record(t, l, 0, 10)
		time.Sleep(DefaultFlushEvery - time.Millisecond)
		synctest.Wait()
		if n := l.Next(); n != 1 {
			t.Errorf("next is %d before the interval", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := l.Next(); n != 11 {
			t.Errorf("next is %d after the interval", n)
		}
		record(t, l, 10, 10+DefaultFlushEvents)
		synctest.Wait()
		if n := l.Next(); n != 11+DefaultFlushEvents {
			t.Errorf("a full group waits: next is %d", n)
		}
		begin := time.Now()
		record(t, l, 1000, 1001)
		flush(t, l)
		if time.Since(begin) != 0 {
			t.Error("Flush waits for the interval")
		}
	})
}

func TestWhatIsQueuedIsWrittenWhenRunEnds(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "d", FlushEvery: time.Hour}
	l, stop := running(t, o)
	record(t, l, 0, 100)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(t.Context(), eventOf(1)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("record after the end: %v", err)
	}
	l, _ = running(t, o)
	got, _ := readAll(t, l, 0)
	checkRange(t, got, 0, 100)
}

func TestConcurrentRecordersShareSyncs(t *testing.T) {
	var syncs atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData {
			syncs.Add(1)
		}
		return nil
	}))
	l, _ := running(t, Options{FS: fs, Dir: "d", FlushEvery: 5 * time.Millisecond})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 250 {
				if err := l.Record(context.Background(), eventOf(w*250+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	flush(t, l)
	got, _ := readAll(t, l, 0)
	seen := map[int]bool{}
	for _, n := range got {
		seen[n] = true
	}
	if len(got) != 2000 || len(seen) != 2000 {
		t.Errorf("%d events, %d different", len(got), len(seen))
	}
	if n := syncs.Load(); n > 500 {
		t.Errorf("%d syncs for 2000 events", n)
	}
}

func TestAFullDiskHoldsEventsBackAndThenRecorders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if full.Load() && op.Kind == errorfs.OpFileWriteAt {
				return syscall.ENOSPC
			}
			return nil
		}))
		l, stop := running(t, Options{FS: fs, Dir: "d"})
		defer stop()
		full.Store(true)
		record(t, l, 0, queueEvents)
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Record(ctx, eventOf(0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the queue has no bound: %v", err)
		}
		waited := make(chan error)
		go func() { waited <- l.Record(context.Background(), eventOf(queueEvents)) }()
		synctest.Wait()
		full.Store(false)
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		flush(t, l)
		got, _ := readAll(t, l, 0)
		checkRange(t, got, 0, queueEvents+1)
	})
}

func TestAFailedSyncFailsTheLog(t *testing.T) {
	var bad atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if bad.Load() && op.Kind == errorfs.OpFileSyncData {
			bad.Store(false) // the next one would "succeed"
			return syscall.EIO
		}
		return nil
	}))
	l, stop := running(t, Options{FS: fs, Dir: "d"})
	record(t, l, 0, 1)
	flush(t, l)
	bad.Store(true)
	record(t, l, 1, 2)
	<-l.Failed()
	if err := l.Record(t.Context(), eventOf(2)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("record after the failure: %v", err)
	}
	if err := l.Flush(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("flush after the failure: %v", err)
	}
	if err := stop(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("run ends with %v", err)
	}
	if l.Next() != 2 {
		t.Errorf("the event counts as durable")
	}
}

// The node is told to end while a sync fails: what is left is not written behind it.
func TestAFailedSyncFailsTheLogAtTheEndToo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var bad atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && bad.CompareAndSwap(true, false) {
			cancel()
			return syscall.EIO
		}
		return nil
	}))
	l, err := Open(Options{FS: fs, Dir: "d"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	record(t, l, 0, 1)
	flush(t, l)
	bad.Store(true)
	record(t, l, 1, 2)
	_ = l.Flush(t.Context()) // so that it is written before the end is looked for
	if err := <-done; !fault.Is(err, fault.Unavailable) {
		t.Errorf("run ends with %v", err)
	}
	if l.Next() != 2 {
		t.Errorf("the event counts as durable")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func content(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, _ := f.Stat()
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Clone(b)); err != nil { // Write may change what it is given
		t.Fatal(err)
	}
}

func TestATornTailIsLeftBehind(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "d"}
	l, stop := running(t, o)
	record(t, l, 0, 20)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	path := "d/" + segmentName(1)
	whole := content(t, mem, path)
	for _, cut := range []int{1, 10, 100, len(whole) - segmentHeaderBytes - 1, len(whole) - segmentHeaderBytes, len(whole) - 10, len(whole)} {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("d", 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, fs, path, whole[:len(whole)-cut])
		o.FS = fs
		l, _ = running(t, o)
		kept := int(l.Next()) - 1
		record(t, l, 1000, 1010)
		flush(t, l)
		got, lost := readAll(t, l, 0)
		checkRange(t, got[:kept], 0, kept)
		checkRange(t, got[kept:], 1000, 1010)
		if lost != 0 || len(l.Damage()) != 0 {
			t.Errorf("cut %d: lost %d, damage %v", cut, lost, l.Damage())
		}
		if cut <= 100 && kept != 19 {
			t.Errorf("cut %d: %d events kept", cut, kept)
		}
	}
}

func TestARottenRecordCostsItselfAndIsTold(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "d"}
	l, stop := running(t, o)
	record(t, l, 0, 10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	path := "d/" + segmentName(1)
	b := content(t, mem, path)
	for at := segmentHeaderBytes; at < len(b); at += 11 {
		damaged := bytes.Clone(b)
		damaged[at] ^= 1 << (at % 8)
		o.FS = vfs.NewMem()
		if err := o.FS.MkdirAll("d", 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, o.FS, path, damaged)
		l, stop := running(t, o)
		record(t, l, 100, 101)
		flush(t, l)
		got, lost := readAll(t, l, 0)
		// The last record's damage cannot be told from a torn tail.
		if last := got[len(got)-2] == 8; len(got) != 10 || lost != 1 && !last {
			t.Fatalf("byte %d: %d events, %d lost", at, len(got), lost)
		}
		_ = stop()
	}
}

func TestNoCrashLosesFlushedEvents(t *testing.T) {
	mem := vfs.NewCrashableMem()
	random := rand.New(rand.NewPCG(1, 2))
	type crash struct {
		fs      *vfs.MemFS
		flushed int64
	}
	var mu sync.Mutex
	var crashes []crash
	var flushed atomic.Int64
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50} {
			n := flushed.Load()
			crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: random}), n})
		}
		return nil
	}))
	l, stop := running(t, Options{FS: fs, Dir: "audit", SegmentBytes: 8 << 10})
	for n := 0; n < 300; {
		k := 1 + random.IntN(20)
		record(t, l, n, n+k)
		n += k
		flush(t, l)
		flushed.Store(int64(n))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(crashes) < 100 {
		t.Fatalf("only %d crash points", len(crashes))
	}
	for i, c := range crashes {
		l, stop := running(t, Options{FS: c.fs, Dir: "audit", SegmentBytes: 8 << 10})
		got, _ := readAll(t, l, 0)
		if int64(len(got)) < c.flushed {
			t.Fatalf("crash %d: %d events of %d", i, len(got), c.flushed)
		}
		checkRange(t, got[:c.flushed], 0, int(c.flushed))
		end := l.Next()
		record(t, l, 5000, 5003)
		flush(t, l)
		after, _ := readAll(t, l, end)
		checkRange(t, after, 5000, 5003)
		_ = stop()
	}
}

func TestRetentionRemovesOldSegmentsThatNobodyHolds(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "d", SegmentBytes: 2 << 10, KeepBytes: 6 << 10, FlushEvents: 2}
	l, stop := running(t, o)
	l.Hold("follower", 10)
	record(t, l, 0, 100)
	flush(t, l)
	got, _ := readAll(t, l, 10) // event 9 may be at the end of a segment that went
	checkRange(t, got, 9, 100)
	l.Hold("follower", 100)
	record(t, l, 100, 120)
	flush(t, l)
	names, _ := mem.List("d")
	if len(names) > 6 { // 6 KiB in segments of about 1.5 KiB, and the one that grows
		t.Errorf("%d segments are kept", len(names))
	}
	got, lost := readAll(t, l, 9)
	if len(got) == 0 || got[len(got)-1] != 119 || lost == 0 {
		t.Errorf("%d events, %d lost", len(got), lost)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	o.KeepBytes, o.Keep = 0, time.Nanosecond
	l, stop = running(t, o)
	record(t, l, 120, 140)
	flush(t, l)
	_ = stop()
	if names, _ := mem.List("d"); len(names) > 2 {
		t.Errorf("%d segments are kept after their time", len(names))
	}
	if l.Next() != 141 {
		t.Errorf("numbers began anew: next is %d", l.Next())
	}
}

func TestExportWritesOneEventALine(t *testing.T) {
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d", Source: Source{Site: "north", ID: "node1"}})
	e := eventOf(1)
	e.OutcomeText = "two\nlines <and> \x01 a control"
	if err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	record(t, l, 2, 5)
	flush(t, l)
	for format, part := range map[Format]string{JSONLines: `{"number":1,"event":{`, XMLLines: `<AuditMessage><EventIdentification `} {
		var out bytes.Buffer
		next, err := l.Export(t.Context(), 0, format, &out)
		if err != nil || next != 5 {
			t.Fatalf("%d, %v", next, err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 4 || !strings.HasPrefix(lines[0], part) {
			t.Errorf("%d lines: %s", len(lines), lines[0])
		}
	}
	if _, err := l.Export(t.Context(), 0, 9, &bytes.Buffer{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown format: %v", err)
	}
}

func TestTooManyInstancesAreCountedInsteadOfNamed(t *testing.T) {
	l, _ := running(t, Options{FS: vfs.NewMem(), Dir: "d"})
	class := Class{UID: "1.2", Count: 40000, Instances: make([]string, 40000)}
	for i := range class.Instances {
		class.Instances[i] = strings.Repeat("1.2.3", 12)
	}
	e := Accessed(Peer{AE: "A"}, Read, Subject{Studies: []Study{{UID: "1.2", Classes: []Class{class}}}}, Success)
	if err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if len(e.Objects[0].Description.Classes[0].Instances) != 40000 {
		t.Error("the caller's event was changed")
	}
	e = Searched(Peer{AE: "A"}, Peer{AE: "B"}, strings.Repeat("x", 2<<20), Success)
	if err := l.Record(t.Context(), e); !fault.Is(err, fault.Invalid) {
		t.Errorf("an event beyond the limit: %v", err)
	}
	flush(t, l)
	_, _ = l.Read(t.Context(), 0, func(e Entry) error {
		if c := e.Event.Objects[0].Description.Classes[0]; c.Count != 40000 || len(c.Instances) != 0 {
			t.Errorf("count %d, %d instances", c.Count, len(c.Instances))
		}
		return nil
	})
}

func TestASegmentOfANewerProgramIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d", 0o700); err != nil {
		t.Fatal(err)
	}
	h := encodeHeader(1)
	h[12] = segmentVersion + 1
	binary.LittleEndian.PutUint32(h[60:], checksum(h[:60]))
	write(t, fs, "d/"+segmentName(1), h)
	if _, err := Open(Options{FS: fs, Dir: "d"}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("open: %v", err)
	}
}
