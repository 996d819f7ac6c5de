package consensus

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
)

// Transport is what a member talks through: raft.NetworkTransport, or one in memory.
type Transport interface {
	raft.Transport
	raft.WithPreVote
}

// transport stands between the library and the network. It has no Close:
// the network outlives a restart of Raft.
type transport struct {
	Transport
	evidence *evidence
	now      func() time.Time
	commit   time.Duration // [Settings.Commit]
	in       chan raft.RPC // what the library consumes

	mu     sync.Mutex
	silent bool
	absent chan struct{} // closed while the library does not run
}

func newTransport(t Transport, commit time.Duration) *transport {
	absent := make(chan struct{})
	close(absent)
	return &transport{Transport: t, evidence: newEvidence(), now: time.Now, commit: commit, in: make(chan raft.RPC), absent: absent}
}

// Consumer returns what was let through by receive.
func (t *transport) Consumer() <-chan raft.RPC { return t.in }

// serve says that the library runs, until it is told that it does no more.
func (t *transport) serve() (ended func()) {
	absent := make(chan struct{})
	t.mu.Lock()
	t.absent = absent
	t.mu.Unlock()
	return func() { close(absent) }
}

// receive hands the library what peers send if admit lets it through, until ctx
// ends. What comes while the library does not run is answered here.
func (t *transport) receive(ctx context.Context, admit func(raft.RPC) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case rpc := <-t.Transport.Consumer():
			if err := admit(rpc); err != nil {
				rpc.Respond(nil, err)
			} else {
				t.deliver(ctx, rpc)
			}
		}
	}
}

func (t *transport) deliver(ctx context.Context, rpc raft.RPC) {
	t.mu.Lock()
	absent := t.absent
	t.mu.Unlock()
	select {
	case t.in <- rpc:
	case <-absent:
		rpc.Respond(nil, errBehind)
	case <-ctx.Done():
		rpc.Respond(nil, errBehind)
	}
}

var errSilent = fault.New(fault.Unavailable, "consensus: this member's log hangs")

// SetHeartbeatHandler does nothing: heartbeats take their turn in the main
// loop, where they find the state that they change (the library's issue 695),
// and where a disk that hangs stops them.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// setSilent makes the member fall silent, or speak again.
func (t *transport) setSilent(silent bool) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = t.silent != silent
	t.silent = silent
	return changed
}

func (t *transport) speak() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.silent {
		return errSilent
	}
	return nil
}

// AppendEntries sends a heartbeat or entries, and notes who confirmed the term.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	if err := t.speak(); err != nil {
		return err
	}
	sent := t.now()
	if err := t.Transport.AppendEntries(id, to, q, a); err != nil {
		return err
	}
	if a.Success && a.Term == q.Term {
		t.evidence.note(string(id), q.Term, Heard{Sent: sent, Last: a.LastLog})
	}
	t.evidence.answered(string(id), q, a, sent, t.now())
	return nil
}

// AppendEntriesPipeline is as the network's, and silent when the member is.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.Transport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	out := &pipeline{AppendPipeline: p, t: t, id: string(id), out: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go out.pass()
	return out, nil
}

// pipeline is one way to a follower, which brings everything in order or ends. It
// sends from one goroutine.
type pipeline struct {
	raft.AppendPipeline
	t      *transport
	id     string
	out    chan raft.AppendFuture
	closed chan struct{}
	once   sync.Once
	asked  time.Time // when the last request came
	sent   time.Time // when the last one that was sent did; zero: none
	told   uint64    // commit index that it told
}

// AppendEntries sends entries and what is committed. The library says the latter
// whenever [Settings.Commit] has passed without a request, as a rule for the tenth
// time: such a request is not sent. Nobody waits for an answer to it, and leadership
// does not rest on it but on heartbeats, which go another way. Requests that come
// faster are all sent: who hands leadership over makes them one after the other,
// and is held up by those on their way only.
func (p *pipeline) AppendEntries(q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.t.speak(); err != nil {
		return nil, err
	}
	now := p.t.now()
	timed := now.Sub(p.asked) >= p.t.commit
	p.asked = now
	if timed && len(q.Entries) == 0 && !p.sent.IsZero() && q.LeaderCommitIndex <= p.told && now.Sub(p.sent) < repeatEvery {
		return &unsent{now, q, a}, nil
	}
	p.sent, p.told = now, q.LeaderCommitIndex
	return p.AppendPipeline.AppendEntries(q, a)
}

