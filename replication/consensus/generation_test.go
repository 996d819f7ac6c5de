package consensus_test

import (
	"context"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/consensus"
)

func TestTheOnlyVoterLeadsAtOnce(t *testing.T) {
	simulate(t, 31, 40*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(1, 2)
		w.converge()
		first := w.members[0]
		for range 3 {
			first.stop()
			start := time.Now()
			first.start()
			w.until("a leader", time.Second, func() bool { return first.node.Stats().Phase == consensus.Leading })
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("leads after %v", took)
			}
			w.mustPropose(1)
		}
		// Nobody else takes itself for the only one.
		for _, m := range w.members[1:] {
			m.stop()
			m.start()
		}
		time.Sleep(10 * time.Second)
		if l := w.leader(); l != first {
			t.Errorf("%v leads", l)
		}
		w.converge()
	})
}

func TestRecoveryKeepsWhatTheSurvivorHasAndFencesTheRest(t *testing.T) {
	simulate(t, 32, 20*time.Millisecond, consensus.Settings{Retry: time.Second}, func(w *world) {
		w.found(3, 1)
		w.mustPropose(5)
		w.converge()
		survivor, others := w.members[3], w.members[:3] // not even a voter
		// An entry is stored everywhere, and its commit not heard of by the survivor.
		w.net.split([]string{survivor.id}, w.names(func(m *member) bool { return m != survivor }))
		w.mustPropose(3)
		lost := len(w.leader().machine.entries())
		for _, m := range w.members {
			m.stop()
		}
		w.net.heal()
		if err := survivor.open(); err != nil {
			t.Fatal(err)
		}
		kept := len(survivor.machine.entries())
		before := survivor.machine.Position()
		if err := survivor.node.Recover(); err != nil {
			t.Fatal(err)
		}
		if g, ok := survivor.node.Generation(); g != 1 || !ok || survivor.machine.Position().Index <= before.Index {
			t.Errorf("generation %d, %t", g, ok)
		}
		survivor.run()
		w.until("a leader", time.Second, func() bool { return survivor.node.Stats().Phase == consensus.Leading })
		if err := survivor.node.Recover(); !fault.Is(err, fault.Conflict) {
			t.Errorf("recovered while it runs: %v", err)
		}
		if _, err := survivor.node.Propose(context.Background(), []byte("new")); err != nil {
			t.Fatal(err)
		}
		for _, m := range others {
			m.start()
			if err := survivor.node.AddNonvoter(context.Background(), m.id, m.id); err != nil {
				t.Fatal(err)
			}
		}
		w.until("everybody in the new generation", time.Minute, func() bool {
			for _, m := range others {
				if g, _ := m.node.Generation(); g != 1 || len(m.machine.entries()) != len(survivor.machine.entries()) {
					return false
				}
			}
			return true
		})
		if n := len(survivor.machine.entries()); kept >= lost || n < kept+1 {
			t.Errorf("%d entries kept of %d, now %d", kept, lost, n)
		}
		for _, m := range others {
			if m.bootstraps == 0 {
				t.Errorf("%s copied nothing", m.id)
			}
			m.stop()
			m.start()
			if err := survivor.node.AddVoter(context.Background(), m.id, m.id); err != nil {
				t.Fatal(err)
			}
		}
		w.mustPropose(3)
		w.converge()
	})
}

// The position decides: a log that a crash has left in the generation before is
// given up, with the votes.
func TestACrashInARecoveryEndsIt(t *testing.T) {
	simulate(t, 33, 20*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 0)
		w.mustPropose(20)
		w.converge()
		m := w.members[1]
		for _, o := range w.members {
			o.stop()
		}
		next := m.machine.Position()
		next.Index++
		next.Term, next.MembersIndex = 1<<32, next.Index
		next.Members = []replication.Member{{ID: m.id, Address: m.id}}
		if err := m.machine.Apply(nil, next); err != nil {
			t.Fatal(err)
		}
		m.start()
		w.until("a leader", time.Second, func() bool { return m.node.Stats().Phase == consensus.Leading })
		if s := m.node.Stats(); consensus.GenerationOf(s.Term) != 1 || s.First < next.Index || len(m.node.Members()) != 1 {
			t.Errorf("%+v", s)
		}
		if index, err := m.node.Propose(context.Background(), []byte("new")); err != nil || index <= next.Index {
			t.Error(index, err)
		}
	})
}

func TestRecoveryAppliesWhatTheLogHas(t *testing.T) {
	simulate(t, 34, 20*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 0)
		w.mustPropose(20)
		w.converge()
		m := w.members[1]
		all := m.machine.entries()
		for _, o := range w.members {
			o.stop()
		}
		m.machine.batches = m.machine.batches[:len(m.machine.batches)/2]
		if err := m.open(); err != nil {
			t.Fatal(err)
		}
		if err := m.node.Recover(); err != nil {
			t.Fatal(err)
		}
		got := m.machine.entries()
		if len(got) != len(all) {
			t.Fatalf("%d entries of %d", len(got), len(all))
		}
		for i := range all {
			if got[i].Index != all[i].Index || string(got[i].Data) != string(all[i].Data) {
				t.Errorf("entry %d", i)
			}
		}
		m.run()
	})
}
