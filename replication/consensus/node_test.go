package consensus_test

import (
	"context"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/replication/consensus"
)

func TestANetworkElectsReplicatesAndApplies(t *testing.T) {
	simulate(t, 1, 40*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 2)
		start := time.Now()
		w.mustPropose(20)
		if took := time.Since(start) / 20; took > 130*time.Millisecond {
			t.Errorf("%v a proposal, with round trips of 80 ms", took)
		}
		w.converge()
		l := w.leader()
		if len(l.machine.entries()) != 21 {
			t.Errorf("%d entries", len(l.machine.entries()))
		}
		if got := len(l.node.Members()); got != 5 {
			t.Errorf("%d members", got)
		}
		f := w.members[4]
		if _, err := f.node.Propose(context.Background(), []byte("x")); !fault.Is(err, fault.Unavailable) {
			t.Error("a follower took a proposal:", err)
		}
		if id, _ := f.node.Leader(); id != l.id {
			t.Errorf("%s knows %q as the leader", f.id, id)
		}
	})
}
