package placement

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/node/member"
	"pelago/shard"
)

func TestSitesThatJoinAreInTheLayoutAndRaiseTheCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.join("s1")
		time.Sleep(time.Hour)
		if s := first.State(); s.Striped() || s.Survives != 0 || s.View.New != nil {
			t.Fatalf("a site alone: %+v", s)
		}
		for n := 2; n <= 6; n++ {
			w.join(fmt.Sprintf("s%d", n))
			s := w.settled(first, n)
			c, survives := shard.Default(n)
			if !s.Striped() || s.Code != c || s.Survives != survives || s.View.New.Version != uint64(n-1) || s.View.New.Shards != c.N() {
				t.Errorf("%d sites: %+v, layout %d for %d shards", n, s, s.View.New.Version, s.View.New.Shards)
			}
		}
		for _, n := range w.nodes { // all see the same
			if s := w.settled(n, 6); s.Code != (shard.Code{K: 3, M: 3}) || s.Survives != 2 {
				t.Errorf("%s: %v", n.member.Site, s.Code)
			}
		}
		time.Sleep(24 * time.Hour)
		if s := first.State(); s.View.New.Version != 5 || s.View.Old != nil {
			t.Errorf("in a day without a change: layout %d", s.View.New.Version)
		}
		if got := w.memory.Written(kindPledge); got != 6 {
			t.Errorf("%d pledges were told", got)
		}
	})
}

func TestSitesThatJoinTogetherMakeOneVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n := range 6 {
			w.join(fmt.Sprintf("s%d", n))
			time.Sleep(time.Second)
		}
		if s := w.settled(w.nodes[0], 6); s.View.New.Version != 1 {
			t.Errorf("layout %d", s.View.New.Version)
		}
	})
}

func TestProposalsThatCrossMakeOneVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.each = true // takes itself for the leader
		w.joinSites(5)
		s := w.settled(w.nodes[1], 5)
		if s.View.New.Version != 1 || s.Code != (shard.Code{K: 2, M: 2}) {
			t.Errorf("layout %d, %v", s.View.New.Version, s.Code)
		}
		if n := w.memory.Written(layout.Kind); n != 1 {
			t.Errorf("%d decisions about layouts", n)
		}
	})
}

// A node is removed between the reading of the records and the decision, which is made
// again without it.
func TestWhatComesBetweenIsInTheNextVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 4)
		w.until("pledges", time.Minute, func() bool { return w.memory.Written(kindPledge) == 4 })
		gone := w.nodes[3]
		w.memory.Before(func() { w.remove(gone) })
		s := w.settled(w.nodes[0], 3)
		if s.View.New.Version != 1 || slices.Contains(holds(s.View.New), gone.id()) {
			t.Errorf("layout %d of %v", s.View.New.Version, holds(s.View.New))
		}
		if s.Code != (shard.Code{K: 1, M: 2}) || !s.Lost(gone.id()) || s.Site(gone.id()) != "s3" {
			t.Errorf("%v, lost %t at %q", s.Code, s.Lost(gone.id()), s.Site(gone.id()))
		}
	})
}

func TestADecisionWhoseOutcomeIsUnknownIsNotMadeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("s0")
		w.join("s1")
		w.until("pledges", time.Minute, func() bool { return w.memory.Written(kindPledge) == 2 })
		w.memory.Lose(true)
		w.settled(w.nodes[0], 2)
		time.Sleep(time.Minute)
		w.memory.Lose(false)
		time.Sleep(time.Hour)
		if s := w.settled(w.nodes[1], 2); s.View.New.Version != 1 || w.memory.Written(layout.Kind) != 1 {
			t.Errorf("layout %d, %d decisions", s.View.New.Version, w.memory.Written(layout.Kind))
		}
	})
}

func TestOthersGoOnWithoutALeaderThatDecides(t *testing.T) {
	for name, first := range map[string]func(n *node){
		"a witness leads":           func(n *node) { n.member.Witness = true },
		"the leader does nothing":   func(n *node) { n.member.Barred = true }, // and is ended below
		"a drained node leads, too": func(n *node) { n.member.Drained = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				leader := w.join("s0", first)
				if leader.member.Barred {
					w.until("its pledge", time.Minute, func() bool { return w.memory.Written(kindPledge) > 0 })
					leader.down()
				}
				w.join("s1")
				w.join("s2")
				w.until("a layout of those who hold", 2*time.Minute, func() bool {
					l := w.nodes[1].State().View.New
					return l != nil && slices.Contains(holds(l), w.nodes[1].id()) && slices.Contains(holds(l), w.nodes[2].id())
				})
				if held := slices.Contains(holds(w.nodes[1].State().View.New), leader.id()); held != leader.member.Barred {
					t.Errorf("the leader holds: %t", held)
				}
			})
		})
	}
}

