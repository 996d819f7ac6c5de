package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/replication"
	"pelago/replication/consensus"
	"pelago/replication/raftlog"
)

// The library's VerifyLeader takes the answers of non-voters for votes. A
// leader that is cut off from the voters and not from the others must not be
// confirmed.
func TestNonvotersDoNotConfirmALeader(t *testing.T) {
	simulate(t, 1, 20*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 4)
		l := w.leader()
		w.net.split([]string{l.id}, w.names(func(m *member) bool { return m != l && m.id < "n03" }))
		if err := l.node.VerifyLeader(); err != nil {
			t.Log("the library has learned to count voters:", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if i, err := l.node.CommitIndex(ctx); !fault.Is(err, fault.Unavailable) {
			t.Errorf("index %d, %v: confirmed by non-voters", i, err)
		}
	})
}

// Issues 503, 612 and 614: a leader whose disk hangs goes on to send heartbeats.
func TestALeaderWhoseLogHangsIsReplaced(t *testing.T) {
	simulate(t, 2, 20*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 1)
		w.mustPropose(5)
		old := w.leader()
		oldTerm := old.node.Stats().Term
		hang := make(chan struct{})
		old.mu.Lock()
		old.hang = hang
		old.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if _, err := old.node.Propose(ctx, []byte("into the void")); !errors.Is(err, consensus.ErrUnknownOutcome) {
			t.Fatal("a proposal to a hung log:", err)
		}
		start := time.Now()
		w.until("another leader", time.Minute, func() bool {
			l := w.leader()
			return l != nil && l != old
		})
		// Stall, an election of at most twice the timeout, and some.
		if took := time.Since(start); took > 14*time.Second {
			t.Errorf("%v without a leader", took)
		}
		if !old.node.Stats().Silent {
			t.Error("a hung member is not silent")
		}
		w.mustPropose(5)
		old.mu.Lock()
		old.hang = nil
		old.mu.Unlock()
		close(hang)
		w.until("the old leader follows", time.Minute, func() bool {
			s := old.node.Stats()
			return s.Phase == consensus.Following && s.Term > oldTerm && !s.Silent
		})
		w.converge()
	})
}

// A follower whose disk hangs is lost to its leader, for its heartbeats wait
// for its main loop: a leader that has only such followers steps down.
func TestALeaderWhoseFollowersHangStepsDown(t *testing.T) {
	simulate(t, 3, 20*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 0)
		w.mustPropose(2)
		l := w.leader()
		hang := make(chan struct{})
		for _, m := range w.members {
			if m != l {
				m.mu.Lock()
				m.hang = hang
				m.mu.Unlock()
			}
		}
		go w.propose("stuck", 20*time.Second)
		w.until("it steps down", 20*time.Second, func() bool { return l.node.Stats().Phase != consensus.Leading })
		for _, m := range w.members {
			m.mu.Lock()
			m.hang = nil
			m.mu.Unlock()
		}
		close(hang)
		w.converge()
	})
}

