package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
)

// errBehind answers a snapshot that the state machine has yet to be copied for.
var errBehind = fault.New(fault.Unavailable, "consensus: the state machine is being copied")

// applier applies what the library hands over. It is the library's FSM.
type applier struct {
	machine StateMachine
	behind  func(want replication.Position) // a snapshot asks for a bootstrap; must not block
	fence   func() error                    // see Options.Fence

	applying sync.Mutex // held over Apply, and whatever moves at: one writer

	mu      sync.Mutex // held over no I/O: who asks does not wait for the disk
	at      replication.Position
	halted  error         // why nothing is applied any more
	changed chan struct{} // closed and replaced when at or halted changes
}

var _ raft.BatchingFSM = (*applier)(nil)

func newApplier(m StateMachine, behind func(replication.Position), fence func() error) *applier {
	if fence == nil {
		fence = func() error { return nil }
	}
	return &applier{machine: m, behind: behind, fence: fence, at: m.Position(), halted: fence(), changed: make(chan struct{})}
}

// reset begins again where the state machine stands, unless that was found wrong
// since it was put there.
func (a *applier) reset() {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.move(a.machine.Position(), a.fence())
}

// halt stops applying as if the state machine had failed. When it returns nothing is
// being applied any more.
func (a *applier) halt(why error) {
	a.applying.Lock()
	defer a.applying.Unlock()
	if at, _, halted := a.state(); halted == nil {
		a.move(at, why)
	}
}

// state returns what is applied, a channel that closes when that changes, and why
// nothing is applied any more.
func (a *applier) state() (at replication.Position, changed <-chan struct{}, halted error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at, a.changed, a.halted
}

// move is for who holds applying.
func (a *applier) move(at replication.Position, halted error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.halted = at, halted
	close(a.changed)
	a.changed = make(chan struct{})
}

// Apply applies one entry.
func (a *applier) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries in order, those at or below the state
// machine's position left out. The answers are errors, nil when applied.
func (a *applier) ApplyBatch(logs []*raft.Log) []any {
	a.applying.Lock()
	defer a.applying.Unlock()
	at, _, halted := a.state()
	if halted == nil {
		var err error
		if at, err = a.apply(at, logs); err != nil {
			halted = err
			a.move(at, err)
		}
	}
	answers := make([]any, len(logs))
	if halted != nil {
		for i, l := range logs {
			if l.Index > at.Index {
				answers[i] = halted
			}
		}
	}
	return answers
}

// apply applies what lies behind a position and returns where that leads.
func (a *applier) apply(from replication.Position, logs []*raft.Log) (replication.Position, error) {
	at := from
	var entries []replication.Entry
	for _, l := range logs {
		if l.Index <= at.Index {
			continue
		}
		at.Index, at.Term = l.Index, l.Term
		switch l.Type {
		case raft.LogCommand:
			entries = append(entries, replication.Entry{Index: l.Index, Term: l.Term, Data: l.Data})
		case raft.LogConfiguration:
			at.MembersIndex, at.Members = l.Index, members(raft.DecodeConfiguration(l.Data))
		default:
			return from, fault.New(fault.Unsupported, "consensus: entry %d is of type %v", l.Index, l.Type)
		}
	}
	if at.Index == from.Index {
		return from, nil
	}
	if err := a.machine.Apply(entries, at); err != nil {
		return from, fmt.Errorf("consensus: apply %d to %d: %w", from.Index+1, at.Index, err)
	}
	a.move(at, nil)
	return at, nil
}

// Snapshot costs nothing: the state machine is on disk.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if _, _, halted := a.state(); halted != nil {
		return nil, halted
	}
	return &snapshot{a}, nil
}

// Restore is asked for when a leader has cut what this member lacks.
func (a *applier) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(io.LimitReader(r, replication.MaxPositionBytes+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("consensus: read snapshot: %w", err)
	}
	want, err := replication.DecodePosition(b)
	if err != nil {
		return err
	}
	if at, _, _ := a.state(); !behind(at, want) {
		return nil
	}
	a.behind(want)
	return errBehind
}

// snapshot makes the state machine durable before the log is cut.
type snapshot struct{ a *applier }

func (s *snapshot) Release() {}

// Persist moves the state machine's position to the snapshot's index, which
// entries of Raft's own may have carried beyond it, and syncs.
func (s *snapshot) Persist(to raft.SnapshotSink) error {
	sink, ok := to.(*sink)
	if !ok {
		return fault.New(fault.Other, "consensus: a snapshot into %T", to)
	}
	if err := s.a.reach(sink.position); err != nil {
		return err
	}
	if err := s.a.machine.Sync(); err != nil {
		return fmt.Errorf("consensus: sync: %w", err)
	}
	if _, err := sink.Write(sink.position.Encode()); err != nil {
		return err
	}
	sink.taken = true
	return nil
}

// reach moves the position up to one up to which everything was handed over.
func (a *applier) reach(p replication.Position) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	at, _, halted := a.state()
	if halted != nil || at.Index >= p.Index {
		return halted
	}
	if err := a.machine.Apply(nil, p); err != nil {
		err = fmt.Errorf("consensus: move to %d: %w", p.Index, err)
		a.move(at, err)
		return err
	}
	a.move(p, nil)
	return nil
}