func TestADrainedNodeGivesUpItsShardsAndTheChangeWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 5)
		before := w.settled(w.nodes[0], 5)
		drained := w.nodes[4]
		drained.set(func() { drained.idle = true })
		drained.enlist(func(m *member.Member) { m.Drained = true })
		w.changing()
		time.Sleep(24 * time.Hour)
		s := w.nodes[0].State()
		if s.View.Old == nil || slices.Contains(holds(s.View.New), drained.id()) || s.Lost(drained.id()) {
			t.Errorf("%+v", s.View)
		}
		if got := w.nodes[0].Status().Waiting; !slices.Equal(got, []string{drained.id()}) {
			t.Errorf("waiting %v", got)
		}
		if s.Code != before.Code || s.Survives != before.Survives {
			t.Errorf("the code fell to %v, %d", s.Code, s.Survives)
		}
		drained.set(func() { drained.idle = false })
		if s := w.settled(w.nodes[0], 4); s.View.New.Version != 2 || s.Code != before.Code {
			t.Errorf("layout %d, %v", s.View.New.Version, s.Code)
		}
		drained.enlist(func(m *member.Member) { m.Drained = false })
		if s := w.settled(w.nodes[0], 5); s.View.New.Version != 3 {
			t.Errorf("layout %d", s.View.New.Version)
		}
	})
}

func TestANodeThatIsDownHoldsAChangeUpUntilItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 5)
		w.settled(w.nodes[0], 5)
		down := w.nodes[3]
		down.down()
		w.join("s5")
		w.changing()
		time.Sleep(70 * time.Hour)
		status := w.nodes[0].Status()
		if status.Version != 2 || status.From != 1 || !slices.Equal(status.Waiting, []string{down.id()}) {
			t.Fatalf("%+v", status)
		}
		// Neither is there a third version before the second is complete.
		w.join("s6")
		time.Sleep(time.Hour)
		if v := w.nodes[0].State().View; v.New.Version != 2 || v.Old.Version != 1 {
			t.Fatalf("from %d to %d", v.Old.Version, v.New.Version)
		}
		lost, err := w.nodes[0].Lose(t.Context(), down.id(), "", false, "Dr. No")
		if err != nil || !slices.Equal(lost, []string{down.id()}) {
			t.Fatal(lost, err)
		}
		if !w.nodes[0].State().Lost(down.id()) {
			t.Error("it is not lost at once where it was said")
		}
		w.until("a layout without it", time.Minute, func() bool {
			v := w.nodes[0].State().View
			return v.Old == nil && v.New.Version == 3 && !slices.Contains(holds(v.New), down.id())
		})
		if s := w.nodes[0].State(); !s.Lost(down.id()) || s.Code != (shard.Code{K: 3, M: 3}) || len(s.View.New.Nodes) != 6 {
			t.Errorf("%v, %v", holds(s.View.New), s.Code)
		}
		if got := w.nodes[0].Status().Lost; len(got) != 1 || got[0].By != "Dr. No" || got[0].Node != down.id() || got[0].Site != "s3" {
			t.Errorf("%+v", got)
		}
	})
}

func TestASiteThatIsLostComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 5)
		twin := w.join("s4")
		w.settled(w.nodes[0], 6)
		w.nodes[4].down()
		twin.down()
		lost, err := w.nodes[1].Lose(t.Context(), "", "s4", false, "")
		if err != nil || len(lost) != 2 {
			t.Fatal(lost, err)
		}
		s := w.settled(w.nodes[0], 4)
		if s.Survives != 2 || !s.Lost(twin.id()) {
			t.Errorf("survives %d, lost %t", s.Survives, s.Lost(twin.id()))
		}
		twin.run() // one of them returns
		time.Sleep(5 * time.Minute)
		if !w.nodes[0].State().Lost(twin.id()) {
			t.Error("it counts again at once")
		}
		w.until("it counts again", 15*time.Minute, func() bool { return !w.nodes[0].State().Lost(twin.id()) })
		if s := w.settled(w.nodes[0], 5); !slices.Contains(holds(s.View.New), twin.id()) || !s.Lost(w.nodes[4].id()) {
			t.Errorf("%v", holds(s.View.New))
		}
		back, err := w.nodes[0].Lose(t.Context(), "", "s4", true, "me") // the other by an operator's word
		if err != nil || len(back) != 2 || w.nodes[0].State().Lost(w.nodes[4].id()) {
			t.Error(back, err)
		}
	})
}

func TestANodeAbsentForThreeDaysIsLostButOnlyAtOneSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 7)
		w.settled(w.nodes[0], 7)
		w.nodes[5].down()
		time.Sleep(time.Hour)
		w.nodes[6].down()
		time.Sleep(70 * time.Hour)
		if l := w.nodes[0].Status().Lost; len(l) != 0 {
			t.Fatalf("after 71 hours: %+v", l)
		}
		w.until("it is lost", 90*time.Minute, func() bool { return w.nodes[1].State().Lost(w.nodes[5].id()) })
		time.Sleep(48 * time.Hour)
		if l := w.nodes[0].Status().Lost; len(l) != 1 || l[0].Node != w.nodes[5].id() || l[0].By != "" {
			t.Fatalf("without an operator: %+v", l)
		}
		if _, err := w.nodes[0].Lose(t.Context(), w.nodes[6].id(), "", false, "me"); err != nil { // with one
			t.Fatal(err)
		}
		if s := w.settled(w.nodes[0], 5); s.Survives != 2 || s.Code != (shard.Code{K: 3, M: 3}) {
			t.Errorf("survives %d, %v", s.Survives, s.Code)
		}
	})
}

func TestWhoIsCutOffTakesNobodyForLost(t *testing.T) {
	if testing.Short() {
		t.Skip("weeks of minutes")
	}
	for name, cut := range map[string]func(w *world){
		"without a majority":     func(w *world) { w.memory.Down(true) },
		"gossip does not run":    func(w *world) { w.mu.Lock(); w.deaf = true; w.mu.Unlock() },
		"most are not heard":     func(w *world) { w.nodes[1].down(); w.nodes[2].down() },
		"nobody leads":           func(w *world) { w.lead("") },
		"it is heard in between": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := worldOf(t, 5)
				w.settled(w.nodes[0], 5)
				w.nodes[4].down()
				if cut != nil {
					cut(w)
				}
				for range 2 {
					time.Sleep(50 * time.Hour)
					if cut == nil {
						w.nodes[4].set(func() { w.nodes[4].alive = true })
						time.Sleep(2 * time.Minute)
						w.nodes[4].set(func() { w.nodes[4].alive = false })
					}
				}
				if l := w.nodes[0].Status().Lost; len(l) != 0 {
					t.Errorf("%+v", l)
				}
			})
		})
	}
}

func TestWhileAWitnessLeadsAnotherNodeWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("w", func(n *node) { n.member.Witness = true })
		w.joinSites(4)
		w.settled(w.nodes[1], 4)
		w.nodes[4].down()
		w.until("it is lost", 74*time.Hour, func() bool { return w.nodes[1].State().Lost(w.nodes[4].id()) })
	})
}

func TestTheCodeFallsByAnOperatorOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 9)
		ctx := t.Context()
		first := w.nodes[0]
		if s := w.settled(first, 9); s.Code != (shard.Code{K: 5, M: 4}) || s.Survives != 3 {
			t.Fatalf("%v, %d", s.Code, s.Survives)
		}
		if _, err := first.Lose(ctx, "", "s8", false, "me"); err != nil {
			t.Fatal(err)
		}
		s := w.settled(first, 8)
		if s.Code != (shard.Code{K: 5, M: 4}) || s.Survives != 3 || s.View.New.Shards != 8 {
			t.Errorf("after a loss: %v, %d, rows for %d", s.Code, s.Survives, s.View.New.Shards)
		}
		if limits := first.Status().Limits; len(limits) == 0 {
			t.Error("nothing says that a site is wanting")
		}
		if err := first.AutoCode(ctx); err != nil {
			t.Fatal(err)
		}
		if s := first.State(); s.Code != (shard.Code{K: 3, M: 3}) || s.Survives != 2 {
			t.Errorf("by an operator's word: %v, %d", s.Code, s.Survives)
		}
		w.until("rows for six shards", time.Minute, func() bool { s := first.State(); return s.View.New.Shards == 6 && s.View.Old == nil })
		w.join("s9")
		w.until("the code of nine sites", time.Minute, func() bool { return first.State().Survives == 3 })
		w.settled(first, 9)

		if err := first.SetCode(ctx, shard.Code{K: 2, M: 4}, 0, "me"); err != nil {
			t.Fatal(err)
		}
		if s := first.State(); s.Code != (shard.Code{K: 2, M: 4}) || s.Survives != 3 || first.Status().By != "me" {
			t.Errorf("set: %v, %d", s.Code, s.Survives)
		}
		w.until("rows for six shards", time.Minute, func() bool { s := first.State(); return s.View.New.Shards == 6 && s.View.Old == nil })
		for n := 10; n < 17; n++ {
			w.join(fmt.Sprintf("s%d", n))
		}
		if s := w.settled(first, 16); s.Code != (shard.Code{K: 2, M: 4}) || s.View.New.Shards != 6 {
			t.Errorf("what was set has changed to %v", s.Code)
		}
		for name, set := range map[string]struct {
			c        shard.Code
			survives int
		}{
			"nothing may be lost":       {shard.Code{K: 4, M: 0}, 0},
			"survives more than parity": {shard.Code{K: 4, M: 2}, 3},
			"no data":                   {shard.Code{K: 0, M: 2}, 1},
			"more than a row":           {shard.Code{K: 12, M: 5}, 1},
			"negative":                  {shard.Code{K: 2, M: 2}, -1},
		} {
			if err := first.SetCode(ctx, set.c, set.survives, "me"); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s := first.State(); s.Code != (shard.Code{K: 2, M: 4}) {
			t.Errorf("refused, and taken: %v", s.Code)
		}
	})
}

func TestACodeNeedsSitesThatHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("s0")
		if err := w.nodes[0].SetCode(t.Context(), shard.Code{K: 1, M: 1}, 1, "me"); !fault.Is(err, fault.Invalid) {
			t.Errorf("one site: %v", err)
		}
		if err := w.nodes[0].AutoCode(t.Context()); err != nil || w.nodes[0].State().Striped() {
			t.Errorf("one site: %v", err)
		}
		w.join("s1")
		w.join("s1") // another node of a site is no site
		w.settled(w.nodes[0], 3)
		if err := w.nodes[0].SetCode(t.Context(), shard.Code{K: 1, M: 2}, 1, "me"); !fault.Is(err, fault.Invalid) {
			t.Errorf("two sites: %v", err)
		}
		w.memory.Down(true)
		if err := w.nodes[0].AutoCode(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("no majority: %v", err)
		}
	})
}

func TestSmallChangesOfWhatNodesCanHoldMoveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 5)
		first := w.nodes[0]
		w.settled(first, 5)
		told := w.memory.Written(kindPledge)
		change := func(to int64) (records, versions uint64) {
			before, version := w.memory.Written(kindPledge), first.State().View.New.Version
			w.nodes[2].set(func() { w.nodes[2].bytes = to })
			time.Sleep(5 * time.Minute)
			w.settled(first, 5)
			return uint64(w.memory.Written(kindPledge) - before), first.State().View.New.Version - version
		}
		if told != 5 {
			t.Errorf("%d pledges at first", told)
		}
		for _, test := range []struct {
			to                int64
			records, versions uint64
		}{
			{tib - tib/25, 0, 0}, {tib - tib/6, 0, 0}, {tib / 2, 1, 1}, {tib/2 + tib/100, 0, 0}, {tib - tib/100, 0, 0}, {2 * tib, 1, 1},
		} {
			if records, versions := change(test.to); records != test.records || versions != test.versions {
				t.Errorf("to %d: %d records, %d versions", test.to, records, versions)
			}
		}
		if w.nodes[2].Pledged() != 2*tib {
			t.Errorf("%d", w.nodes[2].Pledged())
		}
		w.nodes[2].set(func() { w.nodes[2].bytes = 0 }) // it holds none
		if s := w.settled(first, 4); slices.Contains(holds(s.View.New), w.nodes[2].id()) {
			t.Error("it is in the layout")
		}
	})
}

