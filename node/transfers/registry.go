package transfers

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind says what is moved.
type Kind string

// The kinds. None is for calls that are not listed: questions and their answers.
const (
	None      Kind = ""
	Images    Kind = "images"    // of packs or of staging
	Catalogue Kind = "catalogue" // a checkpoint for a node that is new or far behind
)

// maxListed bounds what [Registry.Running] returns: more is of no use to
// anybody who reads it.
const maxListed = 256

// Transfer is one that is under way.
type Transfer struct {
	Kind     Kind
	Incoming bool
	Node     string // the other one's id
	Bytes    int64  // so far
	Total    int64  // -1: not known before the end
	Began    time.Time
}

// Registry is the transfers that are under way. The zero value has none.
type Registry struct {
	in, out atomic.Int64 // bytes moved since the start

	mu      sync.Mutex // guards running
	running map[*Running]struct{}
}

// Running is a transfer under way; whoever began it ends it.
type Running struct {
	registry *Registry
	transfer Transfer // but for Bytes and Total
	bytes    atomic.Int64
	total    atomic.Int64
}

// Begin lists a transfer until it is ended. total is -1 when it is not known.
func (r *Registry) Begin(kind Kind, node string, incoming bool, total int64) *Running {
	t := &Running{registry: r, transfer: Transfer{Kind: kind, Incoming: incoming, Node: node, Began: time.Now()}}
	t.Expect(total)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil {
		r.running = map[*Running]struct{}{}
	}
	r.running[t] = struct{}{}
	return t
}

// Add counts bytes that have moved.
func (t *Running) Add(n int) {
	t.bytes.Add(int64(n))
	if t.transfer.Incoming {
		t.registry.in.Add(int64(n))
	} else {
		t.registry.out.Add(int64(n))
	}
}

// Expect says how many bytes there will be, where that was not known at first;
// -1: not known.
func (t *Running) Expect(total int64) { t.total.Store(total) }

// End takes the transfer off the list. Ending it again changes nothing.
func (t *Running) End() {
	t.registry.mu.Lock()
	defer t.registry.mu.Unlock()
	delete(t.registry.running, t)
}

// Running lists the transfers under way, the oldest first, and of very many the
// oldest only.
func (r *Registry) Running() []Transfer {
	r.mu.Lock()
	running := slices.Collect(maps.Keys(r.running))
	r.mu.Unlock()
	all := make([]Transfer, len(running))
	for i, t := range running {
		all[i] = t.transfer
		all[i].Bytes, all[i].Total = t.bytes.Load(), t.total.Load()
	}
	slices.SortFunc(all, func(a, b Transfer) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Kind, b.Kind))
	})
	return all[:min(len(all), maxListed)]
}

// Moved returns the bytes that came in and went out since the start.
func (r *Registry) Moved() (in, out int64) { return r.in.Load(), r.out.Load() }
