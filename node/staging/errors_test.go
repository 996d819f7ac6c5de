package staging

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

func isFailed(l *Log) bool {
	select {
	case <-l.Failed():
		return true
	default:
		return false
	}
}

// inject makes operation n (from 0) fail with err; all operations of the kind
// from there on if it is not once.
func inject(ops *opFS, n int, err error, hit *string) {
	count := 0
	ops.before = func(op string) error {
		count++
		if count-1 == n {
			*hit = op
			return err
		}
		return nil
	}
}

// TestEveryOperationMayFail fails each operation of a workload in turn, for want
// of space and otherwise; whatever was acknowledged must be there after the
// machine went down, the failing operation included.
func TestEveryOperationMayFail(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		hits := map[string]int{}
		for n, ahead := 0, false; ; n++ {
			mem := vfs.NewCrashableMem()
			ops := newOpFS(mem)
			m := newModel()
			hit := ""
			inject(ops, n, cause, &hit)
			o := crashOptions(ops)
			if !ahead {
				o.Ahead = 0 // segments are removed, not used again
			}
			l, err := Open(o, nil)
			if err == nil {
				workload(l, m, rand.New(rand.NewPCG(3, 3)), 150)
				ops.before = nil
				checkFailure(t, l, m, hit, cause)
				_ = l.Close()
			}
			if hit == "" && ahead {
				break
			}
			if hit == "" {
				n, ahead = -1, true
				continue
			}
			hits[hit]++
			required := m.snapshot(m.acked)
			for i := range m.snapshot(m.released) {
				delete(required, i)
			}
			replayChecked(t, mem.CrashClone(vfs.CrashCloneCfg{}), m, required)
		}
		for _, op := range []string{"open", "writeat", "syncdata", "sync", "remove", "mkdir", "opendir", "preallocate", "rename"} {
			if hits[op] == 0 {
				t.Errorf("%v: no %s was made to fail", cause, op)
			}
		}
	}
}

// checkFailure checks that a log which met an error is poisoned if and only if
// the error makes it so.
func checkFailure(t *testing.T, l *Log, m *model, hit string, cause error) {
	t.Helper()
	want := map[string]bool{"writeat": true, "syncdata": true, "sync": true, "open": true, "preallocate": true}[hit]
	if hit == "rename" {
		want = isFailed(l) // of a new segment it is fatal, of a released one it costs a spare
	}
	if errors.Is(cause, syscall.ENOSPC) {
		switch hit {
		case "writeat", "open", "preallocate":
			want = false
		case "syncdata": // of a new segment's header: only that segment is given up
			return
		}
	}
	if isFailed(l) != want {
		t.Fatalf("%s failed with %v: log failed = %v, want %v", hit, cause, isFailed(l), want)
	}
	if !want {
		i := m.begin(0)
		put(t, l, strconv.Itoa(i), payloadOf(i, 0), 1)
		m.set(m.acked, i)
		return
	}
	if _, err := l.Begin(); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("begin after a failure: %v", err)
	}
}

// startArrival begins one with some bytes already in the segment.
func startArrival(t *testing.T, l *Log) *Arrival {
	t.Helper()
	a, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(payloadOf(1, l.options.gather+10)); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAFailedSyncIsNeverBelieved(t *testing.T) {
	ops := newOpFS(vfs.NewMem())
	l, _ := openLog(t, Options{FS: ops, Dir: "s", gather: 100})
	other := startArrival(t, l)
	fails := true
	ops.before = func(op string) error {
		if op == "syncdata" && fails {
			fails = false // the next one "succeeds", as it does on Linux
			return syscall.EIO
		}
		return nil
	}
	if _, err := tryPut(l, "a", []byte("x"), 1); !fault.Is(err, fault.Unavailable) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit over a failed sync: %v", err)
	}
	if !isFailed(l) {
		t.Fatal("Failed is not closed")
	}
	if _, err := other.Write([]byte("y")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("write after the failure: %v", err)
	}
	if _, err := other.Commit(context.Background(), nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("commit after the failure: %v", err)
	}
	if _, err := l.Begin(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("begin after the failure: %v", err)
	}
	if err := l.Close(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("close after the failure: %v", err)
	}
}

func TestAFullDiskRefusesOneArrivalAndGoesOn(t *testing.T) {
	ops := newOpFS(vfs.NewMem())
	o := Options{FS: ops, Dir: "s", gather: 100}
	l, _ := openLog(t, o)
	other := startArrival(t, l)
	full := false
	ops.before = func(op string) error {
		if op == "writeat" && full {
			return fmt.Errorf("write: %w", syscall.ENOSPC)
		}
		return nil
	}
	full = true
	a, _ := l.Begin()
	if _, err := a.Write(make([]byte, 1000)); !fault.Is(err, fault.Full) {
		t.Fatalf("write to a full disk: %v", err)
	}
	if _, err := a.Commit(context.Background(), nil); !fault.Is(err, fault.Full) {
		t.Fatalf("commit of the dead arrival: %v", err)
	}
	if _, err := tryPut(l, "small", []byte("x"), 1); !fault.Is(err, fault.Full) {
		t.Fatalf("commit to a full disk: %v", err)
	}
	full = false
	if isFailed(l) {
		t.Fatal("a full disk must not fail the log")
	}
	if _, err := other.Commit(context.Background(), []byte("other")); err != nil {
		t.Fatalf("the other arrival: %v", err)
	}
	put(t, l, "next", payloadOf(2, 1000), 10)
	closeLog(t, l)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 2 || got[0].record != "other" || got[1].record != "next" {
		t.Fatalf("replayed %v", got)
	}
	if c := l.Corruptions(); len(c) != 0 {
		t.Errorf("a full disk is taken for corruption: %v", c)
	}
}

