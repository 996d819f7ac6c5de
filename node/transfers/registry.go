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

// lingers is how long a transfer is one with the next of its kind: a series is
// read in many ranges, and who looks wants to see one thing.
const lingers = 5 * time.Second

// Transfer is what moves between this node and another.
type Transfer struct {
	Kind     Kind
	Incoming bool
	Node     string // the other one's id
	Calls    int    // under way just now
	Bytes    int64  // so far
	Began    time.Time
}

// way is what transfers are one by.
type way struct {
	kind     Kind
	node     string
	incoming bool
}

// flow is a transfer as it is kept.
type flow struct {
	bytes atomic.Int64
	began time.Time
	calls int
	ended time.Time // the last of the calls, when there is none
}

// Registry is the transfers that are under way. The zero value has none.
type Registry struct {
	in, out atomic.Int64 // bytes moved since the start

	mu    sync.Mutex // guards flows, but for their bytes
	flows map[way]*flow
}

// Call is one call of a transfer; whoever began it ends it.
type Call struct {
	registry *Registry
	flow     *flow
	incoming bool
	once     sync.Once
}

// Begin lists a call until it is ended, and its transfer until a moment later.
func (r *Registry) Begin(kind Kind, node string, incoming bool) *Call {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(now)
	key := way{kind, node, incoming}
	f := r.flows[key]
	if f == nil {
		if r.flows == nil {
			r.flows = map[way]*flow{}
		}
		f = &flow{began: now}
		r.flows[key] = f
	}
	f.calls++
	return &Call{registry: r, flow: f, incoming: incoming}
}

// forgetLocked drops transfers that ended a while ago: there are at most as many
// as nodes that were talked with since, by kind and direction.
func (r *Registry) forgetLocked(now time.Time) {
	maps.DeleteFunc(r.flows, func(_ way, f *flow) bool { return f.calls == 0 && now.Sub(f.ended) >= lingers })
}

// Add counts bytes that have moved.
func (c *Call) Add(n int) {
	c.flow.bytes.Add(int64(n))
	if c.incoming {
		c.registry.in.Add(int64(n))
	} else {
		c.registry.out.Add(int64(n))
	}
}

// End ends the call. Ending it again changes nothing.
func (c *Call) End() {
	c.once.Do(func() {
		c.registry.mu.Lock()
		defer c.registry.mu.Unlock()
		c.flow.calls--
		c.flow.ended = time.Now()
	})
}

// Running lists the transfers under way, the oldest first.
func (r *Registry) Running() []Transfer {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(time.Now())
	var all []Transfer
	for key, f := range r.flows {
		all = append(all, Transfer{Kind: key.kind, Incoming: key.incoming, Node: key.node, Calls: f.calls, Bytes: f.bytes.Load(), Began: f.began})
	}
	slices.SortFunc(all, func(a, b Transfer) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Kind, b.Kind))
	})
	return all
}

// Moved returns the bytes that came in and went out since the start.
func (r *Registry) Moved() (in, out int64) { return r.in.Load(), r.out.Load() }