func TestWhatCannotBeAppliedStopsApplyingAndNothingElse(t *testing.T) {
	simulate(t, 4, 10*time.Millisecond, consensus.Settings{Trailing: 5, Threshold: 5, Snapshot: time.Second}, func(w *world) {
		w.found(3, 0)
		l := w.leader()
		l.machine.mu.Lock()
		l.machine.poison = "from the future"
		l.machine.mu.Unlock()
		w.mustPropose(3)
		_, err := w.propose("from the future", 10*time.Second)
		if !errors.Is(err, errPoison) || !errors.Is(err, consensus.ErrUnknownOutcome) {
			t.Fatal("a leader that cannot apply:", err)
		}
		w.until("leadership is given away", 30*time.Second, func() bool {
			o := w.leader()
			return o != nil && o != l
		})
		w.mustPropose(30)
		time.Sleep(20 * time.Second)
		s := l.node.Stats()
		if s.Phase != consensus.Following || !errors.Is(s.Halted, errPoison) {
			t.Fatalf("%+v", s)
		}
		if s.First > s.Applied+1 {
			t.Errorf("the log begins at %d, and %d is applied", s.First, s.Applied)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := l.node.AwaitApplied(ctx, s.Commit); !errors.Is(err, errPoison) {
			t.Error(err)
		}
		// It stores and votes: with one of the others gone there is a majority.
		for _, m := range w.members {
			if m != l && m != w.leader() {
				m.stop()
				break
			}
		}
		w.mustPropose(3)
		// A newer program goes on where it stopped.
		l.stop()
		l.machine.poison = ""
		l.start()
		for _, m := range w.members {
			if !m.up() {
				m.start()
			}
		}
		w.converge()
		if got := string(l.machine.entries()[3].Data); got != "from the future" {
			t.Errorf("entry 3 is %q", got)
		}
	})
}

// rot spoils an entry's row of a member that is stopped.
func (m *member) rot(indexes ...uint64) {
	db, err := pebble.Open("raft", &pebble.Options{FS: m.fs, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		m.w.t.Fatal(err)
	}
	for _, i := range indexes {
		key := []byte{'l', 0, 0, 0, 0, 0, 0, byte(i >> 8), byte(i)}
		v, closer, err := db.Get(key)
		if err != nil {
			m.w.t.Fatal(i, err)
		}
		row := append([]byte(nil), v...)
		closer.Close()
		row[len(row)-5] ^= 1
		if err := db.Set(key, row, pebble.Sync); err != nil {
			m.w.t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		m.w.t.Fatal(err)
	}
}

func TestRottenEntriesAreFetchedBeforeTheMemberTakesPart(t *testing.T) {
	simulate(t, 6, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 0)
		w.mustPropose(30)
		w.converge()
		m := w.members[2]
		if m == w.leader() {
			m = w.members[1]
		}
		m.stop()
		// What was applied was not synced, and is to be applied again.
		m.machine.batches, m.machine.durable = m.machine.batches[:5], 5
		applied := m.machine.Position().Index
		m.rot(2, applied+3, applied+4, applied+9)
		for _, o := range w.members {
			if o != m {
				o.stop()
			}
		}
		m.start()
		time.Sleep(30 * time.Second)
		if s := m.node.Stats(); s.Phase != consensus.Repairing || s.Applied != applied {
			t.Fatalf("nobody has the entries: %+v", s)
		}
		for _, o := range w.members {
			if o != m {
				o.start()
			}
		}
		w.converge()
		if m.bootstraps != 0 || m.fetches < 3 {
			t.Errorf("%d copies, %d fetches", m.bootstraps, m.fetches)
		}
		// What rotted and was applied is reported still, and hurts nobody.
		bad, err := m.log.Check(context.Background(), 1)
		if err != nil || len(bad) != 1 || bad[0].First != 2 {
			t.Error(bad, err)
		}
	})
}

var cutting = consensus.Settings{Trailing: 20, Threshold: 10, Snapshot: time.Second, Retain: time.Second}

func TestWhoLiesBehindTheLogCopiesOnceAndGoesOn(t *testing.T) {
	s := cutting
	s.Trailing = 60 // and snapshots are taken every 10
	simulate(t, 7, 10*time.Millisecond, s, func(w *world) {
		w.found(3, 1)
		m := w.members[3]
		m.stop()
		w.mustPropose(300)
		time.Sleep(5 * time.Second)
		if first := w.leader().node.Stats().First; first < 200 {
			t.Fatalf("the log still begins at %d", first)
		}
		// Entries and snapshots go on while the copy is made. Whoever offers the newest
		// snapshot makes it copy again for ever. The library may take ten more seconds to
		// speak to it again; what it has must be in the log for as long.
		m.copyTakes, m.copyFails = 20*time.Second, 2
		m.start()
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					w.propose(fmt.Sprint("meanwhile ", i), 5*time.Second)
				}
			}
		}()
		time.Sleep(10 * time.Second)
		if s := m.node.Stats(); s.Phase != consensus.Copying {
			t.Errorf("%v while copying", s.Phase)
		}
		w.until("caught up", 5*time.Minute, func() bool {
			return m.node.Applied()+5 >= w.leader().node.Applied()
		})
		close(stop)
		<-ended
		w.converge()
		if m.bootstraps != 3 { // two failed
			t.Errorf("%d copies", m.bootstraps)
		}
	})
}

// A newcomer goes through a short log, and copies what a long one leads to: once, also
// when it crashes on the way.
func TestANewcomerCopiesWhatALongLogLeadsTo(t *testing.T) {
	for _, test := range []struct {
		name    string
		entries int
		crash   bool
		copies  bool
	}{
		{"a short log", 900, false, false},
		{"a long log", 1100, false, true},
		{"a long log and a crash", 1100, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			simulate(t, 21, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
				w.found(2, 0)
				w.mustPropose(test.entries)
				m := w.add("n09")
				m.copyTakes = 3 * time.Second
				m.start()
				if err := w.leader().node.AddNonvoter(context.Background(), m.id, m.id); err != nil {
					t.Fatal(err)
				}
				if test.crash {
					time.Sleep(2 * time.Second)
					m.crash()
					m.used = false // its state machine is empty, as is its log
					m.start()
				}
				w.converge()
				if first := m.node.Stats().First; (m.bootstraps > 0) != test.copies || (first == 1) == test.copies {
					t.Errorf("%d copies, the log begins at %d", m.bootstraps, first)
				}
			})
		})
	}
}

