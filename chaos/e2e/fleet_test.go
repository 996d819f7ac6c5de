package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pelago/chaos/check"
	"pelago/chaos/fleet"
	wan "pelago/chaos/world"
	"pelago/replication/catalog"
)

// network is real nodes at sites with a world between them, and what was seen of
// them.
type network struct {
	t      *testing.T
	fleet  *fleet.Fleet
	nodes  []*site
	chance *rand.Rand
	sent   ledger
	seen   history
	seed   uint64 // of the next study
}

// site is a node of a network, at a site of its own.
type site struct {
	*node
	name    wan.Site
	id      string
	watched func() // ends looking at it; nil: nobody looks
}

// found starts a network of so many sites, and looks at all of them from then on.
func found(t *testing.T, sites int, link wan.Link, seed uint64) *network {
	t.Helper()
	dir := t.TempDir()
	names := make([]wan.Site, sites)
	for i := range names {
		names[i] = wan.Site(fmt.Sprint("Site", i+1))
	}
	f, err := fleet.Start(t.Context(), fleet.Options{
		Binary: pelagoBinary, Dir: dir, Sites: names, World: wan.Options{Link: link, Seed: seed},
		Env: []string{
			"XDG_CACHE_HOME=" + filepath.Join(dir, "cache"), "PELAGO_STORE_AHEAD=0",
			// Some of what is stored is packed when trouble comes, and some is not.
			"PELAGO_STORE_QUIET=500ms", "PELAGO_STORE_GATHER=1s", "PELAGO_STORE_TABLE_SIZE=1MiB",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &network{
		t: t, fleet: f, chance: rand.New(rand.NewPCG(seed, 2)), seed: seed % 100_000 * 10_000, // short enough for an AE title
		sent: ledger{sent: map[string]instance{}, acknowledged: map[string]bool{}},
		seen: history{owners: map[string]wan.Site{}, known: map[string]uint64{}},
	}
	for _, n := range f.Nodes {
		w.nodes = append(w.nodes, &site{node: &node{Node: n.Node, t: t}, name: n.Site})
	}
	t.Cleanup(w.end)
	for _, s := range w.nodes {
		s.id = s.status().Node
		s.watch(&w.seen)
	}
	return w
}

// end ends what still runs.
func (w *network) end() {
	for _, s := range w.nodes {
		s.unwatch()
		if err := s.Kill(); err != nil {
			w.t.Error(err)
		}
		if w.t.Failed() {
			w.t.Logf("%s (%s) said:\n%s", s.name, s.id, tail(s.Log(), 25))
		}
	}
	if err := w.fleet.Close(); err != nil {
		w.t.Error(err)
	}
	if n := w.fleet.World.Strangers(); n > 0 {
		w.t.Logf("%d connections were turned away: of killed nodes", n)
	}
}

// leader is the node that those who can be asked say leads.
func (w *network) leader() (leads *site) {
	w.t.Helper()
	until(w.t, "somebody leads", func() bool {
		said := map[string]int{}
		for _, s := range w.nodes {
			said[s.status().Leader]++
		}
		for _, s := range w.nodes {
			if said[s.id] > len(w.nodes)/2 {
				leads = s
			}
		}
		return leads != nil
	})
	return leads
}

// voters waits until so many sites vote.
func (w *network) voters(want int) {
	w.t.Helper()
	until(w.t, fmt.Sprint(want, " sites vote"), func() bool {
		for _, s := range w.nodes {
			votes := 0
			for _, m := range s.members() {
				if m.Voter {
					votes++
				}
			}
			if votes != want {
				return false
			}
		}
		return true
	})
}

// some are so many sites by chance.
func (w *network) some(n int) []*site {
	var all []*site
	for _, i := range w.chance.Perm(len(w.nodes))[:n] {
		all = append(all, w.nodes[i])
	}
	return all
}

// others are the sites that are none of those.
func (w *network) others(than ...*site) []*site {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(s *site) bool { return slices.Contains(than, s) })
}

func names(all []*site) []wan.Site {
	var list []wan.Site
	for _, s := range all {
		list = append(list, s.name)
	}
	return list
}

// part parts groups from each other.
func (w *network) part(how wan.Cut, groups ...[]*site) {
	w.t.Helper()
	var parts [][]wan.Site
	for _, g := range groups {
		parts = append(parts, names(g))
	}
	if err := w.fleet.World.Part(how, parts...); err != nil {
		w.t.Fatal(err)
	}
}

// modality stores images of one study at a site, one after the other, and sends
// again what it got no answer for.
type modality struct {
	sender
	at   *site
	mu   sync.Mutex
	errs []error
	acks int
}

// count returns how many images were acknowledged so far.
func (m *modality) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acks
}

// store stores until it is told to stop. An image that was begun is ended, unless
// the node goes away.
func (m *modality) store(ctx context.Context, stop <-chan struct{}) {
	store, end, err := m.connect(ctx)
	if err != nil {
		m.failed(err)
		return
	}
	defer end()
	for number := 0; ; number++ {
		select {
		case <-stop:
			return
		case <-time.After(80 * time.Millisecond): // as a scanner that makes an image now and then
		}
		in := m.next(number)
		m.ledger.send(in)
		if err := store(ctx, in); err != nil {
			m.last = &in
			m.failed(err)
			return
		}
		m.ledger.acknowledge(in)
		m.mu.Lock()
		m.acks++
		m.mu.Unlock()
	}
}

func (m *modality) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs = append(m.errs, err)
}