// Nodes that share a disk which fills have shards moved seldom, and each back once it
// has been emptied for a day.
func TestADiskThatFillsMovesShardsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 5)
		first := w.nodes[0]
		version := w.settled(first, 5).View.New.Version
		have := func(bytes int64) {
			for _, n := range w.nodes[:3] {
				n.set(func() { n.bytes = bytes })
			}
			time.Sleep(5 * time.Minute)
			w.settled(first, 5)
		}
		for left := int64(99); left >= 75; left-- {
			have(tib / 100 * left)
		}
		for _, n := range w.nodes[:3] {
			if at := n.Pledged(); at > tib/100*80 || at < tib/100*79 {
				t.Errorf("%d is pledged", at)
			}
		}
		fallen := first.State().View.New.Version
		if fallen > version+3 {
			t.Errorf("%d layouts as the disk filled", fallen-version)
		}
		have(tib)
		if now := first.State().View.New.Version; now != fallen {
			t.Error("more is pledged at once")
		}
		time.Sleep(pledgeRest)
		w.settled(first, 5)
		for _, n := range w.nodes[:3] {
			if n.Pledged() != tib {
				t.Errorf("%d is pledged after a day", n.Pledged())
			}
		}
	})
}

func TestWhatIsWorthPledgingAnew(t *testing.T) {
	for _, test := range []struct {
		told, now   int64
		set, rested bool
		want        bool
	}{
		{100, 0, false, false, true}, {0, 1, false, false, true}, {0, 0, false, true, false},
		{100, 81, false, true, false}, {100, 80, false, false, true},
		{100, 199, false, false, false}, {100, 200, false, false, true}, {100, 106, false, true, true}, {100, 105, false, true, false},
		{100, 94, true, false, true}, {100, 106, true, false, true}, {100, 96, true, true, false},
	} {
		if got := differs(test.told, test.now, test.set, test.rested); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
}

func TestTheSmallestPledgeIsNamedAsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n := range 4 {
			w.join(fmt.Sprintf("s%d", n), func(n *node) {
				if n.member.Site == "s2" {
					n.bytes = tib / 4
				}
			})
		}
		w.settled(w.nodes[0], 4)
		s := w.nodes[0].Status()
		if s.Capacity.Limit.ID != w.nodes[2].id() || s.Capacity.Bytes != tib || s.Capacity.Pledged != 3*tib+tib/4 || len(s.Limits) != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestCompleteIsOfThisNodeAndOfAVersionThatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("s0")
		if err := w.nodes[0].Complete(t.Context(), 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("before there is a layout: %v", err)
		}
		w.join("s1")
		w.settled(w.nodes[0], 2)
		if err := w.nodes[0].Complete(t.Context(), 2); !fault.Is(err, fault.Invalid) {
			t.Errorf("of none: %v", err)
		}
		for _, n := range w.nodes {
			n.set(func() { n.idle = true })
		}
		w.join("s2", func(n *node) { n.idle = true })
		w.changing()
		ctx := t.Context()
		if err := w.nodes[0].Complete(ctx, 1); err != nil || w.memory.Written(kindPlaced) != 0 {
			t.Errorf("of the one before: %v", err)
		}
		for range 3 { // again is nothing
			if err := w.nodes[0].Complete(ctx, 2); err != nil || w.memory.Written(kindPlaced) != 1 {
				t.Errorf("%v, %d records", err, w.memory.Written(kindPlaced))
			}
		}
		if got := len(w.nodes[1].Status().Waiting); got != 2 {
			time.Sleep(time.Second)
			if got = len(w.nodes[1].Status().Waiting); got != 2 {
				t.Errorf("waiting for %d", got)
			}
		}
		w.memory.Down(true)
		if err := w.nodes[1].Complete(ctx, 2); !fault.Is(err, fault.Unavailable) {
			t.Errorf("no majority: %v", err)
		}
		w.memory.Down(false)
		w.remove(w.nodes[1])
		if err := w.nodes[1].Complete(ctx, 2); !fault.Is(err, fault.NotFound) {
			t.Errorf("removed: %v", err)
		}
		if w.nodes[0].State().View.Old == nil {
			t.Error("complete without the third")
		}
		if err := w.nodes[2].Complete(ctx, 2); err != nil {
			t.Fatal(err)
		}
		// Complete, and the next follows without the one that was removed.
		w.until("the next change", time.Minute, func() bool { return w.nodes[0].State().View.New.Version == 3 })
	})
}

func TestWhoMayNotBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("s0")
		w.join("s1")
		witness := w.join("w", func(n *node) { n.member.Witness = true })
		w.settled(w.nodes[0], 2)
		lose := func(node, site string) error {
			_, err := w.nodes[0].Lose(context.WithoutCancel(t.Context()), node, site, false, "me")
			return err
		}
		for name, test := range map[string]struct {
			err  error
			want fault.Kind
		}{
			"itself":       {lose(w.nodes[0].id(), ""), fault.Conflict},
			"its own site": {lose("", "s0"), fault.Conflict},
			"a witness":    {lose(witness.id(), ""), fault.Invalid},
			"its site":     {lose("", "w"), fault.NotFound},
			"nobody":       {lose("nobody", ""), fault.NotFound},
			"nowhere":      {lose("", "nowhere"), fault.NotFound},
		} {
			if !fault.Is(test.err, test.want) {
				t.Errorf("%s: %v", name, test.err)
			}
		}
		if w.memory.Written(kindLost) != 0 {
			t.Error("somebody is lost")
		}
	})
}

func TestRecordsThatDoNotParse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := worldOf(t, 5)
		first := w.nodes[0]
		w.settled(first, 5)
		was, id := first.State().View.New, w.nodes[3].id()

		w.memory.Put(kindPledge, w.nodes[1].id(), []byte("no"))
		w.memory.Put(kindPledge, w.nodes[2].id(), []byte(`{"version":1,"bytes":-1}`))
		w.memory.Put(kindPlaced, id, []byte(`{"version":1,"layout":-3}`))
		w.memory.Put(kindPledge, "nobody", []byte(`{"version":1,"bytes":5}`))
		w.memory.Put(layout.Kind, "0000000000000002", []byte{1, 0})
		w.until("the layout that is none is dropped", time.Minute, func() bool {
			b, _ := w.memory.RegistryRecord(layout.Kind, "0000000000000002")
			return b == nil
		})
		w.until("pledges are told again", 3*time.Minute, func() bool { return w.memory.Written(kindPledge) == 7 })
		if s := w.settled(first, 5); s.View.New != was {
			t.Error("something moved")
		}

		w.memory.Put(kindCode, nameCode, []byte(`{"version":1,"k":9,"m":9}`))
		w.until("the code is written again", time.Minute, func() bool { return w.memory.Written(kindCode) == 2 })
		if s := w.settled(first, 5); s.Code != (shard.Code{K: 2, M: 2}) || s.Survives != 2 {
			t.Errorf("%v, %d", s.Code, s.Survives)
		}

		w.memory.Put(kindLost, id, []byte("who knows"))
		if s := w.settled(first, 4); !s.Lost(id) || slices.Contains(holds(s.View.New), id) {
			t.Error("a loss counts whatever it holds")
		}
		if first.log.Count("does not parse") < 5 {
			t.Errorf("told of %d times", first.log.Count("does not parse"))
		}
	})
}

func TestWhatANewerProgramWroteStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join("s0")
		w.join("s1")
		first := w.nodes[0]
		w.settled(first, 2)
		newer := slices.Concat([]byte{99}, []byte("from another day"))
		w.memory.Put(layout.Kind, layout.RecordName(2), newer)
		w.join("s2")
		time.Sleep(time.Hour)
		if b, _ := w.memory.RegistryRecord(layout.Kind, layout.RecordName(2)); string(b) != string(newer) {
			t.Error("it is gone")
		}
		if s := first.State(); s.View.New.Version != 1 || !s.Striped() {
			t.Errorf("layout %d", s.View.New.Version)
		}
		if err := first.AutoCode(t.Context()); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%v", err)
		}
	})
}

