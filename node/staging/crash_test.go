package staging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// crashSeeds is how many workloads the crash tests run; each is cut at several
// hundred points. PELAGO_CRASH_SEEDS asks for more.
func crashSeeds(t testing.TB, short int) int {
	if s := os.Getenv("PELAGO_CRASH_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("PELAGO_CRASH_SEEDS: %v", err)
		}
		return n
	}
	return short
}

// model is what a workload was told. Arrival i has record i and a payload that
// follows from i and its size.
type model struct {
	mu       sync.Mutex
	sizes    map[int]int  // begun
	acked    map[int]bool // Commit has returned without an error
	released map[int]bool // Release was called, or was about to be
	next     int
}

func newModel() *model {
	return &model{sizes: map[int]int{}, acked: map[int]bool{}, released: map[int]bool{}}
}

func (m *model) begin(size int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	m.sizes[m.next] = size
	return m.next
}

func (m *model) set(of map[int]bool, i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of[i] = true
}

func (m *model) snapshot(of map[int]bool) map[int]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(of)
}

// workload runs steps random steps on several interleaved arrivals; errors end
// an arrival, and the workload if the log has failed.
func workload(l *Log, m *model, random *rand.Rand, steps int) {
	type open struct {
		a    *Arrival
		i    int
		left []byte
	}
	var under []*open
	var placed []Placed
	var names []int
	drop := func(k int) { under = append(under[:k], under[k+1:]...) }
	for range steps {
		if l.poisoned() != nil {
			break
		}
		switch c := random.IntN(10); {
		case c < 3 && len(under) < 5 || len(under) == 0:
			size := random.IntN(6000)
			if random.IntN(6) == 0 {
				size = random.IntN(40)
			}
			a, err := l.Begin()
			if err != nil {
				continue
			}
			i := m.begin(size)
			under = append(under, &open{a, i, payloadOf(i, size)})
		case c < 9:
			k := random.IntN(len(under))
			o := under[k]
			if len(o.left) > 0 {
				n := min(len(o.left), 1+random.IntN(3000))
				if _, err := o.a.Write(o.left[:n]); err != nil {
					drop(k)
				}
				o.left = o.left[n:]
				continue
			}
			drop(k)
			at, err := o.a.Commit(context.Background(), []byte(strconv.Itoa(o.i)))
			if err == nil {
				m.set(m.acked, o.i)
				placed, names = append(placed, at), append(names, o.i)
			}
		case random.IntN(3) == 0:
			k := random.IntN(len(under))
			under[k].a.Abort()
			drop(k)
		case len(placed) > 0:
			m.set(m.released, names[0])
			_ = l.Release(placed[0]) // its failure leaves a file too many, which the caller checks for nothing
			placed, names = placed[1:], names[1:]
		}
	}
	for _, o := range under {
		o.a.Abort()
	}
}

// crashOptions make segments roll and frames be many.
func crashOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "data/staging", SegmentBytes: 24 << 10, MaxBytes: 1 << 20, Ahead: 24 << 10, gather: 1 << 10}
}

// replayChecked opens a file system as a crash has left it: everything required
// must be there, and all there is must be whole.
func replayChecked(t testing.TB, fs vfs.FS, m *model, required map[int]bool) map[int]bool {
	t.Helper()
	l, got := openLog(t, crashOptions(fs))
	defer l.Close()
	seen := checkReplayed(t, l, got, m)
	for i := range required {
		if !seen[i] {
			t.Fatalf("acknowledged arrival %d is not there", i)
		}
	}
	if c := l.Corruptions(); len(c) != 0 {
		t.Fatalf("a crash is taken for corruption: %v", c)
	}
	return seen
}

func checkReplayed(t testing.TB, l *Log, got []stored, m *model) map[int]bool {
	t.Helper()
	seen := map[int]bool{}
	for _, s := range got {
		i, err := strconv.Atoi(s.record)
		if err != nil || seen[i] {
			t.Fatalf("record %q unknown or twice", s.record)
		}
		seen[i] = true
		m.mu.Lock()
		size, begun := m.sizes[i]
		m.mu.Unlock()
		if !begun || s.at.Bytes != int64(size) || !bytes.Equal(read(t, l, s.at), payloadOf(i, size)) {
			t.Fatalf("arrival %d is there by half or with other bytes", i)
		}
	}
	return seen
}

