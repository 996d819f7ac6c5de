package catalogtest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// Registry is the registry of a network whose nodes all agree at once, in memory:
// what a catalogue has of it, and what decides. It may be used by several goroutines.
type Registry struct {
	mu        sync.Mutex
	records   map[string]map[string][]byte
	changes   uint64
	changed   chan struct{}
	decisions map[string]int // by kind of record written
	before    func()
	down      bool
	lost      bool
}

// NewRegistry returns an empty one.
func NewRegistry() *Registry {
	return &Registry{records: map[string]map[string][]byte{}, changed: make(chan struct{}), decisions: map[string]int{}}
}

// Registry returns the records of a kind by name.
func (r *Registry) Registry(kind string) (map[string][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]byte{}
	for name, value := range r.records[kind] {
		all[name] = bytes.Clone(value)
	}
	return all, nil
}

// RegistryRecord returns a record; nil: there is none.
func (r *Registry) RegistryRecord(kind, name string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.records[kind][name]), nil
}

// RegistryChanged counts the changes.
func (r *Registry) RegistryChanged() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes
}

// Changed is closed at the next change.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Sync has nothing to do: memory is as durable as it will be.
func (r *Registry) Sync() error { return nil }

// Current returns unavailable while the network is down.
func (r *Registry) Current(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return fault.New(fault.Unavailable, "no majority")
	}
	return nil
}

// Decide writes records if the conditions hold, as [catalog.Catalog] applies a
// decision: conflict if they do not, invalid if there are more than it takes,
// unavailable while the network is down, or says nothing of it.
func (r *Registry) Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	r.mu.Lock()
	before := r.before
	r.before = nil
	r.mu.Unlock()
	if before != nil {
		before()
	}
	if err := r.Current(ctx); err != nil {
		return nil, err
	}
	if len(conditions) > catalog.MaxConditions || len(commands) > catalog.MaxCommands {
		return nil, fault.New(fault.Invalid, "%d commands under %d conditions", len(commands), len(conditions))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conditions {
		var hash [32]byte
		if value, ok := r.records[c.Kind][c.Name]; ok {
			hash = blake3.Sum256(value)
		}
		if hash != c.ValueHash {
			return nil, fault.New(fault.Conflict, "%s %s is not as it was", c.Kind, c.Name)
		}
	}
	for _, command := range commands {
		fact := command.(*catalog.RegistryFact)
		r.putLocked(fact.Kind, fact.Name, fact.Value)
		r.decisions[fact.Kind]++
	}
	r.notifyLocked()
	if r.lost {
		return nil, fault.New(fault.Unavailable, "nobody says what became of it")
	}
	return make([]error, len(commands)), nil
}

// Before has a function called once, before the next decision: what comes between.
func (r *Registry) Before(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = f
}

// Down makes the network unable to decide, or able again.
func (r *Registry) Down(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// Lose has the network decide and not say so, or say so again.
func (r *Registry) Lose(lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = lost
}

// Put writes a record as any member may; an empty value drops it.
func (r *Registry) Put(kind, name string, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putLocked(kind, name, value)
	r.notifyLocked()
}

// Names lists the records of a kind.
func (r *Registry) Names(kind string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.records[kind]))
}

// Written counts the commands that wrote or dropped records of a kind.
func (r *Registry) Written(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.decisions[kind]
}

// Clone returns a registry with the same records, of a network of its own.
func (r *Registry) Clone() *Registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := NewRegistry()
	for kind, records := range r.records {
		c.records[kind] = maps.Clone(records) // values are replaced, never changed
	}
	return c
}

func (r *Registry) putLocked(kind, name string, value []byte) {
	if r.records[kind] == nil {
		r.records[kind] = map[string][]byte{}
	}
	if len(value) == 0 {
		delete(r.records[kind], name)
	} else {
		r.records[kind][name] = bytes.Clone(value)
	}
}

func (r *Registry) notifyLocked() {
	r.changes++
	close(r.changed)
	r.changed = make(chan struct{})
}