// However a network came to where it is: when what is due has been done, nothing is.
func TestWhatIsDueIsDoneOnce(t *testing.T) {
	random, networks := rand.New(rand.NewPCG(1, 1)), 300
	if testing.Short() {
		networks = 50
	}
	for range networks {
		f := &facts{pledges: map[string]int64{}, lost: map[string]loss{}, placed: map[string]uint64{}}
		count := 1 + random.IntN(12)
		for i := range count {
			id := fmt.Sprintf("n%02d", i)
			f.members = append(f.members, member.Member{Node: id, Site: fmt.Sprintf("s%02d", random.IntN(count))})
			f.pledges[id] = tib/2 + random.Int64N(tib)
		}
		best := 0
		for range 6 {
			i := random.IntN(count)
			m := &f.members[i]
			switch random.IntN(5) {
			case 0:
				m.Drained = !m.Drained
			case 1:
				m.Witness = !m.Witness
			case 2:
				f.lost[m.Node] = loss{}
			case 3:
				delete(f.lost, m.Node)
			case 4:
				f.pledges[m.Node] = random.Int64N(tib)
			}
			s, err := f.due()
			if err != nil {
				t.Fatal(err)
			}
			if s.code != nil {
				f.code = s.code
			}
			if s.next != nil {
				if was := f.newest(); f.changing() || was != nil && s.next.Version != was.Version+1 {
					t.Fatal("a third version, or one that does not follow")
				}
				f.layouts = append(f.layouts, written{Layout: s.next})
			}
			if f.code != nil {
				if f.code.Survives < best {
					t.Fatalf("the network survived %d sites, and now %d", best, f.code.Survives)
				}
				best = f.code.Survives
			}
			check(t, f)
			for f.changing() { // all say that they have what they should, one by one
				if s, _ := f.due(); s.complete != (len(f.waiting()) == 0) || s.next != nil || s.code != nil {
					t.Fatalf("%+v while %d are awaited", s, len(f.waiting()))
				}
				waiting := f.waiting()
				if len(waiting) == 0 {
					f.layouts = f.layouts[1:]
					break
				}
				f.placed[waiting[0].Node] = f.newest().Version
			}
			if s, err := f.due(); err != nil || s.any() {
				t.Fatalf("%+v is due again: %v", s, err)
			}
		}
	}
}

// check checks the newest layout against the facts.
func check(t *testing.T, f *facts) {
	t.Helper()
	l := f.newest()
	if l == nil {
		return
	}
	may := map[string]bool{}
	for _, m := range f.members {
		_, lost := f.lost[m.Node]
		may[m.Node] = !m.Witness && !m.Drained && !lost && f.pledges[m.Node] > 0
	}
	maps.DeleteFunc(may, func(_ string, ok bool) bool { return !ok })
	if len(may) == 0 {
		return // nobody is left to hold anything: it stays as it was
	}
	if got, want := holds(l), slices.Sorted(maps.Keys(may)); !slices.Equal(got, want) {
		t.Fatalf("%v hold, of %v", got, want)
	}
}

// A decision has so many conditions at most, and a network may have more nodes.
func TestALargeNetworkIsDecidedInOneDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const nodes = 100
		for i := range nodes {
			n := w.make(fmt.Sprintf("s%02d", i))
			n.enlist(nil)
			w.memory.Put(kindPledge, n.id(), encode(pledge{Version: recordVersion, Bytes: tib}))
		}
		first := w.nodes[0]
		first.open()
		if err := first.decide(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := first.State(); s.View.New == nil || len(s.View.New.Nodes) != nodes || s.Code != (shard.Code{K: 10, M: 4}) {
			t.Fatalf("%+v", s)
		}
		for _, n := range w.nodes { // all leave but a few, which then are all that holds
			if n != first && n.member.Site > "s10" {
				w.memory.Put(kindLost, n.id(), encode(loss{Version: recordVersion, By: "me"}))
			}
		}
		for range 3 { // the next version, and its end, for which it waits for nobody lost
			for _, n := range w.nodes[:11] {
				w.memory.Put(kindPlaced, n.id(), encode(placed{Version: recordVersion, Layout: 2}))
			}
			if err := first.decide(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if s := first.State(); s.View.Old != nil || s.View.New.Version != 2 || len(s.View.New.Nodes) != 11 || s.Survives != 3 {
			t.Errorf("%d nodes in layout %d, survives %d", len(s.View.New.Nodes), s.View.New.Version, s.Survives)
		}
	})
}
