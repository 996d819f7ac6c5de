package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"pelago/node/work"
)

const (
	// heapRoom is which part of what is in use may become garbage before the
	// collector runs again: a third.
	heapRoom  = 3
	heapEvery = time.Second
)

// heap holds the soft limit of Go's memory at what is configured, and above it
// while what is in use leaves no room below: a collector that is held to less
// than is in use runs without end and frees nothing (decision 0043).
type heap struct {
	log    *slog.Logger
	limit  int64              // configured, bytes
	set    func(limit int64)  // of the runtime
	sample func() memoryInUse // of it, too
	now    int64              // the limit that is set
	told   bool               // that it was above the configured one
}

// memoryInUse is what a limit has to hold, in bytes.
type memoryInUse struct {
	live   int64 // of the heap: what the last collection found in use
	beside int64 // what is no object of the heap: stacks, the runtime's own, holes between objects
}

func newHeap(limit int64, log *slog.Logger) *heap {
	return &heap{log: log, limit: limit, now: limit, sample: readMemory, set: func(limit int64) { debug.SetMemoryLimit(limit) }}
}

func (h *heap) task() work.Task {
	return work.Task{Name: "heap", Run: work.Every(heapEvery, func(context.Context, *work.Progress) error {
		h.adjust()
		return nil
	})}
}

// adjust sets the limit anew if what is in use asks for another one.
func (h *heap) adjust() {
	m := h.sample()
	goal := m.live + m.live/heapRoom
	want := max(h.limit, goal+goal/32+m.beside) // the runtime keeps 3 % free below a limit
	if change := want - h.now; change == 0 || want != h.limit && max(change, -change) < h.limit/32 {
		return // a step for every little change would be noise
	}
	h.set(want)
	h.now = want
	if want > h.limit && !h.told { // once: what is in use may go up and down all day, and metrics follow it
		h.told = true
		h.log.Info("more memory is in use than store.memory leaves the heap; its limit gives way", "in_use", m.live+m.beside, "limit", h.limit)
	}
}

// readMemory asks the runtime. Its limit counts what is mapped but what was
// released to the system; free spans are as good as released (runtime/mgcpacer.go,
// memoryLimitHeapGoal).
func readMemory() memoryInUse {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	metrics.Read(samples)
	of := func(i int) int64 { return int64(samples[i].Value.Uint64()) } //nolint:gosec // bytes of this process
	return memoryInUse{live: of(0), beside: max(0, of(1)-of(2)-of(3)-of(4))}
}
