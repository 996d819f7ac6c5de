package group

import (
	"context"
	"sync"

	"pelago/replication"
)

// maxSamples is how many state hashes are remembered, with the index of each, to
// be compared with those of others.
const maxSamples = 4096

// machine is the catalogue as Raft applies to it: it remembers the state's hash
// after each step, and stands still while a checkpoint is taken.
type machine struct {
	Catalogue

	// applying is held over Apply, a checkpoint and a replacement: each is of one state.
	// The last two take minutes.
	applying sync.Mutex

	mu      sync.Mutex // held over no I/O
	samples map[uint64][32]byte
	order   []uint64 // a ring of the indexes in samples
	next    int      // in order
}

func newMachine(c Catalogue) *machine {
	m := &machine{Catalogue: c, samples: map[uint64][32]byte{}}
	m.note()
	return m
}

// Apply applies entries.
func (m *machine) Apply(entries []replication.Entry, at replication.Position) error {
	m.applying.Lock()
	defer m.applying.Unlock()
	if err := m.Catalogue.Apply(entries, at); err != nil {
		return err
	}
	m.note()
	return nil
}

// note remembers the state's hash as it is now.
func (m *machine) note() {
	hash, index := m.Catalogue.StateHash()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.samples[index]; !known {
		if len(m.order) < maxSamples {
			m.order = append(m.order, index)
		} else {
			delete(m.samples, m.order[m.next])
			m.order[m.next] = index
			m.next = (m.next + 1) % maxSamples
		}
	}
	m.samples[index] = hash
}

// sample returns what the state's hash was at an index, if that is remembered.
func (m *machine) sample(index uint64) ([32]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	hash, ok := m.samples[index]
	return hash, ok
}

// newest returns the last samples, newest first, at most n.
func (m *machine) newest(n int) []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []uint64
	for i := 1; i <= min(n, len(m.order)); i++ {
		all = append(all, m.order[(m.next-i+len(m.order))%len(m.order)])
	}
	return all
}

// still calls do while nothing is applied, with the hash of the state and its index.
func (m *machine) still(do func(hash [32]byte, index uint64) error) error {
	m.applying.Lock()
	defer m.applying.Unlock()
	return do(m.Catalogue.StateHash())
}

// replace puts another state in the place of this one.
func (m *machine) replace(ctx context.Context, dir string) error {
	m.applying.Lock()
	defer m.applying.Unlock()
	if err := m.Catalogue.Replace(ctx, dir); err != nil {
		return err
	}
	m.mu.Lock()
	clear(m.samples)
	m.order, m.next = nil, 0
	m.mu.Unlock()
	m.note()
	return nil
}
