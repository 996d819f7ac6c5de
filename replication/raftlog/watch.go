package raftlog

import (
	"sync"
	"time"
)

// Operation is a kind of work of the store.
type Operation uint8

// The operations, by what they cost: the first three wait for the disk.
const (
	Append      Operation = iota // StoreLogs
	Truncate                     // DeleteRange, Replace
	WriteStable                  // Set, SetUint64
	ReadEntry                    // GetLog
	ReadStable                   // Get, GetUint64
)

// String returns the operation's name as metrics have it.
func (o Operation) String() string {
	return [...]string{"append", "truncate", "write_stable", "read_entry", "read_stable"}[o]
}

// watch knows which operations are under way, and since when.
type watch struct {
	observe func(Operation, time.Duration, error)

	mu      sync.Mutex
	running map[*running]struct{}
}

type running struct {
	w     *watch
	op    Operation
	began time.Time
}

func (w *watch) begin(op Operation) *running {
	r := &running{w, op, time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[r] = struct{}{}
	return r
}

func (r *running) end(err *error) {
	r.w.mu.Lock()
	delete(r.w.running, r)
	r.w.mu.Unlock()
	if r.w.observe != nil {
		r.w.observe(r.op, time.Since(r.began), *err)
	}
}

// Stalled returns the operation that has been under way for longest, and for
// how long; false when none is. It never waits for the disk.
func (s *Store) Stalled() (op Operation, since time.Duration, ok bool) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	now := time.Now()
	for r := range s.watch.running {
		if age := now.Sub(r.began); !ok || age > since {
			op, since, ok = r.op, age, true
		}
	}
	return op, since, ok
}
