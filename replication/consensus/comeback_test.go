package consensus_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/replication"
	"pelago/replication/consensus"
)

// lose takes a stopped member's log, and of its state machine all but some
// batches: what a backup has.
func (m *member) lose(batches int) {
	m.fs = vfs.NewCrashableMem()
	m.machine = &toy{batches: append([]toyBatch(nil), m.machine.batches[:batches]...), durable: batches}
}

func (m *member) phase() consensus.Phase { return m.node.Stats().Phase }

// suffrage is a member's, as the leader has it.
func (w *world) suffrage(id string) (s replication.Suffrage) {
	s = replication.Nonvoter
	for _, m := range w.leader().node.Members() {
		if m.ID == id {
			s = m.Suffrage
		}
	}
	return s
}

// acknowledge commits an entry that a, who leads, and x have, and b has not.
func (w *world) acknowledge(a, b, x *member) {
	w.t.Helper()
	w.net.split([]string{b.id}, []string{a.id, x.id})
	if _, err := w.propose("acknowledged", 20*time.Second); err != nil {
		w.t.Fatal(err)
	}
	for x.machine.Position().Index < a.machine.Position().Index {
		time.Sleep(time.Second)
	}
}

// readmit starts x, which does not have the log that it had: nobody leads until a,
// which has, is back as well, and then x follows without a vote.
func (w *world) readmit(name string, a, x *member) {
	w.t.Helper()
	w.net.heal()
	x.start()
	time.Sleep(3 * time.Minute)
	if l := w.leader(); l != nil || x.phase() != consensus.Returning {
		w.t.Fatalf("%s: %v leads, who has not the log that it had is %v", name, l, x.phase())
	}
	a.start()
	w.until("it is back", 2*time.Minute, func() bool { return x.phase() == consensus.Following })
	w.converge()
	if w.suffrage(x.id) == replication.Voter {
		w.t.Errorf("%s: who is back votes", name)
	}
}

// Two of three have an entry, and the one of them that is left has lost its log:
// with its vote the third, which lacks the entry, would lead.
func TestAMemberThatLostItsLogElectsNobody(t *testing.T) {
	for name, kept := range map[string]func(all int) int{
		"the state machine is whole":        func(all int) int { return all },
		"the state machine is of a backup":  func(int) int { return 3 },
		"the state machine is lost as well": func(int) int { return 0 },
	} {
		simulate(t, 51, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
			w.found(3, 0)
			w.mustPropose(5)
			w.converge()
			a := w.leader()
			var b, x *member
			for _, m := range w.members {
				switch {
				case m == a:
				case b == nil:
					b = m
				default:
					x = m
				}
			}
			w.acknowledge(a, b, x)
			a.stop()
			x.stop()
			x.lose(kept(len(x.machine.batches)))
			w.readmit(name, a, x)
			for _, m := range w.members {
				if n := len(m.machine.entries()); n != len(a.machine.entries()) || string(m.machine.entries()[6].Data) != "acknowledged" {
					t.Errorf("%s: %s has %d entries", name, m.id, n)
				}
			}
			// It comes once: from now on it has a log, and may be given a vote.
			x.stop()
			x.start()
			if err := w.awaitLeader().node.AddVoter(context.Background(), x.id, x.id); err != nil {
				t.Fatal(err)
			}
			b.stop()
			w.mustPropose(1)
			b.start()
			w.converge()
			if x.releases == 0 || x.phase() != consensus.Following {
				t.Errorf("%s: released %d times, %v", name, x.releases, x.phase())
			}
			before := x.releases
			x.stop()
			x.start()
			w.converge()
			if x.releases != before {
				t.Errorf("%s: released again", name)
			}
		})
	}
}

// By its backup it is alone in the network and needs nobody to lead.
func TestWhoWasTheOnlyVoterOfOldDoesNotLead(t *testing.T) {
	simulate(t, 52, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(1, 2)
		w.mustPropose(3)
		w.converge()
		first := w.members[0]
		backup := len(first.machine.batches)
		for _, m := range w.members[1:] {
			if err := first.node.AddVoter(context.Background(), m.id, m.id); err != nil {
				t.Fatal(err)
			}
		}
		w.mustPropose(3)
		first.stop()
		w.awaitLeader()
		first.lose(backup)
		if at := first.machine.Position(); len(at.Members) != 3 || at.Members[1].Suffrage == replication.Voter {
			t.Fatalf("the backup is of %+v", at)
		}
		w.net.split([]string{first.id}, w.names(func(m *member) bool { return m != first }))
		first.start()
		w.mustPropose(3)
		for range 60 {
			time.Sleep(time.Second)
			if first.phase() != consensus.Returning {
				t.Fatal("it is ", first.phase())
			}
		}
		w.net.heal()
		w.until("it is back", 2*time.Minute, func() bool { return first.phase() == consensus.Following })
		w.converge()
		if w.suffrage(first.id) == replication.Voter {
			t.Error("it votes")
		}
	})
}

// A copy that breaks off, or a crash in the middle, leaves it where it was.
func TestWhoComesBackMayCrashOnTheWay(t *testing.T) {
	simulate(t, 53, 10*time.Millisecond, consensus.Settings{Retry: time.Second}, func(w *world) {
		w.found(3, 1)
		w.mustPropose(20)
		w.converge()
		x := w.members[1]
		x.stop()
		w.awaitLeader()
		x.lose(5)
		x.copyTakes, x.copyFails = 2*time.Second, 2
		x.start()
		for range 4 {
			time.Sleep(time.Duration(w.random.IntN(4000)) * time.Millisecond)
			x.crash()
			x.start()
		}
		w.until("it is back", 2*time.Minute, func() bool { return x.phase() == consensus.Following })
		w.mustPropose(3)
		w.converge()
		if w.suffrage(x.id) == replication.Voter {
			t.Error("it votes")
		}
	})
}

