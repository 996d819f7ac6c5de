package group_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pelago/chaos/check"
	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/consensus"
	"pelago/replication/group"
)

// part cuts a member off from all others, both ways.
func (w *world) part(m *member) {
	for _, o := range w.members {
		if o != m {
			w.cluster.Part([]string{m.ip}, []string{o.ip})
		}
	}
}

func (w *world) heal() {
	for i, m := range w.members {
		for _, o := range w.members[:i] {
			w.cluster.Join([]string{m.ip}, []string{o.ip})
		}
	}
}

// other returns a member that runs and is none of those.
func (w *world) other(than ...*member) *member {
	for _, m := range w.members {
		if m.done != nil && !slices.Contains(than, m) {
			return m
		}
	}
	w.t.Fatal("no other member")
	return nil
}

// converge waits until everybody who runs has applied the same.
func (w *world) converge() {
	w.t.Helper()
	w.until("the same state everywhere", 2*time.Minute, func() bool {
		seen := map[[32]byte]bool{}
		for _, m := range w.members {
			if m.done != nil {
				hash, _ := m.machine.StateHash()
				seen[hash] = true
			}
		}
		return len(seen) == 1
	})
}

func TestALeaderThatIsCutOffIsReplacedAndTellsNoLies(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(5, 5)
		l := w.leader()
		l.mustPropose("before")
		w.part(l)
		f := w.other(l)
		start := time.Now()
		f.mustPropose("meanwhile")
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("nobody took over within %v", took)
		}
		if _, err := l.propose("lost", 20*time.Second); !fault.Is(err, fault.Unavailable) {
			t.Errorf("who is cut off proposed: %v", err)
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		defer cancel()
		if index, err := l.group.CommitIndex(ctx); err == nil {
			t.Errorf("who is cut off knows that %d is committed", index)
		}
		if d, ok := l.group.Staleness(); !ok || d < time.Since(start)-2*time.Second {
			t.Errorf("cut off for %v, it says %v, %v", time.Since(start), d, ok)
		}
		w.heal()
		l.mustPropose("after")
		w.converge()
	})
}

// Who stores on while it is cut off is named by the others, who have its journal up
// to then; whoever leads, and until what it kept is told.
func TestAJournalThatIsNotHeardIsKnownToBe(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(5, 5)
		gone := w.other(w.leader())
		unheard := func(of *member) (by []string) {
			for _, m := range w.members {
				if m != of && m.group.Unheard(of.id()) {
					by = append(by, m.ip)
				}
				if m.group.Unheard(m.id()) {
					w.t.Errorf("%s does not hear itself", m.ip)
				}
			}
			return by
		}
		none := func() bool {
			for _, m := range w.members {
				if len(unheard(m)) > 0 {
					return false
				}
			}
			return true
		}
		w.until("everybody hears everybody", time.Minute, none)
		w.part(gone)
		w.until("all others miss it", time.Minute, func() bool { return len(unheard(gone)) == 4 })
		w.until("it misses all others", time.Minute, func() bool {
			for _, m := range w.members {
				if m != gone && !gone.group.Unheard(m.id()) {
					return false
				}
			}
			return true
		})
		l := w.leader()
		l.stop()
		l.start()
		for range 200 {
			if missed := unheard(gone); len(missed) < 3 {
				w.t.Fatalf("during an election only %v miss it", missed)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if w.leader() == l {
			w.t.Fatal("there was no election")
		}
		w.until("who was restarted misses it too", time.Minute, func() bool { return len(unheard(gone)) == 4 })
		gone.kept.Store(int64(time.Hour))
		w.heal()
		w.until("it hears the others", time.Minute, func() bool {
			for _, m := range w.members {
				if gone.group.Unheard(m.id()) {
					return false
				}
			}
			return true
		})
		if missed := unheard(gone); len(missed) != 4 {
			w.t.Errorf("while it has something to tell only %v miss it", missed)
		}
		gone.kept.Store(0)
		w.until("nobody is missed", time.Minute, none)
	})
}

