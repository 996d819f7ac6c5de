package world

import (
	"sync"
	"time"
)

// Limits of what is carried as one piece.
const (
	minSegment  = packet
	maxSegment  = 64 << 10
	segmentTime = time.Millisecond // that a segment should take, so that connections take turns
)

// bottleneck serves bytes at a rate in the order in which they come. It has no
// clock of its own.
type bottleneck struct {
	mu    sync.Mutex
	rate  Rate      // 0: none
	queue int64     // bytes that may wait; 0: defaultQueue
	free  time.Time // when all it was given will have been served
}

// set changes the rate and the queue. What waits takes its time again at the
// new rate, as far as later bytes notice it.
func (b *bottleneck) set(now time.Time, rate Rate, queue int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait := b.free.Sub(now); wait > 0 && b.rate > 0 {
		b.free = now
		if rate > 0 {
			b.free = now.Add(rate.Time(b.rate.Bytes(wait)))
		}
	}
	b.rate, b.queue = rate, queue
}

// segment returns how many bytes should be served as one piece: at most a
// millisecond's, so that what is small does not wait long behind what is large.
func (b *bottleneck) segment() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.segmentLocked()
}

func (b *bottleneck) segmentLocked() int64 {
	if b.rate == 0 {
		return maxSegment
	}
	return min(max(b.rate.Bytes(segmentTime), minSegment), maxSegment)
}

// wait says how long until n bytes, at most a segment, have room in the queue.
func (b *bottleneck) wait(now time.Time, n int64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return 0
	}
	queue := b.queue
	if queue == 0 {
		queue = b.rate.Bytes(defaultQueue)
	}
	queue = max(queue, 2*b.segmentLocked())
	return b.rate.Time(max(0, b.rate.Bytes(max(0, b.free.Sub(now)))+n-queue))
}

// pass takes n bytes and says when they will have been served.
func (b *bottleneck) pass(now time.Time, n int64) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return now
	}
	if b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(b.rate.Time(n))
	return b.free
}