// during has a modality store at every site while something happens. At sites that
// nothing was done to but to the network between them, each image must be taken in,
// and in due time: harmed are the others, whose modalities send again what they got
// no answer for once all is over.
func (w *network) during(what string, happens func() (harmed []*site)) {
	w.t.Helper()
	began := time.Now()
	all := make([]*modality, len(w.nodes))
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i, s := range w.nodes {
		w.seed++
		all[i] = &modality{at: s, sender: sender{n: s.node, ledger: &w.sent, seed: w.seed, stow: w.seed%4 == 3}}
		w.seen.owned(all[i].next(0).study, s.name)
		group.Go(func() { all[i].store(w.t.Context(), stop) })
	}
	harmed := happens()
	close(stop)
	group.Wait()
	acks := map[wan.Site]int{}
	for _, m := range all {
		acks[m.at.name] = m.count()
		if slices.Contains(harmed, m.at) {
			m.again()
			continue
		}
		for _, err := range m.errs {
			w.t.Errorf("%s: C-STORE at %s: %v", what, m.at.name, err)
		}
		if m.count() < 3 {
			w.t.Errorf("%s: only %d images were taken in at %s", what, m.count(), m.at.name)
		}
	}
	w.t.Logf("%s: %v, harmed %v, stored %v", what, time.Since(began).Round(time.Millisecond), names(harmed), acks)
}

// settled waits until the network is whole: everybody knows everything and has
// nothing to tell, and nothing changes any more.
func (w *network) settled() {
	w.t.Helper()
	began := time.Now()
	want := uint64(len(w.sent.sent))
	until(w.t, fmt.Sprintf("%d instances are known at all sites, and agreed on", want), func() bool {
		hashes := map[string]bool{}
		for _, s := range w.nodes {
			is := s.status()
			if is.Instances != want || is.PendingJournal > 0 {
				return false
			}
			hashes[is.StateHash] = true
		}
		return len(hashes) == 1
	})
	w.t.Logf("%d instances known everywhere %v after healing", want, time.Since(began).Round(time.Millisecond))
}

