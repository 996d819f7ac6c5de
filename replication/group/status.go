package group

import (
	"context"
	"time"

	"pelago/replication"
	"pelago/replication/consensus"
)

// Status is what operators need to know of a node's part in the network.
type Status struct {
	Phase      consensus.Phase
	Leader     string // id; empty: none known
	Term       uint64
	Generation uint64 // of the network: one more since each recovery
	Applied    uint64 // index
	Commit     uint64 // the highest that this node has heard of
	First      uint64 // of the log
	Last       uint64
	// Staleness is how stale the catalogue is at most, if Known.
	Staleness time.Duration
	Known     bool
	Fenced    error // why nothing is applied or proposed any more; nil: it is
	Silent    bool  // the log hangs: others elect
	Members   []MemberStatus
}

// MemberStatus is a member as a node sees it.
type MemberStatus struct {
	ID, Address string
	Voter       bool
	// Known is whether the leader has heard of the member in this term: only the
	// leader knows of others.
	Known bool
	Heard time.Time // when what it confirmed last was sent
	Lag   uint64    // entries that its log lacked then
}

// Status returns the node's status.
func (g *Group) Status() Status {
	s := g.node.Stats()
	out := Status{
		Phase: s.Phase, Leader: s.Leader, Term: s.Term, Generation: consensus.GenerationOf(s.Term), Applied: s.Applied,
		Commit: max(s.Commit, s.Applied, g.told.Load()), First: s.First, Last: s.Last, Fenced: s.Halted, Silent: s.Silent,
	}
	out.Staleness, out.Known = g.Staleness()
	heard := g.node.Heard()
	for _, m := range g.node.Members() {
		of, ok := heard[m.ID]
		if m.ID == g.o.ID && s.Phase == consensus.Leading {
			of, ok = consensus.Heard{Sent: time.Now(), Last: s.Last}, true
		}
		one := MemberStatus{ID: m.ID, Address: m.Address, Voter: m.Suffrage == replication.Voter, Known: ok}
		if ok {
			one.Heard, one.Lag = of.Sent, lag(s.Last, of.Last)
		}
		out.Members = append(out.Members, one)
	}
	return out
}

// Current returns once everything is applied here that was committed anywhere
// when it was called: for decisions that rest on what the catalogue says.
// fault.Unavailable without a majority. ctx should have a deadline.
func (g *Group) Current(ctx context.Context) error {
	index, err := g.CommitIndex(ctx)
	if err != nil {
		return err
	}
	return g.AwaitIndex(ctx, index)
}
