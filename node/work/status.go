package work

import (
	"sync"
	"time"
)

// State is where a task is in its life.
type State string

// The states, as an operator reads them.
const (
	Waiting  State = "waiting"  // not started: a task before it is not ready
	Running  State = "running"  // in Run
	Backoff  State = "backoff"  // failed; will be run again
	Stopping State = "stopping" // told to stop, still in Run
	Done     State = "done"     // ended by itself, or stopped
	Failed   State = "failed"   // ended with an error, for good
)

// Status is what an operator sees of a task.
type Status struct {
	Name     string
	State    State
	Done     int64 // of Total, in the task's own unit; both 0: it tells nothing
	Total    int64 // 0: unknown
	Restarts int64 // since the group began

	LastError   string // the latest failure's text; "" if there was none. Errors hold no patient data
	LastErrorAt time.Time

	Started  time.Time     // of the run at hand, or the latest
	LastRun  time.Time     // when the latest round of a periodic task began
	LastTook time.Duration // how long that round took
}

// Progress is a task's hand on its own status. A nil *Progress may be used; it
// tells nobody.
type Progress struct {
	mu     sync.Mutex
	status Status
	ready  chan struct{} // closed by Ready, or when the task has ended
	once   sync.Once
}

func newProgress(name string) *Progress {
	return &Progress{status: Status{Name: name, State: Waiting}, ready: make(chan struct{})}
}

// Ready lets the next task start, if this one's Gate holds it.
func (p *Progress) Ready() {
	if p != nil {
		p.once.Do(func() { close(p.ready) })
	}
}

// Set says how much is done of how much; total 0 is unknown.
func (p *Progress) Set(done, total int64) {
	p.update(func(s *Status) { s.Done, s.Total = done, total })
}

// Add adds to what is done.
func (p *Progress) Add(done int64) {
	p.update(func(s *Status) { s.Done += done })
}

// Note records a failure that the task itself deals with. err holds no patient
// data.
func (p *Progress) Note(err error) {
	if err != nil {
		p.update(func(s *Status) { s.LastError, s.LastErrorAt = err.Error(), time.Now() })
	}
}

func (p *Progress) ran(begin time.Time) {
	p.update(func(s *Status) { s.LastRun, s.LastTook = begin, time.Since(begin) })
}

func (p *Progress) state(state State) {
	p.update(func(s *Status) { s.State = state })
}

func (p *Progress) update(change func(*Status)) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
}

func (p *Progress) read() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}
