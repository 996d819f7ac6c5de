package consensus_test

import (
	"testing"
	"time"

	"pelago/replication/consensus"
)

// What a follower has confirmed it does not lose again; what only seems so, because
// answers overtake one another, or because entries were of a leader that lost, is
// nothing that it forgot.
func TestWhatProvesThatAFollowerForgot(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(ms)) }
	held := consensus.Answer{Term: 5, Index: 100, Success: true, LastLog: 99, Sent: at(0), Told: at(20)}
	for name, c := range map[string]struct {
		then   consensus.Answer
		forgot uint64
	}{
		"it has more":                           {consensus.Answer{Term: 5, LastLog: 120, Success: true, Sent: at(30), Told: at(40)}, 0},
		"it has the same":                       {consensus.Answer{Term: 5, LastLog: 100, Success: true, Sent: at(30), Told: at(40)}, 0},
		"a heartbeat finds less":                {consensus.Answer{Term: 5, LastLog: 60, Success: true, Sent: at(30), Told: at(40)}, 1},
		"it refuses what follows":               {consensus.Answer{Term: 5, Index: 101, LastLog: 60, Sent: at(30), Told: at(40)}, 1},
		"an answer from before overtakes":       {consensus.Answer{Term: 5, LastLog: 60, Success: true, Sent: at(10), Told: at(40)}, 0},
		"in another term it says what it likes": {consensus.Answer{Term: 6, LastLog: 60, Success: true, Sent: at(30), Told: at(40)}, 0},
	} {
		e := consensus.NewEvidence()
		if n := e.Answered("x", held); n != 0 {
			t.Errorf("%s: at first %d", name, n)
		}
		if n := e.Answered("x", c.then); n != c.forgot {
			t.Errorf("%s: forgot %d times, want %d", name, n, c.forgot)
		}
		if n := e.Answered("x", c.then); n != c.forgot {
			t.Errorf("%s: forgot %d times at the same answer again, want %d", name, n, c.forgot)
		}
	}
	// A log may end anywhere before anything is confirmed.
	e := consensus.NewEvidence()
	for _, last := range []uint64{500, 100, 90} {
		if n := e.Answered("x", consensus.Answer{Term: 5, LastLog: last, Sent: at(int(1000 - last)), Told: at(int(1001 - last))}); n != 0 {
			t.Errorf("a log that ends at %d and never was the leader's: %d", last, n)
		}
	}
}

// A machine that was put back whole, log and mark and all, does not know of itself
// that it is an earlier one. The leader does, as long as it leads.
func TestTheLeaderKnowsAMachineThatWasPutBack(t *testing.T) {
	simulate(t, 55, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 0)
		w.mustPropose(5)
		w.converge()
		l := w.leader()
		x := w.members[0]
		if x == l {
			x = w.members[1]
		}
		x.stop()
		x.aside()
		mark, err := read(x.fs, "raft.mark")
		if err != nil {
			t.Fatal(err)
		}
		batches := append([]toyBatch(nil), x.machine.batches...)
		x.start()
		w.mustPropose(20)
		w.converge()
		if w.leader() != l || l.node.Heard()[x.id].Forgot != 0 {
			t.Fatalf("before: %+v", l.node.Heard()[x.id])
		}
		x.stop()
		x.back()
		write(t, x.fs, "raft.mark", mark)
		x.machine = &toy{batches: batches, durable: len(batches)}
		x.start()
		w.converge()
		if w.leader() != l || l.node.Heard()[x.id].Forgot != 1 || x.releases != 0 {
			t.Errorf("after: %+v, released %d times", l.node.Heard()[x.id], x.releases)
		}
	})
}
