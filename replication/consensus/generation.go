package consensus

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
)

// generationShift parts a term: the upper half is the network's generation, the
// lower one counts elections within it. So every entry, every position and every
// message that names a term names its generation, and nothing else keeps it.
const generationShift = 32

// currentTerm is the library's name for the term in the stable store.
const currentTerm = "CurrentTerm"

// GenerationOf returns the generation of the network that a term belongs to: 0
// since the founding, one more since each [Node.Recover].
func GenerationOf(term uint64) uint64 { return term >> generationShift }

// ElectionOf returns which election within its generation a term is.
func ElectionOf(term uint64) uint64 { return term & (1<<generationShift - 1) }

// Generation returns the generation that this node takes part in, false when it
// has not heard of any yet.
func (n *Node) Generation() (uint64, bool) {
	term, err := n.term()
	return GenerationOf(term), err == nil && term > 0
}

// term is the current one, as a restart would read it.
func (n *Node) term() (uint64, error) {
	if r, err := n.running(); err == nil {
		return r.CurrentTerm(), nil
	}
	return n.o.Log.GetUint64([]byte(currentTerm))
}

// behind reports whether a state machine at a position has to be copied to stand
// at want.
func behind(at, want replication.Position) bool {
	a, w := GenerationOf(at.Term), GenerationOf(want.Term)
	return a < w || a == w && at.Index < want.Index
}

// admit lets through what peers of this generation send. Messages of others, in
// either direction, would move the library's term. A leader of a later one says
// that this node's network is no more: it copies what has taken its place.
func (n *Node) admit(rpc raft.RPC) error {
	var theirs, committed uint64
	leads := false
	switch q := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		theirs, committed, leads = q.Term, q.LeaderCommitIndex, true
	case *raft.InstallSnapshotRequest:
		theirs, leads = q.Term, true
	case *raft.RequestVoteRequest:
		theirs = q.Term
	case *raft.RequestPreVoteRequest:
		theirs = q.Term
	case *raft.TimeoutNowRequest:
		return nil // names no term, and does no more than time does
	default:
		return fault.New(fault.Protocol, "consensus: a message of type %T", rpc.Command)
	}
	term, err := n.term()
	if err != nil {
		return err
	}
	ours := GenerationOf(term)
	if term == 0 || ours == GenerationOf(theirs) {
		return n.leap(GenerationOf(theirs), committed)
	}
	if leads && ours < GenerationOf(theirs) {
		n.want(replication.Position{Term: GenerationOf(theirs) << generationShift})
	}
	return fault.New(fault.Unavailable, "consensus: generation %d, and not %d", ours, GenerationOf(theirs))
}

// succeed takes the log into the generation of the state machine, if that is a
// later one: what the log has belongs to a network that is no more. The position
// is what a crash decides by; this is done again then.
func (n *Node) succeed(at replication.Position) error {
	term, err := n.o.Log.GetUint64([]byte(currentTerm))
	if err != nil || GenerationOf(at.Term) <= GenerationOf(term) {
		return err
	}
	if first, last := n.o.Log.Bounds(); last > 0 {
		if err := n.o.Log.DeleteRange(first, last); err != nil {
			return err
		}
	}
	return n.o.Log.Set([]byte(currentTerm), binary.BigEndian.AppendUint64(nil, at.Term))
}

// Survey is what a survivor has of a network, before it takes part again. Of
// several the one is to recover whose generation is the highest, of these the one
// whose LastTerm is, of these the one whose Last is: it lacks nothing that was
// committed if any of them lacks nothing.
type Survey struct {
	Generation uint64
	LastTerm   uint64 // of its last entry; the election within the generation in its lower 32 bits
	Last       uint64 // index of its last entry, applied or not
	Applied    uint64 // index up to which its state machine has everything
	Members    []replication.Member
}

// Survey returns what this node has.
func (n *Node) Survey() (Survey, error) {
	at, _, _ := n.applier.state()
	term, err := n.term()
	if err != nil {
		return Survey{}, err
	}
	s := Survey{Generation: max(GenerationOf(at.Term), GenerationOf(term)), LastTerm: at.Term, Last: at.Index, Applied: at.Index, Members: at.Members}
	// A log of an older generation is given up, and so is one that ends before.
	_, last := n.o.Log.Bounds()
	if last <= at.Index || GenerationOf(term) < s.Generation {
		return s, nil
	}
	var l raft.Log
	if err := n.o.Log.GetLog(last, &l); err != nil {
		return Survey{}, fmt.Errorf("consensus: the last entry of the log: %w", err)
	}
	if l.Term >= at.Term {
		s.LastTerm, s.Last = l.Term, last
	}
	return s, nil
}

// Recover makes this node the only voter of a new generation of the network, in
// which members of older ones have no say: they copy its state machine when they
// hear of it. It is for a network that has lost the majority of its voters for
// good. It is called before Run, at the survivor that has applied most. What the
// log has is applied first, committed or not: it may have been. What has no log and
// an empty state machine recovers an empty one.
func (n *Node) Recover() error {
	if _, err := n.running(); err == nil {
		return fault.New(fault.Conflict, "consensus: recovery of a member that runs")
	}
	at, _, _ := n.applier.state()
	term, err := n.o.Log.GetUint64([]byte(currentTerm))
	if err != nil {
		return err
	}
	if GenerationOf(at.Term) == GenerationOf(term) {
		if err := n.replay(at); err != nil {
			return err
		}
	}
	at, _, _ = n.applier.state()
	_, last := n.o.Log.Bounds()
	index := max(at.Index, last) + 1
	next := replication.Position{
		Index: index, Term: (max(GenerationOf(at.Term), GenerationOf(term)) + 1) << generationShift,
		MembersIndex: index, Members: []replication.Member{{ID: n.o.ID, Address: n.o.Address}},
	}
	if err := n.applier.reach(next); err != nil {
		return err
	}
	if err := n.o.Machine.Sync(); err != nil {
		return fmt.Errorf("consensus: sync: %w", err)
	}
	n.log.Warn("this node is the only voter of a new generation", "generation", GenerationOf(next.Term), "index", next.Index)
	if err := n.succeed(next); err != nil {
		return err
	}
	return n.o.Log.Renew() // nothing of what it has forgotten is of this generation
}

// replay applies what the log has beyond the state machine, as far as it can be
// read and leads on from there.
func (n *Node) replay(at replication.Position) error {
	first, last := n.o.Log.Bounds()
	if last == 0 || at.Index+1 < first {
		return nil
	}
	if at.Index >= first && at.Index <= last {
		var l raft.Log
		if err := n.o.Log.GetLog(at.Index, &l); err == nil && l.Term != at.Term {
			return nil // of a leader that lost
		} else if err != nil && !fault.Is(err, fault.Corrupt) {
			return err
		}
	}
	for i := at.Index + 1; i <= last; i++ {
		l := new(raft.Log)
		if err := n.o.Log.GetLog(i, l); fault.Is(err, fault.Corrupt) {
			n.log.Error("raft log: entries that cannot be read are given up", "first", i, "last", last, "error", err)
			return nil
		} else if err != nil {
			return err
		}
		if l.Term < at.Term {
			return nil // of a leader that lost
		}
		if l.Type != raft.LogCommand && l.Type != raft.LogConfiguration {
			continue // of Raft's own
		}
		if err, _ := n.applier.Apply(l).(error); err != nil {
			return err
		}
	}
	return nil
}