// verify checks that every site returns every instance once and unchanged, however
// it came to know of it, and what was seen meanwhile.
func (w *network) verify() {
	w.t.Helper()
	all := slices.Collect(maps.Values(w.sent.sent))
	counts := map[string]uint64{}
	h := check.Instances{}
	for _, in := range all {
		counts[in.study]++
		h.Stores = append(h.Stores, check.Store{UID: in.sop, Hash: check.Hash(in.hash), Acknowledged: w.sent.acknowledged[in.sop]})
	}
	for _, s := range w.nodes {
		s.unwatch()
		answer, err := s.find(w.t.Context())
		if err != nil {
			w.t.Fatalf("%s: %v", s.name, err)
		}
		if !maps.Equal(answer.Versions, counts) || answer.studies != len(counts) {
			w.t.Errorf("%s finds %d studies, %v\nwant %d, %v", s.name, answer.studies, answer.Versions, len(counts), counts)
		}
		got := s.cget(all)
		if len(got.more) > 0 {
			w.t.Errorf("%s returned %d instances twice", s.name, len(got.more))
		}
		r := check.Returned{Node: check.Node(s.name), Instances: map[string]check.Hash{}}
		for uid, one := range got.seen {
			r.Instances[uid] = check.Hash(one.hash)
		}
		h.Returned = append(h.Returned, r)
		if is := s.status(); is.Quarantined != 0 || is.RejectedFacts != 0 {
			w.t.Errorf("%s: %d in quarantine, %d facts rejected", s.name, is.Quarantined, is.RejectedFacts)
		}
	}
	w.accuse(h.Check())
	violations, states, answers, facts := w.seen.check()
	w.accuse(violations)
	w.t.Logf("%d states and %d answers were seen, of %d facts", states, answers, facts)
	if states == 0 || answers == 0 || facts == 0 {
		w.t.Error("nothing was seen")
	}
}

// accuse fails the test by the first violations.
func (w *network) accuse(all []check.Violation) {
	w.t.Helper()
	for _, v := range all[:min(len(all), 10)] {
		w.t.Error(v)
	}
	if len(all) > 10 {
		w.t.Errorf("and %d more", len(all)-10)
	}
}

// journals stops all nodes and reads their catalogues: each must have come as far
// in each journal as the node whose it is, in the incarnation that it began with,
// as no node has lost anything, and their records must be the same.
func (w *network) journals() {
	w.t.Helper()
	h := check.Journals{Settled: true}
	hashes := map[[32]byte][]wan.Site{}
	var stops sync.WaitGroup // at once: one that is left over waits a while for the others
	for _, s := range w.nodes {
		stops.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), stopTime)
			defer cancel()
			if err := s.Stop(ctx); err != nil {
				w.t.Errorf("%s: %v", s.name, err)
			}
		})
	}
	stops.Wait()
	for _, s := range w.nodes {
		c, err := catalog.Open(catalog.Options{Dir: filepath.Join(s.Data(), "catalog")})
		if err != nil {
			w.t.Fatal(err)
		}
		hash, _ := c.StateHash()
		hashes[hash] = append(hashes[hash], s.name)
		applied := check.Applied{Node: check.Node(s.name), After: map[check.Journal]uint64{}}
		for _, o := range w.nodes {
			at, _, err := c.Cursor(o.id)
			if err != nil {
				w.t.Fatal(err)
			}
			if at.Incarnation != 1 {
				w.t.Errorf("%s knows incarnation %d of %s", s.name, at.Incarnation, o.name)
			}
			j := check.Journal{Node: check.Node(o.name), Incarnation: at.Incarnation}
			applied.After[j] = at.Number
			if o == s { // all that it has logged is committed, as its journal is drained
				h.Logged = append(h.Logged, check.Record{Journal: j, Number: at.Number, Hash: at.Hash})
			}
		}
		h.Applied = append(h.Applied, applied)
		if err := c.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.accuse(h.Check())
	if len(hashes) != 1 {
		w.t.Errorf("the catalogues differ: %v", hashes)
	}
}
