package protect

import (
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard"
)

// announce has the network know that a node stores so many instances of a pack's study.
func (w *world) announce(m *made, node string, asOf, instances uint64) {
	w.t.Helper()
	w.do(&catalog.SeriesFact{Origin: node, Site: w.nodes[node].site, AsOf: asOf, Study: m.seal.Study, Series: m.seal.Series, Instances: instances, Bytes: 1000, Classes: []string{"1.2"}})
}

func (n *node) study(uid string) *Protection {
	n.w.t.Helper()
	p, err := n.Study(n.w.t.Context(), uid)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return p
}

func (p *Protection) states() (all []string) {
	for _, s := range p.Packs[0].Shards {
		all = append(all, s.State)
	}
	return all
}

func TestEveryNodeTellsHowSafeAStudyIs(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		m, origin := w.spreadPack(twoAndTwo, nil)
		w.announce(m, origin.id, 1, 1)
		w.startAll(0)
		for _, id := range w.ids {
			n := w.nodes[id]
			if _, err := n.Study(t.Context(), "9.9"); !fault.Is(err, fault.NotFound) {
				t.Errorf("an unknown study: %v", err)
			}
			if p := n.study(m.seal.Study); p.State != Protected || p.Survives != 2 || len(p.Packs) != 1 || p.Packs[0].K != 2 || p.Packs[0].M != 2 || len(p.Packs[0].Shards) != 4 {
				t.Errorf("%+v", p)
			}
		}
		asks := w.owner(m, 1)
		steps := []struct {
			do       func()
			state    State
			survives int
			of3      string // the state of shard 3
		}{
			{func() { w.set(w.silent, w.owner(m, 3).id, true) }, Protected, 1, Away},
			{func() { w.set(w.silent, w.owner(m, 2).id, true) }, Degraded, 0, Away},
			{func() { w.set(w.removed, w.owner(m, 3).id, true) }, Degraded, 0, Gone},
			{func() { w.set(w.removed, w.owner(m, 2).id, true); w.set(w.removed, w.owner(m, 1).id, true) }, Degraded, 0, Gone}, // the origin has a copy
			{func() { w.set(w.removed, origin.id, true) }, Lost, 0, Gone},
		}
		for i, step := range steps {
			step.do()
			if p := asks.study(m.seal.Study); p.State != step.state || p.Survives != step.survives || p.states()[3] != step.of3 {
				t.Errorf("step %d: %+v", i, p)
			}
		}
	})
}

func TestWhatIsNotSealedIsNotProtected(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		m, origin := w.spreadPack(twoAndTwo, func(m *made, _ map[int]bool) { m.seal.Receipts = 3 })
		w.announce(m, origin.id, 1, 1)
		w.startAll(0)
		asks := w.owner(m, 1)
		if p := asks.study(m.seal.Study); p.State != Sealing || p.Survives != 0 || p.states()[3] != Waiting {
			t.Errorf("two receipts: %+v", p)
		}
		m.seal.Receipts, m.seal.Revision = 15, 1
		w.do(m.seal)
		if p := asks.study(m.seal.Study); p.State != Protected {
			t.Errorf("four receipts: %+v", p)
		}
		counts := func(want uint64) {
			t.Helper()
			time.Sleep(time.Minute)
			if n, known := asks.Studies(); n != want || !known {
				t.Errorf("%d studies are protected (%t), want %d", n, known, want)
			}
		}
		counts(1)
		// Another image comes: it is in staging, and the origin says so.
		w.announce(m, origin.id, 2, 2)
		origin.mu.Lock()
		origin.packs[m.seal.Study] = []archive.PackInfo{{ID: "staging", Series: m.seal.Series, Instances: 1}}
		origin.mu.Unlock()
		counts(0)
		if p := asks.study(m.seal.Study); p.State != Sealing || p.Survives != 0 || len(p.Packs) != 2 || p.Packs[1].ID != "staging" {
			t.Errorf("an image more: %+v", p)
		}
		w.set(w.down, origin.id, true) // nobody says so: the numbers do
		if p := asks.study(m.seal.Study); p.State != Sealing || len(p.Packs) != 2 || p.Packs[1].Shards[0].State != Away {
			t.Errorf("the origin is silent: %+v", p)
		}
		w.set(w.down, origin.id, false)
		// A t that is higher than it has receipts for.
		w.announce(m, origin.id, 3, 1)
		counts(1)
		next := *w.state
		next.Survives = 3
		w.become(&next)
		counts(0)
	})
}

func TestInANetworkOfOneSiteAStudyIsLocal(t *testing.T) {
	inWorld(t, 1, shard.Code{}, 0, func(t *testing.T, w *world) {
		n := w.nodes[w.ids[0]].start()
		w.do(&catalog.SeriesFact{Origin: n.id, Site: n.site, AsOf: 1, Study: "1.2", Series: "1.2.1", Instances: 2, Classes: []string{"1.2"}})
		n.packs["1.2"] = []archive.PackInfo{{ID: "staging"}, {ID: "abcd"}}
		if p := n.study("1.2"); p.State != Local || len(p.Packs) != 2 || p.Packs[0].Shards[0].State != Present || p.Survives != 0 {
			t.Errorf("%+v", p)
		}
		n.packs["1.2"][1].Lost = true
		if p := n.study("1.2"); p.State != Lost {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Minute)
		if count, known := n.Studies(); count != 0 || !known {
			t.Errorf("%d, %t", count, known)
		}
	})
}

// The archive's own word is enough where there is no other site, and nowhere else.
func TestOnlyASiteAloneIsCommittedByItsOwnWord(t *testing.T) {
	inWorld(t, 1, shard.Code{}, 0, func(t *testing.T, w *world) {
		n := w.nodes[w.ids[0]]
		n.rests["1"], n.rests["2"] = archive.Resting{Staged: []archive.SeriesName{{Study: "1", Series: "2"}}}, archive.Resting{}
		n.fails["2"] = fault.New(fault.Corrupt, "rot")
		w.do(alone.Member("decider", n.site)) // another node of the same site
		n.start()
		if err := n.Committed(t.Context(), "1.2", "1", "M"); err != nil {
			t.Errorf("alone: %v", err)
		}
		if err := n.Committed(t.Context(), "1.2", "2", "M"); !fault.Is(err, fault.Corrupt) {
			t.Errorf("alone, and rotten: %v", err)
		}
		n.mu.Lock()
		n.fenced = fault.New(fault.Corrupt, "halted") // before it heard of others, perhaps
		n.mu.Unlock()
		if err := n.Committed(t.Context(), "1.2", "1", "M"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("by a catalogue that has stopped: %v", err)
		}
		n.mu.Lock()
		n.fenced = nil
		n.mu.Unlock()
		w.join("elsewhere") // and holds nothing yet
		for range 3 {
			if err := n.Committed(t.Context(), "1.2", "1", "M"); !fault.Is(err, fault.Unavailable) {
				t.Errorf("two sites: %v", err)
			}
			time.Sleep(time.Minute)
		}
		if err := n.Committed(t.Context(), "1.2", "3", "M"); !fault.Is(err, fault.NotFound) {
			t.Errorf("unknown: %v", err)
		}
		w.place(shard.Code{K: 1, M: 1}, 1)
		own := w.state
		n.mu.Lock()
		n.state = &placement.State{} // its placement lags
		n.mu.Unlock()
		if err := n.Committed(t.Context(), "1.2", "1", "M"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("there is a code: %v", err)
		}
		if !own.Striped() {
			t.Error("nothing is striped")
		}
	})
}
