package group_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/replication"
	"pelago/replication/consensus"
	"pelago/replication/group"
)

// votes reports whether a member votes, as another one has it.
func (m *member) votes(at *member) bool {
	for _, x := range at.group.Members() {
		if x.ID == m.id() {
			return x.Suffrage == replication.Voter
		}
	}
	return false
}

func (m *member) phase() consensus.Phase { return m.group.Status().Phase }

// lose takes a stopped member's log; its machine goes back to what it was, if
// that is given.
func (m *member) lose(backup *toy) {
	m.fs = vfs.NewMem()
	machine := newToy(m.fs)
	machine.registry = m.w.registry
	if backup == nil {
		backup = m.machine
	}
	machine.at, machine.hash = backup.at, backup.hash
	machine.entries = append(machine.entries, backup.entries...)
	m.machine = machine
}

// backup copies what a member has applied.
func (m *member) backup() *toy {
	b := newToy(m.fs)
	m.machine.mu.Lock()
	defer m.machine.mu.Unlock()
	b.at, b.hash = m.machine.at, m.machine.hash
	b.entries = append(b.entries, m.machine.entries...)
	return b
}

func TestAVoterThatIsRestoredComesBackAndIsGivenAVoteAgain(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.members[0].mustPropose("before")
		w.converge()
		x := w.other(w.leader())
		backup := x.backup()
		w.leader().mustPropose("after the backup")
		w.converge()
		x.stop()
		x.lose(backup)
		w.part(x)
		x.start()
		time.Sleep(time.Minute)
		if x.phase() != consensus.Returning || x.machine.has("after the backup") {
			t.Fatal("cut off, it is ", x.phase())
		}
		if !x.votes(w.other(x)) {
			t.Error("nobody has asked, and its vote is gone")
		}
		w.heal()
		w.until("its vote is taken", 2*time.Minute, func() bool { return !x.votes(w.leader()) })
		w.until("it is back", time.Minute, func() bool { return x.phase() == consensus.Following })
		if x.machine.copied() != 1 {
			t.Errorf("%d copies", x.machine.copied())
		}
		w.settle(3, 3)
		w.converge()
		if !x.machine.has("after the backup") {
			t.Error("it lacks what came after the backup")
		}
		x.mustPropose("by who came back")
		x.stop()
		x.start()
		x.mustPropose("again")
		w.converge()
		if x.machine.copied() != 1 {
			t.Error("it copied again: its log was not lost")
		}
	})
}

// The survivor is restored itself, and takes the others along; and one that was
// restored from before it comes into its generation.
func TestARestoredNodeRecoversTheNetworkOrFollowsWhoDid(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.members[0].mustPropose("kept")
		w.converge()
		survivor, late, third := w.members[1], w.members[2], w.members[0]
		old, older := survivor.backup(), late.backup()
		for _, m := range w.members {
			m.stop()
		}
		survivor.lose(old)
		survivor.open()
		at, err := survivor.group.Survey()
		if err != nil || at.Generation != 0 || at.Last != old.at.Index || at.Applied != old.at.Index || len(at.Members) != 3 {
			t.Errorf("%+v, %v", at, err)
		}
		if err := survivor.group.Recover(); err != nil {
			t.Fatal(err)
		}
		if at, err := survivor.group.Survey(); err != nil || at.Generation != 1 || at.Last <= old.at.Index || len(at.Members) != 1 {
			t.Errorf("%+v, %v", at, err)
		}
		survivor.run()
		survivor.mustPropose("new")
		late.lose(older)
		late.start()
		w.until("it is back", time.Minute, func() bool { return late.phase() == consensus.Following })
		third.start()
		w.settle(3, 3)
		w.converge()
		for _, m := range w.members {
			if !m.machine.has("kept") || !m.machine.has("new") || m.group.Status().Generation != 1 {
				t.Errorf("%s: %+v", m.ip, m.group.Status())
			}
		}
	})
}

func TestTheSurveyTellsSurvivorsApart(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.members[0].mustPropose("everywhere")
		w.converge()
		behind := w.other(w.leader())
		w.part(behind)
		ahead := w.leader()
		ahead.mustPropose("at two of three")
		for _, m := range w.members {
			m.stop()
		}
		survey := func(m *member) consensus.Survey {
			m.open()
			at, err := m.group.Survey()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.group.Close(); err != nil {
				t.Fatal(err)
			}
			return at
		}
		a, b := survey(ahead), survey(behind)
		// Who is cut off cannot be elected, and by pre-votes raises no term.
		if a.LastTerm < b.LastTerm || a.Last <= b.Last || a.Applied <= b.Applied {
			t.Errorf("%+v against %+v", a, b)
		}
	})
}
