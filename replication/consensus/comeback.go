package consensus

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
)

// A member whose log was lost, or put back from an earlier copy, has forgotten what it acknowledged and whom it has
// elected. Were it to vote, a leader could be elected that lacks what was
// committed; were it to store for a leader of old, that one could commit what
// another has decided otherwise. So it says nothing until the network has taken
// its vote and it knows all that was committed before that. From then on it is as
// good as a new member, and may be given a vote like one:
//
//   - whoever leads by a membership in which it voted needs, beside it, half of the
//     other voters. One of these stored the change that took its vote, and refuses
//     who has not;
//   - whoever asks it for its vote is refused unless it has that change, too: it is
//     in what was copied. This holds for any number of members that lose their logs.

// lost reports whether this node took part and its log does not know of it, or of a
// part of it.
func (n *Node) lost() (bool, error) {
	if n.o.Newcomer {
		return false, nil
	}
	term, err := n.o.Log.GetUint64([]byte(currentTerm))
	if err != nil {
		return false, err
	}
	_, last := n.o.Log.Bounds()
	return term == 0 && last == 0 || n.o.Log.Older(), nil
}

// comeBack returns once this node may take part: at once if its log was not lost.
// Peers are answered by errBehind meanwhile.
func (n *Node) comeBack(ctx context.Context) error {
	lost, err := n.lost()
	if err != nil {
		return err
	}
	if !lost {
		if n.o.Log.Older() { // than nobody has counted on
			return n.o.Log.Renew()
		}
		return nil
	}
	n.enter(Returning, nil)
	first, last := n.o.Log.Bounds()
	n.log.Warn("raft log lost, or older than it was: this node says nothing until the network has taken its vote", "first", first, "last", last)
	want, err := n.released(ctx)
	if err != nil {
		return err
	}
	at, _, _ := n.applier.state()
	if behind(at, want) {
		if err := n.copy(ctx, want); err != nil {
			return err
		}
	} else if err := n.o.Machine.Sync(); err != nil {
		return fmt.Errorf("consensus: sync: %w", err)
	}
	at, _, _ = n.applier.state()
	term, err := n.o.Log.GetUint64([]byte(currentTerm))
	if err != nil {
		return err
	}
	// What an older log has is of no use, and may be another history's.
	if err := n.o.Log.DeleteRange(n.o.Log.Bounds()); err != nil {
		return err
	}
	// The term says of a lost log that all this is done, and Renew of an older one.
	if err := n.o.Log.Set([]byte(currentTerm), binary.BigEndian.AppendUint64(nil, max(want.Term, at.Term, term))); err != nil {
		return err
	}
	n.log.Info("this node is back, without a vote", "index", at.Index)
	return n.o.Log.Renew()
}

// released asks until the network has taken this node's vote.
func (n *Node) released(ctx context.Context) (replication.Position, error) {
	for pause := n.settings.Retry; ; pause = min(2*pause, maxRetry) {
		want, err := n.o.Peers.Release(ctx)
		at, _, _ := n.applier.state()
		switch {
		case err != nil:
		case want.Term == 0, GenerationOf(want.Term) < GenerationOf(at.Term):
			err = fault.New(fault.Protocol, "consensus: released in term %d, and the state machine is of generation %d", want.Term, GenerationOf(at.Term))
		default:
			return want, nil
		}
		n.log.Error("the network has not taken this node's vote yet", "error", err)
		if err := sleep(ctx, pause); err != nil {
			return replication.Position{}, err
		}
	}
}

// Release takes the vote of a member that has lost its log, if it has one, and
// returns a position at which it has none, of this term: all that was ever
// committed is at or below it. It is for leaders, and for members that say nothing
// before they stand there.
func (n *Node) Release(ctx context.Context, id string) (replication.Position, error) {
	r, err := n.running()
	if err != nil {
		return replication.Position{}, err
	}
	term := r.CurrentTerm()
	leads := func() bool { return r.State() == raft.Leader && r.CurrentTerm() == term }
	if !leads() {
		return replication.Position{}, fault.New(fault.Unavailable, "consensus: %w", raft.ErrNotLeader)
	}
	if id == n.o.ID {
		return replication.Position{}, fault.New(fault.Conflict, "consensus: a leader releases itself")
	}
	if n.votes(id) {
		n.log.Warn("a member has lost its log and loses its vote", "member", id)
		if err := n.Demote(ctx, id); err != nil {
			return replication.Position{}, err
		}
	}
	if n.votes(id) {
		return replication.Position{}, fault.New(fault.Unavailable, "consensus: %s was given a vote meanwhile", id)
	}
	// Without a vote by the log of this leader: once what is in it is committed,
	// without one for good, or until it is given one anew.
	if err := n.Barrier(ctx); err != nil {
		return replication.Position{}, err
	}
	at, _, halted := n.applier.state()
	switch {
	case halted != nil:
		return replication.Position{}, fault.New(fault.Unavailable, "consensus: %w", halted)
	case !leads():
		return replication.Position{}, fault.New(fault.Unavailable, "consensus: %w", raft.ErrNotLeader)
	}
	at.Term = term
	return at, nil
}

// votes reports whether a member has a vote in the latest membership.
func (n *Node) votes(id string) bool {
	for _, m := range n.Members() {
		if m.ID == id && m.Suffrage == replication.Voter {
			return true
		}
	}
	return false
}

// leapEntries is from how many entries on a newcomer copies the state machine
// instead of going through the log. A copy costs what the link and the disk need for
// it, the log the processor time of everything that was ever committed. They are
// more than what one message brings: whatever a newcomer may have stored while it
// took its log for empty is among what was committed, and so in the copy.
const leapEntries = 2 * maxAppendEntries

// leap lets a leader's message through unless this node is a newcomer that has
// nothing yet, and much was committed: then it asks for a copy.
func (n *Node) leap(generation, committed uint64) error {
	if !n.o.Newcomer || committed < leapEntries {
		return nil
	}
	if at, _, _ := n.applier.state(); at.Index > 0 {
		return nil
	}
	if _, last := n.o.Log.Bounds(); last > 0 {
		return nil
	}
	n.want(replication.Position{Index: committed, Term: generation << generationShift})
	return errBehind
}
