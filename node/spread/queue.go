package spread

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"pelago/shard"
	"pelago/shard/pack"
)

const (
	// maxItems is how many packs are remembered as waiting, 5 MB; the others are only
	// counted, and found by the next survey.
	maxItems = 32 << 10
	// maxHurried is how many more have room that somebody waits for. Who waits asks
	// again and again.
	maxHurried = 4 << 10
	// maxBatch is how many small packs go together, and batchBytes what they take in
	// memory.
	maxBatch   = 1000
	batchBytes = 32 << 20
)

// item is a pack that waits for something.
type item struct {
	id       pack.ID
	bytes    int64       // of its ciphertext; 0: not known yet
	since    time.Time   // it waits
	survives int         // sites that may be lost now; below 0: even this one may not
	fresh    bool        // it was packed since the start: it waits for its first stripe
	hurried  atomic.Bool // somebody waits for it
	due      time.Time   // it is tried then
	tries    int         // in vain, since something came of it
	tried    time.Time   // the last time
	needs    []string    // nodes that it lacks
	taken    uint32      // generations up to it are another's at some holder
	flying   bool        // in a round
	again    bool        // it was asked for while it was in a round
}

// before is the order of the line: who is waited for, then what survives least.
func (i *item) before(o *item) int {
	return cmp.Or(
		-cmp.Compare(boolean(i.hurried.Load()), boolean(o.hurried.Load())),
		cmp.Compare(i.survives, o.survives),
		i.since.Compare(o.since),
		slices.Compare(i.id[:], o.id[:]),
	)
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// queue is what waits. It is not safe for concurrent use, nor are its items, but for
// what is fixed of them or atomic.
type queue struct {
	items map[pack.ID]*item
	// beyond is what the last survey counted and there was no room for.
	beyond      int
	beyondBytes int64
}

func newQueue() queue { return queue{items: map[pack.ID]*item{}} }

// add takes an item in, or has one that is there be what the new one asks for. It
// reports false if there is no room; for what somebody waits for there is a little more.
func (q *queue) add(n *item) bool {
	it := q.items[n.id]
	if it == nil {
		switch hurried := n.hurried.Load(); {
		case hurried && len(q.items) >= maxItems+maxHurried:
			return false // it was counted when it was packed, and is asked for again
		case !hurried && len(q.items) >= maxItems:
			q.beyond++
			q.beyondBytes += n.bytes
			return false
		}
		q.items[n.id] = n
		return true
	}
	it.again = it.again || it.flying
	if n.hurried.Load() {
		it.hurried.Store(true)
	}
	it.fresh = it.fresh || n.fresh && it.survives < 0 // the survey may have met it first
	it.bytes = max(it.bytes, n.bytes)
	it.survives = min(it.survives, n.survives)
	soon := it.tried.Add(hurriedRetry) // who waits may ask again and again
	if soon.Before(n.due) {
		soon = n.due
	}
	if soon.Before(it.due) {
		it.due = soon
	}
	return true
}

func (q *queue) waiting() (packs int, bytes int64) {
	for _, it := range q.items {
		packs, bytes = packs+1, bytes+it.bytes
	}
	return packs + q.beyond, bytes + q.beyondBytes
}

func (q *queue) oldest() (since time.Time) {
	for _, it := range q.items {
		if since.IsZero() || it.since.Before(since) {
			since = it.since
		}
	}
	return since
}

// clear forgets what waits: nothing is striped any more.
func (q *queue) clear() {
	clear(q.items)
	q.beyond, q.beyondBytes = 0, 0
}

// reset has everything tried now: the placement has changed.
func (q *queue) reset(now time.Time) {
	for _, it := range q.items {
		it.due, it.tries = now, 0
	}
}

// back has what lacks a node tried now: it is there again.
func (q *queue) back(node string, now time.Time) {
	for _, it := range q.items {
		if slices.Contains(it.needs, node) {
			it.due, it.tries = now, 0
		}
	}
}

// line returns the items that are due, in their order, at most so many as a round
// may look at, and when the next one will be (zero: none).
func (q *queue) line(now time.Time) (due []*item, next time.Time) {
	for _, it := range q.items {
		switch {
		case it.flying:
		case !it.due.After(now):
			due = append(due, it)
		case next.IsZero() || it.due.Before(next):
			next = it.due
		}
	}
	slices.SortFunc(due, (*item).before)
	return due, next
}

// round takes the first of a line: a large pack alone, or small ones together. All
// bytes are known.
func round(line []*item) []*item {
	var of []*item
	var bytes int64
	for _, it := range line {
		large := it.bytes > shard.SmallBytes
		if len(of) == 0 && large {
			return []*item{it}
		}
		if large {
			continue
		}
		if len(of) == maxBatch || bytes+it.bytes > batchBytes {
			break
		}
		of, bytes = append(of, it), bytes+it.bytes
	}
	return of
}
