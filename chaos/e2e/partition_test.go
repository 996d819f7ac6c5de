package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	wan "pelago/chaos/world"
)

// trouble is something that happens to a network while all its sites store. It
// begins and, before it returns, ends; harmed are the sites whose own processes
// were hurt: at all others C-STORE goes on.
type trouble struct {
	name string
	do   func(w *network, lasts time.Duration) (harmed []*site)
}

// cut is a trouble of the lines between sites only, which then are healed.
func cut(name string, do func(w *network)) trouble {
	return trouble{name, func(w *network, lasts time.Duration) []*site {
		do(w)
		time.Sleep(lasts)
		w.fleet.World.Heal()
		return nil
	}}
}

// howCut is how a line breaks, by chance.
func (w *network) howCut() wan.Cut { return []wan.Cut{wan.BlackHole, wan.Refuse}[w.chance.IntN(2)] }

// directed cuts from some sites to others, and not the way back.
func (w *network) directed(from, to []*site) {
	w.t.Helper()
	for _, a := range from {
		for _, b := range to {
			if err := w.fleet.World.Cut(a.name, b.name, wan.BlackHole); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// troubles are those of DESIGN §6 and §9.
func troubles() []trouble {
	return []trouble{
		{"the leader is killed", func(w *network, lasts time.Duration) []*site {
			l := w.leader()
			time.Sleep(lasts / 4)
			l.unwatch()
			l.kill()
			time.Sleep(lasts)
			l.restart()
			l.watch(&w.seen)
			return []*site{l}
		}},
		{"a node stands still", func(w *network, lasts time.Duration) []*site { // and its connections do not break
			s := w.some(1)[0]
			time.Sleep(lasts / 4)
			if err := s.Pause(); err != nil {
				w.t.Fatal(err)
			}
			time.Sleep(lasts)
			if err := s.Resume(); err != nil {
				w.t.Fatal(err)
			}
			return []*site{s}
		}},
		{"the leader stands still", func(w *network, lasts time.Duration) []*site {
			l := w.leader()
			if err := l.Pause(); err != nil {
				w.t.Fatal(err)
			}
			time.Sleep(lasts)
			if err := l.Resume(); err != nil {
				w.t.Fatal(err)
			}
			return []*site{l}
		}},
		{"a node is away", func(w *network, lasts time.Duration) []*site {
			s := w.some(1)[0]
			s.unwatch()
			s.kill()
			time.Sleep(lasts)
			s.restart()
			s.watch(&w.seen)
			return []*site{s}
		}},
		cut("a minority with the leader is cut off", func(w *network) {
			few := []*site{w.leader()}
			for _, s := range w.some(len(w.nodes)) {
				if len(few) < (len(w.nodes)-1)/2 && s != few[0] {
					few = append(few, s)
				}
			}
			w.part(w.howCut(), few, w.others(few...))
		}),
		cut("a minority without the leader is cut off", func(w *network) {
			few := w.others(w.leader())[:(len(w.nodes)-1)/2]
			w.part(w.howCut(), few, w.others(few...))
		}),
		cut("everybody is alone", func(w *network) {
			var each [][]*site
			for _, s := range w.nodes {
				each = append(each, []*site{s})
			}
			w.part(w.howCut(), each...)
		}),
		cut("the leader is heard and hears nobody", func(w *network) {
			l := w.leader()
			w.directed(w.others(l), []*site{l})
		}),
		cut("the leader hears and is not heard", func(w *network) {
			l := w.leader()
			w.directed([]*site{l}, w.others(l))
		}),
		cut("a node is heard and hears nobody", func(w *network) {
			s := w.some(1)
			w.directed(w.others(s...), s)
		}),
		cut("the leader and another do not reach each other, and all others both", func(w *network) {
			l := w.leader()
			w.part(w.howCut(), []*site{l}, w.others(l)[:1])
		}),
	}
}

// lasting are how long troubles last: shorter than elections take, and longer.
const (
	shortest = time.Second
	longest  = 12 * time.Second
)

// Whatever happens to nodes and to the lines between them, every site goes on
// storing, no answer is older than it says, and in the end every site has every
// study once, and all agree.
//
// E2E_TROUBLES is how many troubles there are, of a random seed, at five sites; not
// set: a fixed round of few of them, at three. E2E_SEED makes it the same again.
func TestANetworkInTrouble(t *testing.T) {
	sites, rounds, seed := 3, 0, uint64(7)
	if n, err := strconv.Atoi(os.Getenv("E2E_TROUBLES")); err == nil {
		sites, rounds, seed = 5, n, rand.Uint64N(1<<32)
	}
	if n, err := strconv.ParseUint(os.Getenv("E2E_SEED"), 10, 32); err == nil {
		seed = n
	}
	t.Logf("E2E_SEED=%d E2E_TROUBLES=%d", seed, rounds)
	w := found(t, sites, wan.Both(20*time.Millisecond, 100*wan.Mbps), seed)
	w.voters(sites)
	all := troubles()
	if rounds == 0 {
		w.short(all)
	}
	for i := range rounds {
		tr := all[w.chance.IntN(len(all))]
		lasts := shortest + time.Duration(w.chance.Int64N(int64(longest-shortest)))
		w.during(tr.name, func() []*site { return tr.do(w, lasts) })
		if w.chance.IntN(3) == 0 || i == rounds-1 { // else trouble comes before all is well
			w.settled()
		}
		if t.Failed() {
			t.Fatalf("after %d troubles of seed %d", i+1, seed)
		}
	}
	w.settled()
	w.verify()
	w.journals()
}

// short has one trouble of most kinds, one soon after the other.
func (w *network) short(all []trouble) {
	lasts := map[string]time.Duration{
		"the leader is killed":                  2 * time.Second,
		"a minority with the leader is cut off": 4 * time.Second, // and another is elected
	}
	if !testing.Short() {
		lasts["a node stands still"] = time.Second
		lasts["everybody is alone"] = time.Second
		lasts["the leader is heard and hears nobody"] = 2 * time.Second
		lasts["the leader and another do not reach each other, and all others both"] = time.Second
	}
	for _, tr := range all {
		if d := lasts[tr.name]; d > 0 {
			w.during(tr.name, func() []*site { return tr.do(w, d) })
			delete(lasts, tr.name)
		}
	}
	for name := range lasts {
		w.t.Errorf("there is no trouble %q", name)
	}
}
