package repair

import (
	"container/heap"
	"time"

	"pelago/shard"
	"pelago/shard/held"
)

const (
	// perClass bounds how many lacking shards of one exposure are remembered at once:
	// each takes some 150 bytes. Others are found by the next walk.
	perClass = 16384
	// classes: what is urgent, then by how many shards the stripe may still lose; what
	// cannot be read by what is counted is last, for nothing may come of it.
	classes = 1 + shard.MaxShards + 1
	urgent  = 0
	// maxWaits bounds the shards whose next attempt is later.
	maxWaits = 4 * perClass

	firstWait = 15 * time.Second
	lastWait  = 30 * time.Minute
)

// classOf is the place of a stripe with so many shards to spare in the order of work.
func classOf(spare int) int {
	if spare < 0 || spare > shard.MaxShards {
		return classes - 1
	}
	return min(1+spare, classes-1)
}

// item is a shard that is lacking here.
type item struct {
	held.Entry
	bytes int64 // about
}

// queue is what is lacking, most exposed first, and what waits. A class has a room of
// its own, so that no number of shards that cannot be had keeps others out; and each
// is tried once for each walk, so that they do not keep others waiting. It is not
// safe for concurrent use.
type queue struct {
	lists   [classes][]item
	known   map[held.Name]int // class, of those in the lists
	running map[held.Name]bool
	waits   waits
	left    bool  // some found no room: another walk finds them
	bytes   int64 // of those in the lists, about
}

func newQueue() *queue {
	return &queue{known: map[held.Name]int{}, running: map[held.Name]bool{}, waits: waits{of: map[held.Name]*wait{}}}
}

// put adds a shard, or gives it another place, unless it is worked on or waits.
func (q *queue) put(it item, class int, now time.Time) {
	if q.running[it.Name] {
		return
	}
	if w := q.waits.of[it.Name]; w != nil && w.until.After(now) {
		return
	}
	before, known := q.known[it.Name]
	switch {
	case known && before == class:
		return
	case len(q.lists[class]) >= perClass:
		q.left = true
		return
	case !known:
		q.bytes += it.bytes
	}
	q.known[it.Name] = class // in the list of its former class it is passed over
	q.lists[class] = append(q.lists[class], it)
}

// first has a shard worked on before all others, also if it waits.
func (q *queue) first(it item, now time.Time) {
	q.waits.drop(it.Name)
	q.put(it, urgent, now)
}

// take returns what is to be done next, if it fits; done must be called with it.
func (q *queue) take(fits func(it item, class int) bool) (it item, class int, ok bool) {
	for class := range q.lists {
		for len(q.lists[class]) > 0 {
			it = q.lists[class][0]
			if at, known := q.known[it.Name]; !known || at != class || q.running[it.Name] {
				q.lists[class] = q.lists[class][1:]
				continue
			}
			if !fits(it, class) {
				return item{}, 0, false
			}
			q.lists[class] = q.lists[class][1:]
			delete(q.known, it.Name)
			q.bytes -= it.bytes
			q.running[it.Name] = true
			return it, class, true
		}
		q.lists[class] = nil
	}
	return item{}, 0, false
}

// done ends the work on a shard: it is here.
func (q *queue) done(n held.Name) {
	delete(q.running, n)
	q.waits.drop(n)
}

// failed ends the work on a shard until a later time, which comes later with each
// failure. hopeless: all that could have it were asked.
func (q *queue) failed(it item, class int, now time.Time, hopeless bool) (tries int) {
	delete(q.running, it.Name)
	n := it.Name
	w := wait{item: it, class: class, hopeless: hopeless, tries: 1}
	if before := q.waits.of[n]; before != nil {
		w.tries = before.tries + 1
	}
	w.until = now.Add(min(firstWait<<min(w.tries-1, 10), lastWait))
	q.waits.put(&w)
	return w.tries
}

// later puts a shard off without counting it as a failure.
func (q *queue) later(it item, class int, until time.Time) {
	delete(q.running, it.Name)
	w := wait{item: it, class: class, until: until}
	if before := q.waits.of[it.Name]; before != nil {
		w.tries = before.tries
	}
	q.waits.put(&w)
}

// len is how many wait for their turn.
func (q *queue) len() int { return len(q.known) }

// wait is when a shard is tried again.
type wait struct {
	item
	class    int
	until    time.Time
	tries    int
	hopeless bool
	at       int // in the heap
}

// waits are by name, and by time in a heap: the next one goes when there are too
// many, and is tried a little sooner than it should be.
type waits struct {
	of  map[held.Name]*wait
	all waitHeap
}

func (w *waits) put(one *wait) {
	w.drop(one.Name)
	if len(w.all) >= maxWaits {
		w.drop(w.all[0].Name)
	}
	w.of[one.Name] = one
	heap.Push(&w.all, one)
}

func (w *waits) drop(n held.Name) {
	if one := w.of[n]; one != nil {
		heap.Remove(&w.all, one.at)
		delete(w.of, n)
	}
}

// due puts those whose time has come into their lists again. How often they failed
// stays known until they are done or, as they are not wanted any more, dropped.
func (q *queue) due(now time.Time) {
	for range len(q.waits.all) {
		w := q.waits.all[0]
		if w.until.After(now) {
			return
		}
		q.put(w.item, w.class, now)
		if at, known := q.known[w.Name]; !known || at != w.class {
			return // no room: the next walk finds it
		}
		w.until = now.Add(lastWait) // it is tried before that
		heap.Fix(&q.waits.all, w.at)
	}
}

type waitHeap []*wait

func (h waitHeap) Len() int           { return len(h) }
func (h waitHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h waitHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *waitHeap) Push(x any) {
	one := x.(*wait) //nolint:errcheck // of heap.Push alone
	one.at = len(*h)
	*h = append(*h, one)
}
func (h *waitHeap) Pop() any {
	last := len(*h) - 1
	one := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return one
}
