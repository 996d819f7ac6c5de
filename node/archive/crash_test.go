package archive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
	"pelago/shard/bulk/bulktest"
)

// crashPoints is how many crashes TestNoAcknowledgedInstanceIsLostByACrash
// goes through; CRASH_POINTS asks for more.
func crashPoints(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("CRASH_POINTS")); err == nil {
		return n
	}
	if testing.Short() {
		return 10
	}
	return 40
}

// crash is a file system that loses power at one of its operations.
type crash struct {
	disk  *bulktest.Disk
	at    int64 // the operation at which the power goes
	ops   atomic.Int64
	rng   *rand.Rand
	acked *acked

	// snapshot notes who was promised what, at the moment of the crash.
	snapshot func()
	keys     *ring // if any: what it holds when the disk is copied is left
	left     *ring

	once  sync.Once
	after *vfs.MemFS // what the disk holds then
	knew  map[string]image
}

// fs is the file system to run on.
func (c *crash) fs() vfs.FS { return errorfs.Wrap(c.disk, c) }

// MaybeError implements [errorfs.Injector]: it injects nothing, but counts.
func (c *crash) MaybeError(op errorfs.Op) error {
	if c.ops.Add(1) == c.at {
		c.once.Do(func() {
			// First who was promised what, then the disk: what is acknowledged in
			// between may be on it, and need not.
			c.snapshot()
			power := func() {
				c.after = c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(101), RNG: c.rng})
			}
			if c.keys == nil {
				power()
				return
			}
			c.left = c.keys.copyWhile(power)
		})
	}
	return nil
}

func (c *crash) String() string { return fmt.Sprintf("crash at operation %d", c.at) }

// acked are the instances that senders were told are stored.
type acked struct {
	mu  sync.Mutex
	all map[string]image
}

func (a *acked) add(m image) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[m.sop] = m
}

func (a *acked) copy() map[string]image {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]image, len(a.all))
	for k, v := range a.all {
		all[k] = v
	}
	return all
}

// busy stores images from several senders at once and packs meanwhile.
func busy(t *testing.T, b *bench, a *acked, from, images int) {
	t.Helper()
	var wg sync.WaitGroup
	const senders = 4
	for s := range senders {
		wg.Go(func() {
			for n := from + s; n < from+images; n += senders {
				m := serial(n)
				if _, err := b.Store(context.Background(), m.incoming(m.encode(t))); err != nil {
					t.Errorf("store: %v", err)
					return
				}
				a.add(m)
			}
		})
	}
	wg.Go(func() {
		for range 3 {
			if err := b.Pack(context.Background()); err != nil {
				t.Errorf("pack: %v", err)
			}
		}
	})
	wg.Wait()
}

func TestNoAcknowledgedInstanceIsLostByACrash(t *testing.T) {
	// One undisturbed run tells how many operations there are to crash at.
	total := crashRun(t, 0, 1)
	if total < 100 {
		t.Fatalf("only %d file system operations", total)
	}
	points := crashPoints(t)
	for i := range points {
		at := 1 + int64(i)*total/int64(points)
		if !crashOnce(t, at, uint64(i)) {
			return
		}
	}
}

// crashOptions make segments of staging small, and used again.
func crashOptions(fs vfs.FS, keys Keys) Options {
	o := testOptions(fs, keys)
	o.StagingBytes, o.StagingAhead = 4<<20, 1<<20
	return o
}

// crashRun runs the workload to its end and returns the operations it took.
func crashRun(t *testing.T, at int64, seed uint64) int64 {
	c := newCrash(at, seed)
	b := open(t, crashOptions(c.fs(), newRing()))
	busy(t, b, c.acked, 0, 40)
	b.close()
	return c.ops.Load()
}

func newCrash(at int64, seed uint64) *crash {
	c := &crash{disk: bulktest.NewDisk(), at: at, rng: rand.New(rand.NewPCG(seed, 7)), acked: &acked{all: map[string]image{}}}
	c.snapshot = func() { c.knew = c.acked.copy() }
	return c
}

// crashOnce crashes at one operation, recovers from what the disk holds, and
// crashes once more during the recovery.
func crashOnce(t *testing.T, at int64, seed uint64) bool {
	keys := newRing()
	c := newCrash(at, seed)
	b := open(t, crashOptions(c.fs(), keys))
	busy(t, b, c.acked, 0, 40)
	b.close()
	if c.after == nil {
		return true // this run took fewer operations
	}
	// The recovery may lose power too.
	again := &crash{disk: bulktest.Over(c.after), at: 1 + c.rng.Int64N(200), rng: c.rng, snapshot: func() {}}
	b = open(t, crashOptions(again.fs(), keys))
	recovered(t, b, c.knew, at)
	b.close()
	if again.after != nil {
		b = open(t, crashOptions(again.after, keys))
		recovered(t, b, c.knew, at)
		busy(t, b, &acked{all: map[string]image{}}, 1000, 8)
		b.sound()
		b.close()
	}
	if t.Failed() {
		t.Logf("crash at operation %d, seed %d", at, seed)
	}
	return !t.Failed()
}

// recovered checks that everything acknowledged is there, and nothing by half.
func recovered(t *testing.T, b *bench, knew map[string]image, at int64) {
	t.Helper()
	for _, m := range knew {
		b.same(m)
	}
	for n := range 40 {
		m := serial(n)
		if _, promised := knew[m.sop]; promised {
			continue
		}
		if _, err := b.read(m); err == nil {
			b.same(m)
		} else if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s, never acknowledged: %v", m.sop, err)
		}
	}
	b.sound()
}