// A crash at any moment of a copy leaves a member that starts again.
func TestACrashDuringACopy(t *testing.T) {
	for after := range 12 {
		simulate(t, uint64(after), 10*time.Millisecond, cutting, func(w *world) {
			w.found(3, 0)
			m := w.members[2]
			if m == w.leader() {
				m = w.members[1]
			}
			w.mustPropose(20)
			m.crash()
			w.mustPropose(200)
			time.Sleep(5 * time.Second)
			m.copyTakes = time.Second
			m.start()
			time.Sleep(time.Duration(after) * 250 * time.Millisecond)
			m.crash()
			w.mustPropose(1)
			m.start()
			w.converge()
		})
	}
}

// The copy is durable and the log that it replaces is still there.
func TestACrashBetweenTheCopyAndTheCut(t *testing.T) {
	simulate(t, 13, 10*time.Millisecond, cutting, func(w *world) {
		w.found(3, 1)
		w.converge()
		m := w.members[3]
		m.stop()
		behind := m.machine.Position().Index
		w.mustPropose(300)
		time.Sleep(5 * time.Second)
		l := w.leader()
		l.machine.mu.Lock()
		m.machine.batches = append([]toyBatch(nil), l.machine.batches...)
		l.machine.mu.Unlock()
		m.machine.durable = len(m.machine.batches)
		m.start()
		w.converge()
		if first, _ := m.log.Bounds(); first <= behind || m.bootstraps != 0 {
			t.Errorf("the log begins at %d, and ended at %d; %d copies", first, behind, m.bootstraps)
		}
	})
}

// Two of three have an entry, the one of them that is left has lost its state machine,
// and copies that of the third, which lacks the entry: it is still in the log of the
// one, which elects nobody without it.
func TestACopyKeepsWhatTheLogHasAcknowledged(t *testing.T) {
	simulate(t, 14, 10*time.Millisecond, cutting, func(w *world) {
		w.found(3, 0)
		w.mustPropose(100)
		w.converge()
		time.Sleep(5 * time.Second)
		a := w.leader()
		others := slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool { return m == a })
		b, x := others[0], others[1]
		if x.node.Stats().First < 2 {
			t.Fatal("the log was never cut")
		}
		w.acknowledge(a, b, x)
		for _, m := range w.members { // and whatever is on its way to b
			m.stop()
		}
		w.net.heal()
		x.machine = &toy{}
		b.start()
		x.start()
		w.awaitLeader()
		a.start()
		w.converge()
		if x.bootstraps != 1 || x.releases != 0 {
			t.Errorf("%d copies, released %d times", x.bootstraps, x.releases)
		}
		for _, m := range w.members {
			if !slices.ContainsFunc(m.machine.entries(), func(e replication.Entry) bool { return string(e.Data) == "acknowledged" }) {
				t.Errorf("%s lacks what was acknowledged", m.id)
			}
		}
	})
}

func TestTheLogIsCutOnlyBehindWhatIsSynced(t *testing.T) {
	simulate(t, 8, 10*time.Millisecond, cutting, func(w *world) {
		w.found(1, 0)
		l := w.leader()
		for range 20 {
			w.mustPropose(20)
			time.Sleep(time.Second)
			first, _ := l.log.Bounds()
			l.machine.mu.Lock()
			durable := uint64(0)
			if l.machine.durable > 0 {
				durable = l.machine.batches[l.machine.durable-1].at.Index
			}
			l.machine.mu.Unlock()
			if first > durable+1 {
				t.Fatalf("the log begins at %d, %d is durable", first, durable)
			}
		}
		if first, _ := l.log.Bounds(); first < 300 {
			t.Errorf("the log begins at %d: it was not cut", first)
		}
	})
}

func TestYoungEntriesAreKept(t *testing.T) {
	s := cutting
	s.Retain = 3 * time.Hour
	simulate(t, 9, 10*time.Millisecond, s, func(w *world) {
		w.found(1, 0)
		for range 10 {
			w.mustPropose(30)
			time.Sleep(time.Hour)
		}
		first, last := w.leader().log.Bounds()
		if kept := last - first + 1; kept < 89 || kept > 125 {
			t.Errorf("%d entries are kept of 30 an hour, over 3 hours", kept)
		}
	})
}