// A node of a newer version must not stop all others by what they cannot apply.
func TestWhatTheLeaderCannotApplyIsNotProposed(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		l := w.leader()
		f := w.other(l)
		f.machine.newer = true
		for _, m := range []*member{l, f} {
			if _, err := m.propose("newer than the leader", time.Minute); !fault.Is(err, fault.Unsupported) {
				t.Errorf("%s: %v", m.ip, err)
			}
		}
		f.mustPropose("as ever")
		w.converge()
	})
}

func TestAVoteMovesFromASiteThatStaysAwayAndNotBefore(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(4, 3)
		var gone, spare *member
		for _, m := range w.members {
			votes := false
			for _, x := range m.group.Members() {
				votes = votes || x.ID == m.id() && x.Suffrage == replication.Voter
			}
			if !votes {
				spare = m
			} else if m.group.Leader() != m.id() {
				gone = m
			}
		}
		suffrage := func(of *member) (s replication.Suffrage) {
			for _, x := range w.leader().group.Members() {
				if x.ID == of.id() {
					s = x.Suffrage
				}
			}
			return s
		}
		gone.stop()
		time.Sleep(4 * time.Minute)
		if suffrage(gone) != replication.Voter || suffrage(spare) == replication.Voter {
			t.Error("a vote moved within 4 minutes")
		}
		time.Sleep(2 * time.Minute)
		if suffrage(gone) == replication.Voter || suffrage(spare) != replication.Voter {
			t.Error("no vote moved within 6 minutes")
		}
		gone.start()
		w.settle(3, 4)
		w.other(gone).mustPropose("x")
		w.converge()
	})
}

// Who has just died is heard of until lately: a vote is given only to who answers now,
// or the leader, alone in voting, makes itself one of three of whom two are dead.
func TestNoVoteIsGivenToTheDead(t *testing.T) {
	for _, dead := range []int{1, 2} {
		network(t, group.Settings{}, func(w *world) {
			w.grow(2, 1)
			time.Sleep(time.Minute) // the second is long known to be well
			third := w.add("Site 3")
			third.start()
			w.record(third, nil)
			w.until("its admission", time.Minute, func() bool { _, n := w.members[0].membership(); return n == 3 })
			time.Sleep(8 * time.Second) // it is given a vote at 10
			for _, m := range w.members[3-dead:] {
				m.stop()
			}
			time.Sleep(time.Minute)
			if v, _ := w.members[0].membership(); v != 1 {
				t.Errorf("%d of three have died, and %d have votes", dead, v)
			}
			w.members[0].mustPropose("alone")
			for _, m := range w.members[3-dead:] {
				m.start()
			}
			w.settle(3, 3)
		})
	}
}

func TestWhoIsRevokedLosesItsVoteAtOnce(t *testing.T) {
	for _, leads := range []bool{false, true} {
		network(t, group.Settings{}, func(w *world) {
			w.grow(3, 3)
			l := w.leader()
			out := l
			if !leads {
				out = w.other(l)
			}
			w.record(out, func(r *group.Record) { r.Revoked = true })
			w.cluster.Ledger.Remove(out.id())
			for _, m := range w.members {
				if m != out {
					m.port.Drop(out.id())
				}
			}
			start := time.Now()
			w.until("its removal", time.Minute, func() bool {
				for _, m := range w.members {
					_, n := m.membership()
					if m != out && n != 2 {
						return false
					}
				}
				return true
			})
			if took := time.Since(start); !leads && took > 3*time.Second {
				t.Errorf("removed after %v", took)
			}
			w.other(out).mustPropose("without it")
			if _, err := out.propose("x", 20*time.Second); err == nil {
				t.Error("who is revoked proposed")
			}
		})
	}
}

