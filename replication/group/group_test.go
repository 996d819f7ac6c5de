package group_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/group"
)

func TestANetworkOfOneIsReadyAtOnceEveryTime(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		a := w.add("Mercy")
		start := time.Now()
		a.found()
		a.mustPropose("x")
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("ready after %v", took)
		}
		w.until("its staleness", 5*time.Second, func() bool { _, ok := a.group.Staleness(); return ok })
		for range 3 {
			a.stop()
			time.Sleep(time.Hour)
			start := time.Now()
			a.open()
			if err := a.group.Found(); !fault.Is(err, fault.Conflict) {
				t.Errorf("founded twice: %v", err)
			}
			a.run()
			a.mustPropose(start.String())
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("ready again after %v", took)
			}
		}
	})
}

// voters counts who votes by what a node knows, and whether everybody is in.
func (m *member) membership() (voters, all int) {
	for _, x := range m.group.Members() {
		all++
		if x.Suffrage == replication.Voter {
			voters++
		}
	}
	return voters, all
}

// grow founds a network of n nodes at as many sites and waits until its voters are chosen.
func (w *world) grow(n, voters int) {
	w.t.Helper()
	w.add("Site 1").found()
	for i := 1; i < n; i++ {
		m := w.add(fmt.Sprintf("Site %d", i+1))
		m.start()
		w.record(m, nil)
	}
	w.settle(voters, n)
}

// settle waits until everybody who is up knows the same members and a leader.
func (w *world) settle(voters, n int) {
	w.t.Helper()
	w.until("a settled membership", 2*time.Minute, func() bool {
		for _, m := range w.members {
			if m.done == nil {
				continue
			}
			if v, all := m.membership(); v != voters || all != n || m.group.Leader() == "" {
				return false
			}
		}
		return true
	})
}

func (w *world) leader() *member {
	w.t.Helper()
	var l *member
	w.until("a leader", time.Minute, func() bool {
		for _, m := range w.members {
			if m.done == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := m.group.CommitIndex(ctx)
			cancel()
			if err == nil && m.group.Leader() == m.id() {
				l = m
			}
		}
		return l != nil
	})
	return l
}

func TestVotersFollowTheNumberOfSites(t *testing.T) {
	for n, voters := range map[int]int{2: 1, 3: 3, 4: 3, 5: 5} {
		network(t, group.Settings{}, func(w *world) {
			w.grow(n, voters)
			// Everybody proposes, wherever the leader is.
			for _, m := range w.members {
				m.mustPropose("from " + m.ip)
			}
			for _, m := range w.members {
				w.until("everything everywhere", time.Minute, func() bool { return m.machine.count() == n })
			}
		})
	}
}

// What the leader does not admit never is in the order, whoever proposes it; the
// leader knows by the certificate who that is.
func TestWhatIsNotAdmittedIsInNoLog(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		var mu sync.Mutex
		asked := map[string]string{}
		w.admit = func(from string, entry []byte) error {
			mu.Lock()
			defer mu.Unlock()
			asked[string(entry)] = from
			if strings.HasPrefix(string(entry), "bad") {
				return fault.New(fault.Unsupported, "not this")
			}
			return nil
		}
		w.grow(3, 3)
		for i, m := range w.members {
			bad, good := fmt.Sprint("bad ", i), fmt.Sprint("good ", i)
			if _, err := m.propose(bad, time.Minute); !fault.Is(err, fault.Unsupported) {
				t.Errorf("%s: %v", bad, err)
			}
			m.mustPropose(good)
			mu.Lock()
			if asked[bad] != m.id() || asked[good] != m.id() {
				t.Errorf("asked whether %v may, and not %s", asked, m.id())
			}
			mu.Unlock()
		}
		w.converge()
		for _, m := range w.members {
			if n := m.machine.count(); n != len(w.members) {
				t.Errorf("%d entries are applied, %d were admitted", n, len(w.members))
			}
		}
	})
}

// A refusal rests on what is committed, and that is applied at who is refused.
func TestWhoIsRefusedKnowsByWhat(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.admit = func(_ string, entry []byte) error {
			if strings.HasPrefix(string(entry), "stranger") {
				return fault.New(fault.Denied, "no member")
			}
			return nil
		}
		w.grow(3, 3)
		l := w.leader()
		f := w.other(l)
		for i, m := range []*member{l, f} {
			last := l.mustPropose(fmt.Sprint("before ", i)) // which f may not have applied yet
			index, err := m.propose("stranger", time.Minute)
			if !fault.Is(err, fault.Denied) || index < last || m.machine.Position().Index < index {
				t.Errorf("%s: refused as of %d: %v; %d is committed, %d is applied", m.ip, index, err, last, m.machine.Position().Index)
			}
		}
		w.converge()
		if l.machine.has("stranger") {
			t.Error("what was refused is in the order")
		}
	})
}

// A member that fills the log with what nobody takes is stopped by whoever leads.
func TestAMemberCannotFillTheLogInVain(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		l := w.leader()
		f := w.other(l)
		again := "again " + strings.Repeat("x", 500<<10)
		var err error
		n := 0
		for ; n < 100 && err == nil; n++ {
			_, err = f.propose(again, time.Minute)
		}
		if !fault.Is(err, fault.Full) || n > 12 {
			t.Errorf("after %d entries: %v", n, err)
		}
		if _, err := w.other(l, f).propose("another", time.Minute); err != nil {
			t.Errorf("another member: %v", err)
		}
		time.Sleep(5 * time.Minute)
		if _, err := f.propose("later", time.Minute); err != nil {
			t.Errorf("later: %v", err)
		}
	})
}

// Who proposes through the leader does not wait for Raft's next message to hear that
// its own entry is committed.
func TestAFollowerHearsOfItsOwnEntryAtOnce(t *testing.T) {
	network(t, group.Settings{}, func(w *world) {
		w.grow(3, 3)
		f := w.other(w.leader())
		f.mustPropose("first") // connections are made
		time.Sleep(10 * time.Second)
		for i := range 20 {
			start := time.Now()
			index, err := f.propose(fmt.Sprint("entry ", i), time.Minute)
			if took := time.Since(start); err != nil || took > 20*time.Millisecond || f.machine.Position().Index < index {
				t.Errorf("entry %d took %v: %v", i, took, err)
			}
			time.Sleep(time.Second)
		}
		w.converge()
	})
}