// Up to two of five lose their logs at a time, beside all other trouble, and are
// given votes again afterwards: nothing that was acknowledged is lost.
func TestLostLogsLoseNothingThatWasAcknowledged(t *testing.T) {
	for seed := range seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := consensus.Settings{Trailing: 50, Threshold: 40, Snapshot: 5 * time.Second, Retry: time.Second}
			simulate(t, 500+seed, 30*time.Millisecond, s, func(w *world) {
				w.found(5, 0)
				l := &ledger{acked: map[string]uint64{}, maybe: map[string]bool{}}
				stop := make(chan struct{})
				var clients sync.WaitGroup
				for i := range 3 {
					clients.Go(func() { l.client(w, fmt.Sprint("c", i), stop) })
				}
				lost := 0
				for round := 0; lost < 6 && round < 600; round++ {
					time.Sleep(time.Duration(w.random.IntN(4000)) * time.Millisecond)
					w.mu.Lock()
					switch w.random.IntN(3) {
					case 0:
						lost += w.loseSome()
					case 1:
						w.trouble()
					case 2:
						w.net.heal()
						w.startAll()
					}
					w.giveVotes()
					w.mu.Unlock()
				}
				close(stop)
				clients.Wait()
				w.net.heal()
				w.startAll()
				w.until("everybody is back", 5*time.Minute, w.allBack)
				w.converge()
				l.judge(w)
				t.Logf("%d logs lost, %d acknowledged", lost, len(l.acked))
				if lost < 6 || len(l.acked) < 100 {
					t.Error("too little happened")
				}
			})
		})
	}
}

func (w *world) startAll() {
	for _, m := range w.members {
		if !m.up() {
			m.start()
		}
	}
}

// allBack reports whether everybody is up and has a log.
func (w *world) allBack() bool {
	for _, m := range w.members {
		if !m.up() || m.phase() < consensus.Following {
			return false
		}
	}
	return true
}

// loseSome has one or two members lose their logs while everybody has one and
// votes: those who have theirs stay the majority.
func (w *world) loseSome() int {
	l := w.leader()
	if l == nil || !w.allBack() {
		return 0
	}
	for _, m := range w.members {
		if w.suffrage(m.id) != replication.Voter {
			return 0
		}
	}
	n := 1 + w.random.IntN(2)
	for _, i := range w.random.Perm(len(w.members))[:n] {
		m := w.members[i]
		m.crash()
		m.lose(w.random.IntN(len(m.machine.batches) + 1))
		m.start()
	}
	return n
}

// giveVotes gives everybody a vote that the leader finds without one.
func (w *world) giveVotes() {
	l := w.leader()
	if l == nil || !w.allBack() {
		return
	}
	for _, m := range l.node.Members() {
		if m.Suffrage == replication.Voter {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = l.node.AddVoter(ctx, m.ID, m.ID) // or the next time
		cancel()
	}
}

// aside copies a member's log, and back puts it in the place of what came after.
func (m *member) aside() {
	m.w.t.Helper()
	if err := m.fs.RemoveAll("aside"); err != nil {
		m.w.t.Fatal(err)
	}
	if ok, err := vfs.Clone(m.fs, m.fs, "raft", "aside", vfs.CloneSync); !ok || err != nil {
		m.w.t.Fatal(ok, err)
	}
}

func (m *member) back() {
	m.w.t.Helper()
	if err := m.fs.RemoveAll("raft"); err != nil {
		m.w.t.Fatal(err)
	}
	if ok, err := vfs.Clone(m.fs, m.fs, "aside", "raft", vfs.CloneSync); !ok || err != nil {
		m.w.t.Fatal(ok, err)
	}
}

// A log that was put back from an earlier copy elects nobody: two of three have an
// entry, and the one of them that is left has forgotten it.
func TestALogThatWasPutBackElectsNobody(t *testing.T) {
	for name, after := range map[string]func(w *world, x *member){
		"it was stopped in order":            func(_ *world, x *member) { x.stop() },
		"it crashed a while after the entry": func(_ *world, x *member) { time.Sleep(5 * time.Second); x.crash() },
	} {
		simulate(t, 54, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
			w.found(3, 0)
			w.mustPropose(5)
			w.converge()
			a := w.leader()
			b, x := w.members[1], w.members[2]
			switch a {
			case b:
				b = w.members[0]
			case x:
				x = w.members[0]
			}
			// A log is copied from a node that does not run; and it must not be a start
			// that tells.
			x.stop()
			x.start()
			w.converge()
			x.stop()
			x.aside()
			x.back()
			x.start()
			w.converge()
			if x.releases != 0 {
				t.Fatalf("%s: a log that is its latest passes for an older one", name)
			}
			w.acknowledge(a, b, x)
			after(w, x)
			a.stop()
			x.machine = &toy{batches: append([]toyBatch(nil), x.machine.batches[:3]...), durable: 3} // a synced one may be no further
			x.back()
			w.readmit(name, a, x)
			for _, m := range w.members {
				all := m.machine.entries()
				if len(all) != len(a.machine.entries()) || !slices.ContainsFunc(all, func(e replication.Entry) bool { return string(e.Data) == "acknowledged" }) {
					t.Errorf("%s: %s has %d entries", name, m.id, len(all))
				}
			}
			before := x.releases
			x.stop()
			x.start()
			w.converge()
			if x.releases != before {
				t.Errorf("%s: released again", name)
			}
		})
	}
}

func read(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func write(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
