package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"pelago/replication"
)

// Openings for tests of the pure parts.
const (
	OpenLog   = openLog
	ClearLog  = clearLog
	CopyState = copyState
)

// OpeningOf is openingOf.
var OpeningOf = openingOf

// Wrap is the transport that the library gets.
func Wrap(t Transport) raft.Transport {
	return newTransport(t, 100*time.Millisecond)
}

// VerifyLeader is the library's own answer.
func (n *Node) VerifyLeader() error {
	r, err := n.running()
	if err != nil {
		return err
	}
	return r.VerifyLeader().Error()
}

// Evidence counts confirmations.
type Evidence = evidence

// NewEvidence returns one that knows nothing.
func NewEvidence() *Evidence { return newEvidence() }

// Answer is what a follower answered to entries up to an index, or to what stands there.
type Answer struct {
	Term, Index uint64
	Success     bool
	LastLog     uint64 // of the follower, before
	Sent, Told  time.Time
}

// Answered takes an answer and returns how often the follower has forgotten something.
func (e *evidence) Answered(id string, x Answer) (forgot uint64) {
	q := &raft.AppendEntriesRequest{Term: x.Term, PrevLogEntry: x.Index}
	e.answered(id, q, &raft.AppendEntriesResponse{Term: x.Term, Success: x.Success, LastLog: x.LastLog}, x.Sent, x.Told)
	return e.all(x.Term)[id].Forgot
}

// Note takes a confirmation.
func (e *evidence) Note(id string, term uint64, sent time.Time) { e.note(id, term, Heard{Sent: sent}) }

// Confirmed is confirmed.
func (e *evidence) Confirmed(self string, all []replication.Member, term uint64, since time.Time) bool {
	ok, _ := e.confirmed(self, all, term, since)
	return ok
}

// Offered returns the index of the snapshot that is offered to others, of those
// that were taken.
func Offered(first uint64, taken ...uint64) uint64 {
	s := newSnapshots(replication.Position{}, func() uint64 { return first })
	for _, i := range taken {
		s.add(&sink{store: s, position: replication.Position{Index: i, Term: 1}, taken: true})
	}
	all, _ := s.List()
	if len(all) == 0 {
		return 0
	}
	return all[0].Index
}

// Applier is what hands entries to a state machine.
type Applier struct{ *applier }

// NewApplier returns one that nobody asks for a copy.
func NewApplier(m StateMachine) Applier {
	return Applier{newApplier(m, func(replication.Position) {}, nil)}
}

// State returns what is applied, and why nothing is any more.
func (a Applier) State() (replication.Position, error) {
	at, _, halted := a.state()
	return at, halted
}
