package sites

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pelago/chaos/check"
	"pelago/replication"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

const (
	delay = 40 * time.Millisecond // one way, between any two sites
	// What is measured lasts: a node compares itself with others every ten seconds
	// or so, and asks how far the log is every five.
	measured = 20 * time.Second
	voters   = 7 // of six sites and more
	// early is how soon another leader must be found by those who are more.
	early = 20 * time.Second
)

// cpu is what this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Fifty sites, 80 ms apart, elect and replicate what each of them stores; lose a
// third of their number, with the leader, to a partition in which both sides go on
// storing; and agree on all of it when it has healed. No answer meanwhile lacked
// what it claimed to have. What it costs a node is recorded.
func TestFiftySites(t *testing.T) {
	sites := 50
	if testing.Short() {
		sites = 12
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.grow(sites)
		w.measure("idle", func() { time.Sleep(measured) })
		w.measure("load", func() { w.flow(measured) })
		w.partition(sites / 3)
		w.agree()
	})
}

// grow founds a network of n sites.
func (w *world) grow(n int) {
	w.t.Helper()
	founder := w.add(delay)
	if err := founder.group.Found(); err != nil {
		w.t.Fatal(err)
	}
	founder.run()
	w.decide(founder, founder.record(true))
	var commands []catalog.Command
	for range n - 1 {
		s := w.add(delay)
		s.run()
		commands = append(commands, s.record(false))
	}
	w.decide(founder, commands...)
	took := w.until(fmt.Sprintf("%d members, %d voters", n, voters), 10*time.Minute, func() bool {
		for _, s := range w.sites {
			if v, all := s.votes(); v != voters || all != n {
				return false
			}
		}
		return leader(w.sites) != nil
	})
	w.t.Logf("%d sites, %d voters, after %v", n, voters, took)
}

func (w *world) decide(s *site, commands ...catalog.Command) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results, err := s.group.Decide(ctx, nil, commands...)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, err := range results {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// measure records what a node uses a second while something goes on: CPU of this
// process, shared out evenly, and what it sends.
func (w *world) measure(what string, do func()) {
	w.t.Helper()
	before := w.sent()
	used, start := cpu(w.t), time.Now()
	do()
	used, took := cpu(w.t)-used, time.Since(start).Seconds()
	var all, leads int64
	l := leader(w.sites)
	for ip, n := range w.sent() {
		all += n - before[ip]
		if l != nil && ip == l.ip {
			leads = n - before[ip]
		}
	}
	others := float64(all-leads) / float64(len(w.sites)-1)
	record := func(name, format string, value float64) {
		w.t.Attr(what+"-"+name, fmt.Sprintf(format, value))
	}
	record("cpu-ms", "%.2f", used.Seconds()*1000/took/float64(len(w.sites)))
	record("leader-kB", "%.1f", float64(leads)/1000/took)
	record("others-kB", "%.2f", others/1000/took)
}

func (w *world) sent() map[string]int64 {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	sent := map[string]int64{}
	for ip, n := range w.traffic.sent {
		sent[ip] = n
	}
	return sent
}

// flow has every site take in an image a second, of a study that changes every
// twelve seconds, and looks at some of them.
func (w *world) flow(d time.Duration) {
	w.t.Helper()
	for start := time.Now(); time.Since(start) < d; time.Sleep(time.Second) {
		patient := uint64(time.Now().Unix() / 12)
		for i, s := range w.sites {
			w.store(s, catalogtest.Make(uint64(i), patient))
		}
		for i := range 3 {
			w.look(w.sites[(int(time.Now().Unix())*7+i*len(w.sites)/3)%len(w.sites)])
		}
	}
}

// partition cuts so many sites off, the leader among them, and heals them again.
func (w *world) partition(lost int) {
	w.t.Helper()
	old := leader(w.sites)
	if old == nil {
		w.t.Fatal("nobody leads")
	}
	votes := map[string]bool{}
	for _, m := range old.group.Members() {
		votes[m.ID] = m.Suffrage == replication.Voter
	}
	// The leader and the others of a minority of the voters, and who has no vote.
	few, left := []*site{old}, (voters-1)/2-1
	for _, s := range w.sites {
		if s == old || len(few) == lost || votes[s.id()] && left == 0 {
			continue
		}
		if votes[s.id()] {
			left--
		}
		few = append(few, s)
	}
	many := slices.DeleteFunc(slices.Clone(w.sites), func(s *site) bool { return slices.Contains(few, s) })
	w.cluster.Part(ips(few), ips(many))
	took := w.until("another leader", time.Minute, func() bool { l := leader(many); return l != nil && l != old })
	w.t.Logf("%d sites are cut off with the leader: another leads after %v", len(few), took)
	w.t.Attr("elected-s", fmt.Sprintf("%.1f", took.Seconds()))
	if took > early {
		w.t.Errorf("another leads after %v only", took)
	}
	w.flow(measured)
	for _, s := range few {
		if d, known := s.group.Staleness(); known && d < measured {
			w.t.Errorf("%s is cut off for %v and says that it is %v old", s.name, measured, d)
		}
		if s.journal.Pending() == 0 {
			w.t.Errorf("%s is cut off and has nothing to tell", s.name)
		}
	}
	w.cluster.Join(ips(few), ips(many))
}

func ips(of []*site) []string {
	var all []string
	for _, s := range of {
		all = append(all, s.ip)
	}
	return all
}

// agree waits until everything is known everywhere, and judges the history.
func (w *world) agree() {
	w.t.Helper()
	instances, studies := 0, 0
	for _, s := range w.sites {
		i, n := s.archive.total()
		instances, studies = instances+i, studies+n
	}
	took := w.until("everybody knows everything", 5*time.Minute, func() bool {
		hashes := map[[32]byte]bool{}
		for _, s := range w.sites {
			hash, _ := s.catalog.StateHash()
			hashes[hash] = true
			totals := s.catalog.Totals()
			if s.journal.Pending() > 0 || totals.Instances != uint64(instances) || totals.Studies != uint64(studies) {
				return false
			}
		}
		return len(hashes) == 1
	})
	w.t.Attr("agreed-s", fmt.Sprintf("%.1f", took.Seconds()))
	journals := check.Journals{Settled: true}
	for _, s := range w.sites {
		w.look(s)
		if st := s.journal.Status(); st.Incarnation != 1 || st.Refused != nil || s.journal.Rejected() != 0 || s.group.Fenced() != nil {
			w.t.Errorf("%s: %+v, %d rejected, fenced: %v", s.name, st, s.journal.Rejected(), s.group.Fenced())
		}
		applied := check.Applied{Node: check.Node(s.name), After: map[check.Journal]uint64{}}
		for _, o := range w.sites {
			at, _, err := s.catalog.Cursor(o.id())
			if err != nil {
				w.t.Fatal(err)
			}
			j := check.Journal{Node: check.Node(o.name), Incarnation: at.Incarnation}
			applied.After[j] = at.Number
			if o == s {
				journals.Logged = append(journals.Logged, check.Record{Journal: j, Number: s.journal.Status().Logged, Hash: at.Hash})
			}
		}
		journals.Applied = append(journals.Applied, applied)
	}
	w.t.Logf("%d instances of %d studies; %d states and %d answers were looked at, of %d facts",
		instances, studies, len(w.states), len(w.fresh.Answers), len(w.fresh.Facts))
	for _, v := range slices.Concat(w.states.Check(), w.fresh.Check(), journals.Check()) {
		w.t.Error(v)
	}
}
