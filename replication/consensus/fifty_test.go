package consensus_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"pelago/replication/consensus"
)

func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Fifty sites, seven of which vote, with round trips of 80 ms: they elect,
// replicate, lose a third of the sites with the leader among them, go on, and
// agree when those come back. What it costs is logged.
func TestFiftySites(t *testing.T) {
	simulate(t, 50, 40*time.Millisecond, consensus.Settings{}, func(w *world) {
		w.found(7, 43)
		w.converge()
		cost := func(what string, d time.Duration, do func()) (leaderSends float64) {
			before, sent := cpu(t), map[string]int64{}
			w.net.mu.Lock()
			for k, v := range w.net.sent {
				sent[k] = v
			}
			w.net.mu.Unlock()
			l := w.leader()
			start := time.Now()
			do()
			time.Sleep(max(0, d-time.Since(start)))
			took := time.Since(start).Seconds()
			var total, leader int64
			w.net.mu.Lock()
			for k, v := range w.net.sent {
				total += v - sent[k]
				if l != nil && k == l.id {
					leader = v - sent[k]
				}
			}
			w.net.mu.Unlock()
			others := float64(total-leader) / float64(len(w.members)-1)
			t.Logf("%s: CPU %.2f ms a node and virtual second; leader sends %.1f kB/s, others %.2f kB/s each",
				what, float64((cpu(t)-before).Microseconds())/1000/took/float64(len(w.members)), float64(leader)/1000/took, others/1000/took)
			return float64(leader) / took
		}
		// Two heartbeats, and once what it knows.
		if sends := cost("idle", 30*time.Second, func() {}) / 49; sends > 400 {
			t.Errorf("an idle leader sends %.0f B/s to each other", sends)
		}
		cost("5 entries of 600 bytes a second", 30*time.Second, func() {
			for i := range 150 {
				if _, err := w.propose(fmt.Sprintf("%-600d", i), 10*time.Second); err != nil {
					t.Fatal(err)
				}
				time.Sleep(110 * time.Millisecond)
			}
		})
		old := w.leader()
		var lost []string
		for _, m := range w.members { // three of seven voters, and thirteen others
			if m == old || len(lost) < 16 && (m.id > "n06" || len(lost) < 2) {
				lost = append(lost, m.id)
			}
		}
		w.net.split(lost, w.names(func(m *member) bool {
			for _, id := range lost {
				if id == m.id {
					return false
				}
			}
			return true
		}))
		start := time.Now()
		w.until("another leader", time.Minute, func() bool { l := w.leader(); return l != nil && l != old })
		t.Logf("%d sites lost with the leader: another after %v", len(lost), time.Since(start))
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("%v without a leader", took)
		}
		w.mustPropose(20)
		w.net.heal()
		w.converge()
		entries := w.leader().machine.entries()
		if len(entries) != 1+150+20+1 {
			t.Errorf("%d entries", len(entries))
		}
	})
}
