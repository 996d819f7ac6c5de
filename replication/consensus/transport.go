package consensus

import (
	"context"
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

	mu     sync.Mutex
	silent bool
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
		t.evidence.note(string(id), q.Term, sent)
	}
	return nil
}

// AppendEntriesPipeline is as the network's, and silent when the member is.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.Transport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	return &pipeline{p, t}, nil
}

type pipeline struct {
	raft.AppendPipeline
	t *transport
}

func (p *pipeline) AppendEntries(q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.t.speak(); err != nil {
		return nil, err
	}
	return p.AppendPipeline.AppendEntries(q, a)
}

// evidence is what a leader knows of its followers: when what they confirmed
// was sent. A voter that answers in term T what was sent at s has voted in no
// later term before s.
type evidence struct {
	mu      sync.Mutex
	term    uint64
	sent    map[string]time.Time
	changed chan struct{}
}

func newEvidence() *evidence {
	return &evidence{sent: map[string]time.Time{}, changed: make(chan struct{})}
}

func (e *evidence) note(id string, term uint64, sent time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if term < e.term {
		return
	}
	if term > e.term {
		e.term = term
		clear(e.sent)
	}
	if sent.After(e.sent[id]) {
		e.sent[id] = sent
	}
	close(e.changed)
	e.changed = make(chan struct{})
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
		if sent, ok := e.sent[m.ID]; m.ID == self || ok && e.term == term && !sent.Before(since) {
			yes++
		}
	}
	return yes > voters/2, e.changed
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
