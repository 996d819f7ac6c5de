package catalog

import (
	"slices"
	"sync"
)

// keptResults is how many entries' results are kept for who proposed them.
const keptResults = 4096

// told is what Apply and Ahead tell others.
type told struct {
	mu      *sync.Mutex
	results map[uint64][]error
	order   []uint64 // a ring of the indexes in results
	next    int      // in order
	none    []error  // nils: the results of entries that were taken whole are a part of it
	changed chan struct{}
}

func newTold() told {
	return told{mu: new(sync.Mutex), results: map[uint64][]error{}, none: make([]error, MaxBatchFacts), changed: make(chan struct{})}
}

// notify keeps results, and wakes who waits for a change.
func (t *told) notify(applied []applied) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range applied {
		if len(t.order) < keptResults {
			t.order = append(t.order, a.index)
		} else {
			delete(t.results, t.order[t.next])
			t.order[t.next] = a.index
			t.next = (t.next + 1) % keptResults
		}
		if len(a.results) <= len(t.none) && !slices.ContainsFunc(a.results, func(err error) bool { return err != nil }) {
			a.results = t.none[:len(a.results)]
		}
		t.results[a.index] = a.results
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// forget drops the results of a state that another has replaced: in another
// generation of the network the same indexes are those of other entries.
func (t *told) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.results)
	t.order, t.next = nil, 0
}

// Results returns what became of the facts of a batch or the commands of a
// decision, in their order; of bytes that are neither, one error. nil is success.
// It is kept for the last 4,096 entries, in memory: else false.
//
// A whole batch may be refused: fault.Denied when no member signed it,
// fault.Mismatch when a batch before it is missing, fault.Conflict when another
// one has its number or precedes it; a batch that is known changes nothing. So may
// a decision: fault.Denied, or fault.Conflict when a condition does not hold; one
// that was taken before changes nothing and has its results again. A single one of
// either is fault.Invalid, fault.NotFound or fault.Conflict. Every node computes
// the same kinds.
func (c *Catalog) Results(index uint64) (results []error, ok bool) {
	c.told.mu.Lock()
	defer c.told.mu.Unlock()
	results, ok = c.told.results[index]
	return slices.Clone(results), ok
}

// Changed returns a channel that closes after the next Apply or Ahead.
func (c *Catalog) Changed() <-chan struct{} {
	c.told.mu.Lock()
	defer c.told.mu.Unlock()
	return c.told.changed
}