// A drained node has yet to give up what it holds, and to say so: it loses its vote, and
// goes on receiving what is decided until it is removed.
func TestWhoIsDrainedLosesItsVoteAndGoesOnReceiving(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(4, 3)
		l := w.leader()
		w.record(l, func(r *group.Record) { r.Drained = true })
		w.until("its vote's moving", time.Minute, func() bool {
			v, n := w.other(l).membership()
			return v == 3 && n == 4 && !l.votes(w.other(l))
		})
		w.other(l).mustPropose("without its vote")
		time.Sleep(time.Minute)
		w.converge() // it, too
		if _, n := w.other(l).membership(); n != 4 {
			t.Errorf("%d members", n)
		}
		l.mustPropose("by who is drained")
		w.record(l, func(r *group.Record) { r.Revoked = true })
		w.until("its leaving", time.Minute, func() bool { _, n := w.other(l).membership(); return n == 3 })
	})
}

// cutting keeps so little of the log that a new node has to copy the catalogue.
func cutting() group.Settings {
	return group.Settings{Raft: consensus.Settings{Retain: time.Second, Trailing: 256, Snapshot: time.Second, Threshold: 8}}
}

// flow proposes at a member until it is told to stop.
func (m *member) flow(name string) (stop func() int) {
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-end:
				ended <- n
				return
			case <-time.After(100 * time.Millisecond):
			}
			if _, err := m.propose(fmt.Sprintf("%s %d", name, n), 30*time.Second); err == nil {
				n++
			}
		}
	}()
	return func() int {
		close(end)
		return <-ended
	}
}

// growAndCut makes a network of three whose log does not begin at its beginning, so
// that who joins copies the catalogue. The settings are those of cutting.
func (w *world) growAndCut() {
	w.t.Helper()
	w.grow(3, 3)
	for i := range 600 {
		w.members[0].mustPropose(fmt.Sprintf("early %d", i))
	}
	time.Sleep(10 * time.Second) // on virtual time: until the log is cut
}

func TestAnEmptyNodeCopiesTheCatalogueWhileEntriesFlow(t *testing.T) {
	network(t, cutting(), func(w *world) {
		w.growAndCut()
		stop := w.leader().flow("late")
		n := w.add("Site 4")
		// A copy takes its time, and breaks off: what is there is not fetched again.
		for _, m := range w.members[:3] {
			m.slow(func(name string) time.Duration { return 200 * time.Millisecond })
		}
		n.start()
		w.record(n, nil)
		w.until("the copy", time.Minute, func() bool {
			fetched := 0
			for _, m := range w.members[:3] {
				fetched += m.fetched()
			}
			return fetched >= 10
		})
		w.part(n)
		for _, m := range w.members[:3] {
			w.cluster.Reset(m.ip, n.ip)
		}
		time.Sleep(30 * time.Second)
		before := 0
		for _, m := range w.members[:3] {
			before += m.fetched()
		}
		if n.machine.copied() != 0 {
			t.Fatal("copied before it was cut off")
		}
		w.heal()
		w.until("the whole copy", 3*time.Minute, func() bool { return n.machine.copied() == 1 })
		w.settle(3, 4)
		if late := stop(); late < 100 {
			t.Errorf("%d entries came in meanwhile", late)
		}
		w.converge()
		n.mustPropose("from the new one")
		w.converge()
		if n.machine.copied() != 1 {
			t.Errorf("%d copies", n.machine.copied())
		}
		again := -before
		for _, m := range w.members[:3] {
			again += m.fetched()
		}
		t.Logf("%d files before the cut, %d after it", before, again)
	})
}

