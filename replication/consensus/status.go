package consensus

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// Phase is what a member is doing.
type Phase uint8

// The phases.
const (
	Stopped   Phase = iota // Run does not run
	Returning              // the log was lost, and the network has yet to take the vote
	Repairing              // entries that rotted are being fetched
	Copying                // the state machine is being copied
	Following
	Candidate
	Leading
)

// String returns the phase's name in lower case.
func (p Phase) String() string {
	return [...]string{"stopped", "returning", "repairing", "copying", "following", "candidate", "leading"}[p]
}

// Status is what operators and those who forward proposals need to know.
type Status struct {
	Phase           Phase
	Leader          string // id; empty: none known
	LeaderAddress   string
	Term            uint64
	Commit, Applied uint64 // Commit as this node knows it
	First, Last     uint64 // of the log
	Silent          bool   // the log hangs
	Halted          error  // why nothing is applied
}

// Stats returns the member's status.
func (n *Node) Stats() Status {
	n.mu.Lock()
	r, phase := n.raft, n.phase
	n.mu.Unlock()
	at, _, halted := n.applier.state()
	s := Status{Phase: phase, Applied: at.Index, Halted: halted, Silent: n.trans.speak() != nil}
	s.First, s.Last = n.o.Log.Bounds()
	if r == nil {
		return s
	}
	switch r.State() {
	case raft.Leader:
		s.Phase = Leading
	case raft.Candidate:
		s.Phase = Candidate
	default:
		s.Phase = Following
	}
	s.Leader, s.LeaderAddress = n.Leader()
	s.Term, s.Commit, s.Applied = r.CurrentTerm(), r.CommitIndex(), n.Applied()
	return s
}

// Subscribe returns a channel that holds the newest status after the leader or
// the phase has changed, and at once. Who is slow misses what was in between.
// cancel must be called.
func (n *Node) Subscribe() (changes <-chan Status, cancel func()) {
	c := make(chan Status, 1)
	c <- n.Stats()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subscribers[c] = struct{}{}
	return c, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.subscribers, c)
	}
}

// publish tells subscribers. Only Run calls it.
func (n *Node) publish() {
	s := n.Stats()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.subscribers {
		select {
		case <-c:
		default:
		}
		select {
		case c <- s:
		default:
		}
	}
}

// Heard returns what this leader has heard of the others in its term, by id; nil
// when it does not lead.
func (n *Node) Heard() map[string]Heard {
	r, err := n.running()
	if err != nil || r.State() != raft.Leader {
		return nil
	}
	return n.trans.evidence.all(r.CurrentTerm())
}

// Silent waits until each of the members has answered something that is sent from now
// on, and returns those that have not when ctx ends: all of them when this node does not
// lead. Heartbeats go to everybody, so that there is nothing to send.
func (n *Node) Silent(ctx context.Context, ids []string) []string {
	r, err := n.running()
	if err != nil || r.State() != raft.Leader {
		return ids
	}
	term, since := r.CurrentTerm(), time.Now()
	for {
		silent, changed := n.trans.evidence.silent(ids, term, since)
		if len(silent) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return silent
		case <-changed:
		}
	}
}
