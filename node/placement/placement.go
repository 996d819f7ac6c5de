package placement

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"pelago/node/member"
	"pelago/node/work"
)

// Catalog is the network's memory. *catalog.Catalog is one.
type Catalog interface {
	member.Records
	member.Changing
}

// Options are what a placement is made of.
type Options struct {
	Self      string // this node's id
	Catalog   Catalog
	Members   Members
	Decisions member.Decisions
	// Leader is the node that leads, which goes first; nil: everybody does.
	Leader func() string
	// Alive are the other nodes that are believed to be alive; false: nobody knows.
	// nil: nobody ever does, and no node is declared lost but by an operator. Must not
	// block.
	Alive func() (nodes []string, known bool)
	// Pledge is how many bytes of shards this node will hold, now; 0: none, and a
	// negative number or an error: it is not known now.
	Pledge func() (int64, error)
	// PledgeSet is what an operator has it pledge; 0: nobody said.
	PledgeSet int64
	Log       *slog.Logger
}

// Placement follows where the network's shards belong, and does this node's part in
// deciding it.
type Placement struct {
	o   Options
	now atomic.Pointer[view]

	reading sync.Mutex // held while records are read and taken, so that the later reading stays

	mu sync.Mutex // guards what follows
	// told is what the log has a line of, by what it is about.
	told map[string]bool
	// known are the layouts that were read last.
	known []written
}

// view is what is known at a moment. It is never changed.
type view struct {
	*facts
	state   *State
	changed chan struct{} // closed when there is another view
	moved   chan struct{} // closed when there is another state
}

// maxTold bounds what is told of once: a hostile member can make up names.
const maxTold = 1024

// Open reads the records, so that State answers from the start: the catalogue's
// error if it cannot be read.
func Open(o Options) (*Placement, error) {
	p := &Placement{o: o, told: map[string]bool{}}
	f, err := p.read()
	if err != nil {
		return nil, err
	}
	p.now.Store(&view{facts: f, state: f.state(), changed: make(chan struct{}), moved: make(chan struct{})})
	return p, nil
}

// make has the network decide, and returns once the decision shows here.
func (p *Placement) make(ctx context.Context, make func(s *member.Step) error) error {
	if err := p.o.Decisions.Make(ctx, make); err != nil {
		return err
	}
	return p.refresh()
}

// State is how the network places shards, as of a few milliseconds ago. It is never
// nil and never blocks.
func (p *Placement) State() *State { return p.now.Load().state }

// Changed is closed when State answers otherwise than now. Who waits takes it before
// the state.
func (p *Placement) Changed() <-chan struct{} { return p.now.Load().moved }

// Tasks are what runs in the background, those that others rely on first.
func (p *Placement) Tasks() []work.Task {
	task := func(name string, run func(context.Context) error) work.Task {
		return work.Task{
			Name: name, Restart: &work.Restart{},
			Run: func(ctx context.Context, _ *work.Progress) error { return run(ctx) },
		}
	}
	return []work.Task{task("layout", p.Follow), task("layout_changes", p.Propose), task("pledge", p.Pledge), task("losses", p.Watch)}
}

// once logs an error the first time that it is about something.
func (p *Placement) once(about, text string, args ...any) {
	p.mu.Lock()
	first := !p.told[about] && len(p.told) < maxTold
	if first {
		p.told[about] = true
	}
	p.mu.Unlock()
	if first {
		p.o.Log.Error(text, args...)
	}
}

// Follow keeps the state as the catalogue is, until the context ends or the catalogue
// cannot be read.
func (p *Placement) Follow(ctx context.Context) error {
	return member.Follow(ctx, p.o.Catalog, p.o.Members, p.refresh)
}

// refresh reads the records and takes what they say.
func (p *Placement) refresh() error {
	p.reading.Lock()
	defer p.reading.Unlock()
	f, err := p.read()
	if err == nil {
		p.takeLocked(f)
	}
	return err
}

// takeLocked makes what was read the present view, if it differs.
func (p *Placement) takeLocked(f *facts) {
	old := p.now.Load()
	if f.equal(old.facts) {
		return
	}
	v := &view{facts: f, state: f.state(), changed: make(chan struct{}), moved: make(chan struct{})}
	same := v.state.equal(old.state)
	if same {
		v.state, v.moved = old.state, old.moved
	}
	p.now.Store(v)
	close(old.changed)
	if same {
		return
	}
	p.tell(v.state, old.state)
	close(old.moved)
}

// tell logs where shards belong from now on, and how new stripes are made.
func (p *Placement) tell(s, old *State) {
	if s.View.New != nil && s.View != old.View {
		args := []any{"layout", s.View.New.Version, "nodes", len(s.View.New.Nodes)}
		if s.View.Old != nil {
			p.o.Log.Info("the network changes its layout: shards move to where they belong now", append(args, "from", s.View.Old.Version)...)
		} else {
			p.o.Log.Info("the network's layout", args...)
		}
	}
	if s.Code != old.Code || s.Survives != old.Survives {
		p.o.Log.Info("the network's code", "code", s.Code.String(), "survives_sites", s.Survives)
	}
}

func jitter(d time.Duration) time.Duration { return d - d/4 + rand.N(d/2) }
