package consensus_test

import (
	"context"
	"slices"
	"sync"
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

// The library's defaults allow two RPCs of 64 entries on the way, and make
// everybody else wait for a round trip or more.
func TestACommitUnderLoadTakesARoundTrip(t *testing.T) {
	const oneWay = 75 * time.Millisecond
	simulate(t, 12, oneWay, consensus.Settings{}, func(w *world) {
		w.found(5, 0)
		w.converge()
		l := w.leader()
		var mu sync.Mutex
		var took []time.Duration
		var clients sync.WaitGroup
		for c := range 200 {
			clients.Go(func() {
				time.Sleep(time.Duration(c) * 1700 * time.Microsecond)
				for range 10 {
					start := time.Now()
					if _, err := l.node.Propose(context.Background(), make([]byte, 1000)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(start))
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		slices.Sort(took)
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		t.Logf("%d proposals: p50 %v, p99 %v", len(took), p50, p99)
		if p50 > 2*oneWay*115/100 {
			t.Errorf("p50 %v with round trips of %v", p50, 2*oneWay)
		}
	})
}
