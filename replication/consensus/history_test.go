package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"pelago/replication/consensus"
	"pelago/replication/freshness"
)

// ledger is what clients were told, and when.
type ledger struct {
	mu      sync.Mutex
	acked   map[string]uint64
	maybe   map[string]bool
	when    []ackedAt // ascending
	refused int
}

type ackedAt struct {
	at    time.Time
	index uint64
}

// client proposes under names of its own until stopped. What has an unknown
// outcome is not proposed again.
func (l *ledger) client(w *world, name string, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(70 * time.Millisecond):
		}
		data := fmt.Sprintf("%s-%d", name, i)
		index, err := w.propose(data, 20*time.Second)
		l.mu.Lock()
		switch {
		case err == nil:
			l.acked[data] = index
			l.when = append(l.when, ackedAt{time.Now(), index})
		case errors.Is(err, consensus.ErrUnknownOutcome):
			l.maybe[data] = true
		default:
			l.refused++
		}
		l.mu.Unlock()
	}
}

// probe asks the leader for its commit index on behalf of one member, and
// checks that what the member says of its staleness is true.
func (l *ledger) probe(w *world, m *member, stop <-chan struct{}) (checks int) {
	var f freshness.Tracker
	for {
		select {
		case <-stop:
			return checks
		case <-time.After(300 * time.Millisecond):
		}
		w.mu.Lock()
		node, up := m.node, m.up()
		leader, known := (*consensus.Node)(nil), ""
		if up {
			known, _ = node.Leader()
		}
		for _, o := range w.members {
			if o.id == known && o.up() {
				leader = o.node // by name: it may lead no more
			}
		}
		w.mu.Unlock()
		if !up {
			f.Reset()
			continue
		}
		if leader != nil {
			sent := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			if commit, err := leader.CommitIndex(ctx); err == nil {
				f.Answered(sent, commit)
			}
			cancel()
		}
		w.mu.Lock()
		if m.node == node && m.up() {
			applied := node.Applied()
			f.Applied(applied)
			if s, ok := f.Staleness(time.Now()); ok {
				checks++
				l.check(w, m, applied, time.Now().Add(-s))
			}
		} else {
			f.Reset()
		}
		w.mu.Unlock()
	}
}

// check fails if anything acknowledged before asOf is not applied.
func (l *ledger) check(w *world, m *member, applied uint64, asOf time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.when) - 1; i >= 0; i-- {
		if a := l.when[i]; a.at.Before(asOf) && a.index > applied {
			w.t.Errorf("%s has applied %d and says that it knows all until %v ago; %d was acknowledged %v ago",
				m.id, applied, time.Since(asOf), a.index, time.Since(a.at))
			return
		}
	}
}

// judge compares what was acknowledged with what every member has applied.
func (l *ledger) judge(w *world) {
	w.t.Helper()
	for _, m := range w.members {
		seen := map[string]uint64{}
		for _, e := range m.machine.entries() {
			if at, twice := seen[string(e.Data)]; twice {
				w.t.Fatalf("%s applied %s at %d and at %d", m.id, e.Data, at, e.Index)
			}
			seen[string(e.Data)] = e.Index
		}
		for data, index := range l.acked {
			if seen[data] != index {
				w.t.Fatalf("%s: %s was acknowledged at %d and is at %d", m.id, data, index, seen[data])
			}
		}
	}
}

// trouble does one bad thing, or heals.
func (w *world) trouble() string {
	pick := func() *member { return w.members[w.random.IntN(len(w.members))] }
	switch w.random.IntN(8) {
	case 0: // a split, anywhere
		var a, b []string
		for _, m := range w.members {
			if w.random.IntN(2) == 0 {
				a = append(a, m.id)
			} else {
				b = append(b, m.id)
			}
		}
		w.net.split(a, b)
		return fmt.Sprint("split ", a)
	case 1: // the leader alone
		if l := w.leader(); l != nil {
			w.net.split([]string{l.id}, w.names(func(m *member) bool { return m != l }))
			return "leader alone"
		}
	case 2: // one way
		a, b := pick(), pick()
		w.net.cut(a.id, b.id)
		return "one way"
	case 3: // the leader is heard and hears nothing, or the other way round
		if l := w.leader(); l != nil {
			out := w.random.IntN(2) == 0
			for _, m := range w.members {
				if m != l && out {
					w.net.cut(l.id, m.id)
				} else if m != l {
					w.net.cut(m.id, l.id)
				}
			}
			return "leader deaf or dumb"
		}
	case 4, 5:
		m := pick()
		if w.random.IntN(2) == 0 {
			if l := w.leader(); l != nil {
				m = l
			}
		}
		if m.up() {
			m.crash()
		} else {
			m.start()
		}
		return "crash or start " + m.id
	case 6:
		if l := w.leader(); l != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			l.node.LeadershipTransfer(ctx, "")
			return "transfer"
		}
	}
	w.net.heal()
	return "heal"
}

func seeds(t *testing.T) uint64 {
	if s := os.Getenv("PELAGO_CRASH_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return 1
	}
	return 4
}

// Partitions, one-way cuts, crashes and restarts at random: nothing that was
// acknowledged is lost, nothing is applied twice, equal indexes mean equal
// states, and nobody understates how stale it is.
func TestCrashesAndPartitionsLoseNothingThatWasAcknowledged(t *testing.T) {
	for seed := range seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := consensus.Settings{Trailing: 50, Threshold: 40, Snapshot: 5 * time.Second}
			simulate(t, seed, 30*time.Millisecond, s, func(w *world) {
				w.found(5, 2)
				l := &ledger{acked: map[string]uint64{}, maybe: map[string]bool{}}
				stop := make(chan struct{})
				var clients, probes sync.WaitGroup
				for i := range 3 {
					clients.Go(func() { l.client(w, fmt.Sprint("c", i), stop) })
				}
				checks := 0
				for _, m := range w.members {
					probes.Go(func() {
						n := l.probe(w, m, stop)
						w.mu.Lock()
						checks += n
						w.mu.Unlock()
					})
				}
				for range 25 {
					time.Sleep(time.Duration(w.random.IntN(12000)) * time.Millisecond)
					w.mu.Lock()
					what := w.trouble()
					w.mu.Unlock()
					t.Log(time.Now().Format("15:04:05"), what)
				}
				close(stop)
				clients.Wait()
				probes.Wait()
				w.net.heal()
				for _, m := range w.members {
					if !m.up() {
						m.start()
					}
				}
				w.converge()
				l.judge(w)
				boots := 0
				for _, m := range w.members {
					boots += m.bootstraps
				}
				t.Logf("%d acknowledged, %d unknown, %d refused, %d checks of staleness, %d copies", len(l.acked), len(l.maybe), l.refused, checks, boots)
				if len(l.acked) < 100 || checks < 300 {
					t.Error("too little happened")
				}
			})
		})
	}
}
