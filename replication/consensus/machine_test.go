package consensus

import (
	"errors"
	"testing"

	"pelago/replication"
)

// standing is a state machine that nobody applies to.
type standing struct{ StateMachine }

func (standing) Position() replication.Position { return replication.Position{Index: 7, Term: 2} }

// What is found wrong with a copy before Raft begins with it is not forgotten then.
func TestAFenceOutlivesANewBeginning(t *testing.T) {
	var wrong error
	a := newApplier(standing{}, nil, func() error { return wrong })
	if _, _, halted := a.state(); halted != nil {
		t.Fatalf("halted without a fence: %v", halted)
	}
	wrong = errors.New("the copy is broken")
	a.halt(wrong)
	a.reset()
	if at, _, halted := a.state(); halted != wrong || at.Index != 7 {
		t.Errorf("at %d: %v", at.Index, halted)
	}
	wrong = nil
	a.reset()
	if _, _, halted := a.state(); halted != nil {
		t.Errorf("halted behind no fence: %v", halted)
	}
}
