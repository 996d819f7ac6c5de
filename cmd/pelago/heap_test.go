package main

import (
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

// The limit is the configured one while that leaves room, gives way to what is
// in use, and comes back.
func TestTheHeapsLimitGivesWayToWhatIsInUse(t *testing.T) {
	const mb = 1 << 20
	var in memoryInUse
	set := []int64{}
	h := newHeap(320*mb, slog.New(slog.DiscardHandler))
	h.sample = func() memoryInUse { return in }
	h.set = func(limit int64) { set = append(set, limit) }
	for _, c := range []struct {
		live, beside int64
		least, most  int64 // of the limit; equal: that
		steps        int
	}{
		{100 * mb, 20 * mb, 320 * mb, 320 * mb, 0},
		{210 * mb, 20 * mb, 320 * mb, 320 * mb, 0},
		{290 * mb, 30 * mb, 415 * mb, 440 * mb, 1},
		{291 * mb, 30 * mb, 415 * mb, 440 * mb, 0}, // not worth a step
		{600 * mb, 30 * mb, 830 * mb, 870 * mb, 1},
		{280 * mb, 30 * mb, 400 * mb, 430 * mb, 1},
		{100 * mb, 30 * mb, 320 * mb, 320 * mb, 1},
	} {
		in, set = memoryInUse{live: c.live, beside: c.beside}, nil
		h.adjust()
		if len(set) != c.steps || h.now < c.least || h.now > c.most || len(set) > 0 && set[0] != h.now {
			t.Errorf("%d MB in use beside %d: limit %d MB, set %d times; it should be %d to %d", c.live/mb, c.beside/mb, h.now/mb, len(set), c.least/mb, c.most/mb)
		}
	}
}

// With the limit that it asks for the collector lets the heap grow by what was
// promised: the arithmetic is the runtime's.
func TestTheLimitLeavesTheRuntimeItsRoom(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	used := make([][]byte, 64)
	for i := range used {
		used[i] = make([]byte, 4<<20)
	}
	runtime.GC()
	h := newHeap(64<<20, slog.New(slog.DiscardHandler))
	h.adjust()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var garbage []byte
	for range 64 { // as much again as is in use
		garbage = make([]byte, 4<<20)
		garbage[0] = 1
	}
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(used)
	runtime.KeepAlive(garbage)
	// A third of it a collection: three of them, and one that was under way.
	if cycles := after.NumGC - before.NumGC; cycles < 1 || cycles > 5 {
		t.Errorf("%d collections while as much became garbage as is in use, with a limit of %d MB", cycles, h.now>>20)
	}
}