func TestANodeWithAnotherStateIsFenced(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.members[0].mustPropose("x")
		w.converge()
		for _, odd := range []*member{w.leader()} {
			odd.machine.mu.Lock()
			odd.machine.rot = true
			odd.machine.mu.Unlock()
			w.other(odd).mustPropose("y")
			w.until("the fence", time.Minute, func() bool { return odd.group.Fenced() != nil })
			if _, err := odd.propose("z", 10*time.Second); !fault.Is(err, fault.Unavailable) {
				t.Errorf("a fenced node proposed: %v", err)
			}
			at := odd.machine.Position().Index
			w.other(odd).mustPropose("without it")
			time.Sleep(30 * time.Second)
			if odd.machine.Position().Index > at || odd.group.Leader() == odd.id() {
				t.Error("a fenced node applies, or leads")
			}
			for _, m := range w.members {
				if m != odd && m.group.Fenced() != nil {
					t.Errorf("%s is fenced: %v", m.ip, m.group.Fenced())
				}
			}
		}
	})
}

// A fenced node does not come out of its fence by a restart, but by taking the
// catalogue anew, which it does by itself once.
func TestAFencedNodeTakesTheCatalogueAnewOnce(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.members[0].mustPropose("x")
		w.converge()
		odd := w.other(w.leader())
		rot := func(is bool) {
			odd.machine.mu.Lock()
			defer odd.machine.mu.Unlock()
			odd.machine.rot = is
		}
		rot(true)
		odd.mustPropose("applied as something else")
		w.until("the fence", time.Minute, func() bool { return odd.group.Fenced() != nil })
		rot(false)
		odd.stop()
		w.other(odd).mustPropose("meanwhile")
		odd.start()
		if !fault.Is(odd.group.Fenced(), fault.Corrupt) {
			t.Fatalf("after a restart: %v", odd.group.Fenced())
		}
		at := odd.machine.Position().Index
		w.other(odd).mustPropose("and later")
		time.Sleep(30 * time.Second)
		if odd.machine.Position().Index > at {
			t.Error("a fenced node applies after a restart")
		}
		w.until("the repair", 10*time.Minute, func() bool { return odd.group.Fenced() == nil })
		odd.mustPropose("as everybody")
		w.converge()
		hash, index := odd.machine.StateHash()
		if other, i := w.other(odd).machine.StateHash(); hash != other || index != i || odd.machine.copied() != 1 {
			t.Errorf("at %d and %d, equal: %t, copied %d times", index, i, hash == other, odd.machine.copied())
		}
		odd.stop()
		odd.start()
		if odd.group.Fenced() != nil {
			t.Errorf("fenced after the repair: %v", odd.group.Fenced())
		}

		rot(true)
		w.until("a proposal", time.Minute, func() bool { _, err := odd.propose("something else again", time.Minute); return err == nil })
		w.until("the fence", time.Minute, func() bool { return odd.group.Fenced() != nil })
		rot(false)
		time.Sleep(10 * time.Minute)
		if odd.group.Fenced() == nil || odd.machine.copied() != 1 {
			t.Errorf("it repairs itself again: copied %d times", odd.machine.copied())
		}
	})
}

// Who cannot find out what most nodes have keeps what it has.
func TestAFencedNodeTakesNothingFromWhomNobodyConfirms(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.converge()
		odd := w.other(w.leader())
		odd.machine.mu.Lock()
		odd.machine.rot = true
		odd.machine.mu.Unlock()
		odd.mustPropose("applied as something else")
		w.until("the fence", time.Minute, func() bool { return odd.group.Fenced() != nil })
		third := w.other(odd)
		third.stop()
		time.Sleep(5 * time.Minute)
		if odd.group.Fenced() == nil || odd.machine.copied() != 0 {
			t.Fatalf("the word of one was enough: copied %d times", odd.machine.copied())
		}
		third.start()
		w.until("the repair", time.Hour, func() bool { return odd.machine.copied() == 1 })
	})
}