// crash is a file system as it was cut, and what must be found in it.
type crash struct {
	fs       *vfs.MemFS
	required map[int]bool
}

// crashAtEveryOp takes a clone before every operation: once with what was synced
// alone, once with some of the rest.
func crashAtEveryOp(mem *vfs.MemFS, ops *opFS, m *model, seed uint64) *[]crash {
	random := rand.New(rand.NewPCG(seed, 99))
	var mu sync.Mutex
	var crashes []crash
	ops.before = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 1 + random.IntN(99)} {
			acked := m.snapshot(m.acked)
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: random})
			for i := range m.snapshot(m.released) {
				delete(acked, i)
			}
			crashes = append(crashes, crash{clone, acked})
		}
		return nil
	}
	return &crashes
}

func TestNoCrashLosesWhatWasAcknowledged(t *testing.T) {
	points := 0
	for seed := range crashSeeds(t, 1) {
		mem := vfs.NewCrashableMem()
		ops := newOpFS(mem)
		m := newModel()
		crashes := crashAtEveryOp(mem, ops, m, uint64(seed))
		l, err := Open(crashOptions(ops), nil)
		if err != nil {
			t.Fatal(err)
		}
		workload(l, m, rand.New(rand.NewPCG(uint64(seed), 1)), 300)
		closeLog(t, l)
		for n, c := range *crashes {
			t.Run(fmt.Sprintf("seed=%d/op=%d", seed, n), func(t *testing.T) {
				first := replayChecked(t, c.fs, m, c.required)
				if n%20 == 0 {
					checkCrashesDuringOpen(t, c.fs, m, first)
				}
			})
		}
		points += len(*crashes)
	}
	if points < 500 {
		t.Errorf("only %d crash points", points)
	}
}

// checkCrashesDuringOpen cuts a start at each of its operations, and checks that
// the next start comes to the same arrivals.
func checkCrashesDuringOpen(t *testing.T, fs *vfs.MemFS, m *model, want map[int]bool) {
	ops := newOpFS(fs)
	crashes := crashAtEveryOp(fs, ops, m, 7)
	l, _ := openLog(t, crashOptions(ops))
	closeLog(t, l)
	for _, c := range *crashes {
		if got := replayChecked(t, c.fs, m, want); len(got) != len(want) {
			t.Fatalf("%d arrivals after a start that was cut, %d before", len(got), len(want))
		}
	}
}

func TestNoCrashLosesWhatConcurrentWritersWereTold(t *testing.T) {
	for seed := range crashSeeds(t, 1) {
		mem := vfs.NewCrashableMem()
		ops := newOpFS(mem)
		m := newModel()
		crashes := crashAtEveryOp(mem, ops, m, uint64(seed))
		l, err := Open(crashOptions(ops), nil)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() { workload(l, m, rand.New(rand.NewPCG(uint64(seed), uint64(w))), 100) })
		}
		wg.Wait()
		closeLog(t, l)
		for _, c := range *crashes {
			replayChecked(t, c.fs, m, c.required)
		}
	}
}

// TestReplayMakesDurableWhatItTells ends a process alone, so that the next one
// sees bytes that no sync has covered, and then the machine.
func TestReplayMakesDurableWhatItTells(t *testing.T) {
	mem := vfs.NewCrashableMem()
	m := newModel()
	ops := newOpFS(mem)
	l, err := Open(crashOptions(ops), nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, strconv.Itoa(m.begin(5000)), payloadOf(1, 5000), 100)
	ops.before = func(op string) error {
		if op == "syncdata" {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	if _, err := tryPut(l, strconv.Itoa(m.begin(6000)), payloadOf(2, 6000), 100); err == nil {
		t.Fatal("acknowledged without a sync")
	}
	told := replayChecked(t, mem, m, nil)
	if !told[2] {
		t.Fatal("the test needs the unsynced arrival to be seen")
	}
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	replayChecked(t, after, m, told)
}