// TestAShortWriteIsOverwritten lets half of a frame through before the disk is
// full, so that later frames must cover the remains.
func TestAShortWriteIsOverwritten(t *testing.T) {
	mem := vfs.NewMem()
	short := &shortFS{FS: mem}
	o := Options{FS: short, Dir: "s", gather: 1000}
	l, _ := openLog(t, o)
	for i := range 20 {
		short.fail = i%3 == 1
		_, err := tryPut(l, fmt.Sprint(i), payloadOf(i, 700+137*i), 10)
		if short.fail != fault.Is(err, fault.Full) || !short.fail && err != nil {
			t.Fatalf("arrival %d: %v", i, err)
		}
	}
	short.fail = false
	closeLog(t, l)
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 13 || len(l.Corruptions()) != 0 {
		t.Fatalf("%d arrivals, corruptions %v", len(got), l.Corruptions())
	}
}

type shortFS struct {
	vfs.FS
	fail bool
}

type shortFile struct {
	vfs.File
	fs *shortFS
}

func (f *shortFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return &shortFile{file, f}, nil
}

func (f *shortFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.fail {
		n, _ := f.File.WriteAt(p[:len(p)*2/3], off)
		return n, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

func TestAnErrorOfTheCallerEndsOpenAndChangesNothing(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "s"}
	l, _ := openLog(t, o)
	put(t, l, "a", []byte("x"), 1)
	closeLog(t, l)
	before, _ := o.FS.List("s")
	refusal := errors.New("refused")
	if _, err := Open(o, func([]byte, Placed) error { return refusal }); !errors.Is(err, refusal) {
		t.Fatalf("open: %v", err)
	}
	if after, _ := o.FS.List("s"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("files %v, before %v", after, before)
	}
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 1 {
		t.Errorf("replayed %v", got)
	}
}

func TestASegmentOfANewerProgramIsRefused(t *testing.T) {
	o := Options{FS: vfs.NewMem(), Dir: "s"}
	l, _ := openLog(t, o)
	closeLog(t, l)
	names, _ := o.FS.List("s")
	f, err := o.FS.OpenReadWrite("s/"+names[0], vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	h := (&segmentHeader{number: 1, life: 1}).encode()
	h[12] = segmentVersion + 1
	putCRC(h)
	if _, err := f.WriteAt(h, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := Open(o, nil); !fault.Is(err, fault.Unsupported) {
		t.Fatalf("open: %v", err)
	}
}

// TestAStartOnAFullDisk finds no room for a segment of its own: it must replay,
// serve reads and releases, and take arrivals again once there is room.
func TestAStartOnAFullDisk(t *testing.T) {
	for _, roomAfter := range []string{"release", "elsewhere"} {
		t.Run(roomAfter, func(t *testing.T) {
			mem := vfs.NewMem()
			o := Options{FS: mem, Dir: "s", SegmentBytes: 12 << 10, gather: 1 << 10}
			l, _ := openLog(t, o)
			for i := range 4 {
				put(t, l, fmt.Sprint(i), payloadOf(i, 4000), 1000)
			}
			closeLog(t, l)
			ops := newOpFS(mem)
			o.FS = ops
			full := true
			ops.before = func(op string) error {
				if op == "writeat" && full {
					return syscall.ENOSPC
				}
				return nil
			}
			l, got := openLog(t, o)
			if len(got) != 4 {
				t.Fatalf("replayed %d", len(got))
			}
			if _, err := tryPut(l, "x", payloadOf(1, 10), 10); !fault.Is(err, fault.Full) || isFailed(l) {
				t.Fatalf("put: %v, failed %v", err, isFailed(l))
			}
			for i, s := range got {
				if string(read(t, l, s.at)) != string(payloadOf(i, 4000)) {
					t.Fatalf("arrival %d differs", i)
				}
				if err := l.Release(s.at); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(files(t, mem, "s")); n != 1 {
				t.Fatalf("%d segments are left, want the newest", n)
			}
			if roomAfter == "elsewhere" {
				full = false
			}
			ops.after = func(op string) { // the log's own last segment was what filled the disk
				if op == "remove" && len(files(t, mem, "s")) == 0 {
					full = false
				}
			}
			put(t, l, "next", payloadOf(9, 100), 10)
			closeLog(t, l)
			l, got = openLog(t, o)
			if len(got) != 1 || got[0].record != "next" || len(l.Corruptions()) != 0 {
				t.Errorf("replayed %v, corruptions %v", got, l.Corruptions())
			}
			closeLog(t, l)
		})
	}
}

func TestALogThatNeverFoundRoomCloses(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem, Dir: "s"}
	l, _ := openLog(t, o)
	put(t, l, "a", []byte("x"), 1)
	closeLog(t, l)
	ops := newOpFS(mem)
	ops.before = func(op string) error {
		if op == "writeat" {
			return syscall.ENOSPC
		}
		return nil
	}
	o.FS = ops
	l, _ = openLog(t, o)
	closeLog(t, l)
	o.FS = mem
	l, got := openLog(t, o)
	defer closeLog(t, l)
	if len(got) != 1 {
		t.Errorf("replayed %v", got)
	}
}