func TestMembershipIsChangedByLeaders(t *testing.T) {
	simulate(t, 10, 10*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(3, 1)
		w.converge()
		ctx := context.Background()
		l := w.leader()
		other := w.members[3]
		if err := other.node.AddNonvoter(ctx, "x", "x"); !fault.Is(err, fault.Unavailable) {
			t.Error("a change at a follower:", err)
		}
		if err := l.node.LeadershipTransfer(ctx, other.id); !fault.Is(err, fault.NotFound) {
			t.Error("leadership for a non-voter:", err)
		}
		if err := other.node.LeadershipTransfer(ctx, l.id); !fault.Is(err, fault.Unavailable) {
			t.Error("a transfer by a follower:", err)
		}
		if err := l.node.AddVoter(ctx, other.id, other.id); err != nil {
			t.Fatal(err)
		}
		changes, cancel := other.node.Subscribe()
		defer cancel()
		<-changes
		if err := l.node.LeadershipTransfer(ctx, other.id); err != nil {
			t.Fatal(err)
		}
		w.awaitLeader()
		if w.leader() != other {
			t.Fatal("leadership went elsewhere")
		}
		if s := <-changes; s.Leader != other.id && s.Phase != consensus.Leading && s.Phase != consensus.Candidate {
			t.Errorf("subscribers heard %+v", s)
		}
		if err := errors.Join(other.node.Demote(ctx, l.id), other.node.Remove(ctx, w.members[1].id)); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range other.node.Members() {
			got += fmt.Sprintf(" %s/%d", m.ID, m.Suffrage)
		}
		if want := " n00/1 n02/0 n03/0"; l.id == "n00" && got != want {
			t.Errorf("members%s, want%s", got, want)
		}
		w.members[1].stop()
		w.mustPropose(1)
		p := other.machine.Position()
		if len(p.Members) != 3 || p.MembersIndex == 0 {
			t.Errorf("the state machine knows %+v", p)
		}
		if err := other.node.AddNonvoter(ctx, "", "x"); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	})
}

func TestLimitsOfProposals(t *testing.T) {
	simulate(t, 11, time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(1, 0)
		l := w.leader()
		ctx := context.Background()
		for _, n := range []int{0, raftlog.MaxEntryBytes + 1} {
			if _, err := l.node.Propose(ctx, make([]byte, n)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		index, err := l.node.Propose(ctx, make([]byte, raftlog.MaxEntryBytes))
		if err != nil {
			t.Fatal(err)
		}
		if logs, err := l.node.Committed(index, index+5); err != nil || len(logs) != 1 || logs[0].Index != index {
			t.Errorf("%v, %v", logs, err)
		}
		if _, err := l.node.Committed(index+1, index+5); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
		const more = consensus.MaxCommittedBytes/raftlog.MaxEntryBytes + 3
		for range more {
			if _, err := l.node.Propose(ctx, make([]byte, raftlog.MaxEntryBytes)); err != nil {
				t.Fatal(err)
			}
		}
		if logs, err := l.node.Committed(index, index+more); err != nil || len(logs) != consensus.MaxCommittedBytes/raftlog.MaxEntryBytes {
			t.Errorf("%d long entries at once, %v", len(logs), err)
		}
		index += more
		if _, err := l.node.Committed(5, 4); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		if err := l.node.Barrier(ctx); err != nil {
			t.Error(err)
		}
		if err := l.node.AwaitApplied(ctx, index+1); err != nil { // the barrier's own
			t.Error(err)
		}
		late, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := l.node.AwaitApplied(late, index+100); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
		if err := l.node.Found(); !fault.Is(err, fault.Conflict) {
			t.Error("founded twice:", err)
		}
		l.stop()
		if _, err := l.node.Propose(ctx, []byte("x")); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := raftlog.Open(raftlog.Options{FS: vfs.NewMem(), Dir: "raft"})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		good := consensus.Options{ID: "a", Address: "a", Transport: &heard{}, Log: log, Machine: &toy{}, Peers: &member{}}
		for name, change := range map[string]func(*consensus.Options){
			"no id":                func(o *consensus.Options) { o.ID = "" },
			"a long address":       func(o *consensus.Options) { o.Address = string(make([]byte, 1000)) },
			"no transport":         func(o *consensus.Options) { o.Transport = nil },
			"no log":               func(o *consensus.Options) { o.Log = nil },
			"no machine":           func(o *consensus.Options) { o.Machine = nil },
			"no peers":             func(o *consensus.Options) { o.Peers = nil },
			"a lease too long":     func(o *consensus.Options) { o.Settings.Lease = time.Minute },
			"an election too fast": func(o *consensus.Options) { o.Settings.Election = time.Millisecond },
		} {
			o := good
			change(&o)
			if _, err := consensus.New(o); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := consensus.New(good); err != nil {
			t.Error(err)
		}
	})
}