// unsent is the future of a request that told nothing new. The pipeline's consumer
// never sees it.
type unsent struct {
	start    time.Time
	request  *raft.AppendEntriesRequest
	response *raft.AppendEntriesResponse
}

func (u *unsent) Error() error                          { return nil }
func (u *unsent) Start() time.Time                      { return u.start }
func (u *unsent) Request() *raft.AppendEntriesRequest   { return u.request }
func (u *unsent) Response() *raft.AppendEntriesResponse { return u.response }

// Consumer returns the answers, in order.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.out }

// pass notes what was confirmed by answers, until the pipeline is closed.
func (p *pipeline) pass() {
	for {
		select {
		case <-p.closed:
			return
		case f := <-p.AppendPipeline.Consumer():
			if f.Error() == nil {
				p.t.evidence.answered(p.id, f.Request(), f.Response(), f.Start(), p.t.now())
			}
			select {
			case p.out <- f:
			case <-p.closed:
				return
			}
		}
	}
}

// Close ends the pipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

// evidence is what a leader knows of its followers: when what they confirmed
// was sent. A voter that answers in term T what was sent at s has voted in no
// later term before s.
type evidence struct {
	mu      sync.Mutex
	term    uint64
	heard   map[string]Heard
	holds   map[string]holding
	changed chan struct{}
}

// holding is up to where a follower's log is that of its leader, in a term, and when
// the leader was told. From then on it never ends before: nobody else has entries
// taken off it. One that does was put back from an earlier copy, or lost entries.
type holding struct {
	last uint64
	told time.Time
}

// Heard is what a leader has heard of a follower.
type Heard struct {
	Sent time.Time // when the newest heartbeat was sent that it has confirmed
	Last uint64    // of its log then; what it has may not all be committed
	// Forgot is how often its log ended before what it had confirmed in this term.
	Forgot uint64
}

func newEvidence() *evidence {
	return &evidence{heard: map[string]Heard{}, holds: map[string]holding{}, changed: make(chan struct{})}
}

func (e *evidence) note(id string, term uint64, h Heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if term < e.term {
		return
	}
	e.beginLocked(term)
	h.Forgot = e.heard[id].Forgot
	if h.Sent.After(e.heard[id].Sent) {
		e.heard[id] = h
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// beginLocked forgets what was heard in an earlier term.
func (e *evidence) beginLocked(term uint64) {
	if term > e.term {
		e.term = term
		clear(e.heard)
		clear(e.holds)
	}
}

// answered notes what an answer to a message, sent and answered at these times, says
// of a follower's log: up to where it is this leader's, or that it ends before.
func (e *evidence) answered(id string, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse, sent, told time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if a.Term != q.Term || q.Term < e.term {
		return
	}
	e.beginLocked(q.Term)
	hold := e.holds[id]
	if a.LastLog < hold.last && sent.After(hold.told) {
		h := e.heard[id]
		h.Forgot++
		e.heard[id] = h
		hold = holding{}
	}
	last := q.PrevLogEntry
	if n := len(q.Entries); n > 0 {
		last = q.Entries[n-1].Index
	}
	if a.Success && last > hold.last {
		hold = holding{last, told}
	}
	e.holds[id] = hold
}

// confirmed reports whether a majority of the voters, self among them if it
// votes, confirmed the term by an answer to what was sent at a time or later.
func (e *evidence) confirmed(self string, all []replication.Member, term uint64, since time.Time) (bool, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	voters, yes := 0, 0
	for _, m := range all {
		if m.Suffrage != replication.Voter {
			continue
		}
		voters++
		if h, ok := e.heard[m.ID]; m.ID == self || ok && e.term == term && !h.Sent.Before(since) {
			yes++
		}
	}
	return yes > voters/2, e.changed
}

// silent returns those of whom nothing was heard in a term that answers what was sent
// at a time or later, and the channel that is closed when more is heard.
func (e *evidence) silent(ids []string, term uint64, since time.Time) ([]string, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, id := range ids {
		if h, ok := e.heard[id]; !ok || e.term != term || h.Sent.Before(since) {
			all = append(all, id)
		}
	}
	return all, e.changed
}

// all returns what was heard in a term.
func (e *evidence) all(term uint64) map[string]Heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term != term {
		return nil
	}
	return maps.Clone(e.heard)
}

// await returns once the term is confirmed as of a time, or ctx ends.
func (e *evidence) await(ctx context.Context, self string, all func() []replication.Member, term uint64, since time.Time) error {
	for {
		ok, changed := e.confirmed(self, all(), term, since)
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "consensus: leadership is not confirmed: %w", ctx.Err())
		case <-changed:
		}
	}
}