func TestASurvivorFoundsANewGenerationThatTheOthersJoin(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		w.members[0].mustPropose("kept")
		w.converge()
		survivor := w.members[1]
		w.part(survivor)
		// The others go on for a while: what they alone know is given up.
		w.members[0].mustPropose("given up")
		for _, m := range w.members {
			m.stop()
		}
		survivor.open()
		if err := survivor.group.Recover(); err != nil {
			t.Fatal(err)
		}
		survivor.run()
		start := time.Now()
		survivor.mustPropose("new")
		if took := time.Since(start); took > time.Second {
			t.Errorf("%v to lead alone", took)
		}
		for i, m := range []*member{w.members[0], w.members[2]} {
			m.start()
			w.until("the old ones go on by themselves", time.Minute, func() bool { return i == 0 || m.group.Leader() != "" })
		}
		if w.members[0].group.Leader() == survivor.id() {
			t.Error("who is cut off leads")
		}
		w.heal()
		w.settle(3, 3)
		w.converge()
		for _, m := range w.members {
			if !m.machine.has("kept") || !m.machine.has("new") || m.machine.has("given up") {
				t.Errorf("%s has another state", m.ip)
			}
		}
		w.members[0].mustPropose("all together")
		w.converge()
		w.members[0].stop()
		w.members[0].start()
		w.members[0].mustPropose("again")
	})
}

// history is what was committed and what nodes answered meanwhile.
type history struct {
	mu sync.Mutex
	check.Staleness
}

func TestStalenessIsNeverUnderstated(t *testing.T) {
	for seed := range uint64(4) {
		network(t, group.Settings{Attention: time.Hour}, func(w *world) {
			w.grow(5, 5)
			var h history
			var clients sync.WaitGroup
			end := make(chan struct{})
			for _, m := range w.members {
				clients.Go(func() { m.propose1(&h, end) })
				clients.Go(func() { m.ask(&h, end) })
			}
			for round := range 6 {
				time.Sleep(7 * time.Second)
				switch (seed + uint64(round)) % 4 {
				case 0:
					w.part(w.members[round%5])
				case 1:
					w.heal()
				case 2:
					l := w.members[(round+1)%5]
					for _, o := range w.members { // one direction only
						if o != l {
							w.cluster.Cut(o.ip, l.ip)
						}
					}
				case 3:
					a, b := w.members[(round+2)%5], w.members[(round+3)%5]
					w.cluster.Delay(a.ip, b.ip, 700*time.Millisecond)
				}
			}
			w.heal()
			time.Sleep(time.Minute)
			close(end)
			clients.Wait()
			w.converge()
			known := 0
			for _, a := range h.Answers {
				if a.Known {
					known++
				}
			}
			if len(h.Facts) < 100 || known < 500 {
				t.Errorf("a thin history: %d facts, %d answers with a staleness", len(h.Facts), known)
			}
			for _, v := range h.Check() {
				t.Error(v)
			}
			for _, m := range w.members {
				if d, ok := m.group.Staleness(); !ok || d > 3*time.Second {
					t.Errorf("%s in the end: %v, %v", m.ip, d, ok)
				}
			}
		})
	}
}

// propose1 commits facts about a key of its own.
func (m *member) propose1(h *history, end <-chan struct{}) {
	for version := uint64(1); ; version++ {
		select {
		case <-end:
			return
		case <-time.After(300 * time.Millisecond):
		}
		_, err := m.propose(fmt.Sprintf("fact %s %d", m.ip, version), 20*time.Second)
		if err != nil {
			if !errors.Is(err, consensus.ErrUnknownOutcome) {
				version-- // not committed for sure
			}
			continue
		}
		h.mu.Lock()
		h.Facts = append(h.Facts, check.Fact{Key: m.ip, Version: version, Committed: time.Now()})
		h.mu.Unlock()
	}
}

// ask notes what a node shows, and how stale it says that is.
func (m *member) ask(h *history, end <-chan struct{}) {
	for {
		select {
		case <-end:
			return
		case <-time.After(170 * time.Millisecond):
		}
		a := check.Answer{Node: check.Node(m.ip), Asked: time.Now()}
		a.Staleness, a.Known = m.group.Staleness()
		a.Versions = m.machine.versions()
		h.mu.Lock()
		h.Answers = append(h.Answers, a)
		h.mu.Unlock()
	}
}
