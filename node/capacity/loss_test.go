package capacity

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"pelago/cluster/layout"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
)

// losing is the layout that follows one of which a node and a site are lost; nil: none does.
func losing(t *rapid.T, l *layout.Layout, node, site string) *layout.Layout {
	var left []layout.Holder
	sites := map[string]bool{}
	for _, n := range l.Nodes {
		if n.Site != site && n.ID != node {
			left = append(left, layout.Holder{Node: n})
			sites[n.Site] = true
		}
	}
	if len(sites) < l.Shards {
		return nil
	}
	next, err := layout.Compute(l, left, l.Shards)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// What a loss asks of each node is what going through all stripes one by one finds
// that has to move there; room is the most of it, and covers what Diff moves.
func TestRoomIsWhatTheWorstLossMoves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sites := rapid.IntRange(2, 9).Draw(rt, "sites")
		nodes := holders(sites, 1<<40)
		for i := range nodes {
			nodes[i].Pledge = rapid.Int64Range(1<<38, 1<<42).Draw(rt, "pledge")
		}
		var l *layout.Layout
		if sites > 3 && rapid.Bool().Draw(rt, "grown") {
			l = makeLayout(rt, nil, nodes[:len(nodes)-1], 2)
		}
		l = makeLayout(rt, l, nodes, rapid.IntRange(2, min(6, sites)).Draw(rt, "shards"))
		state := &placement.State{View: layout.View{New: l}}
		all := randomSealed(rt, nodes)
		c := newCells(all.each)
		gone := "" // a node that is lost already
		if rapid.Bool().Draw(rt, "after a loss") {
			gone = rapid.SampledFrom(nodes).Draw(rt, "gone").ID
		}
		p := newPlans(l, func(node string) bool { return node == gone })
		for !p.done() {
			p.next()
		}
		got := map[string]Loss{}
		for _, one := range p.losses(c) {
			got[one.Site] = one
		}
		most := room(slices.Collect(maps.Values(got)))
		site := sitesOf(l)
		for s := range sites {
			lost := fmt.Sprintf("s%d", s)
			if !slices.Contains(p.sites, lost) {
				if lost != site[gone] {
					rt.Fatalf("nothing is known of the loss of %s", lost)
				}
				continue
			}
			next := losing(rt, l, gone, lost)
			one, remedied := got[lost]
			if next == nil {
				if remedied {
					rt.Fatalf("%s asks for %+v, and nothing can be made anew", lost, one)
				}
				continue
			}
			after := &placement.State{View: layout.View{New: next}}
			want, placeless, was, came := map[string]int64{}, int64(0), int64(0), int64(0)
			for i := range all {
				f := &all[i]
				g, _ := shard.NewGeometry(f.Code, f.Size)
				for n := range f.Code.N() {
					owner, ok := state.Owner(f.Stripe, n)
					if !ok {
						continue
					}
					then, ok := after.Owner(f.Stripe, n)
					cut := f.Virtual == n && site[f.Origin] == then.Site && site[f.Origin] != lost && f.Origin != gone
					goes := owner.Site == lost || owner.ID == gone
					switch {
					case !ok && goes:
						placeless += g.ShardBytes(n)
					case ok && then.ID != owner.ID && !cut:
						want[then.ID] += g.ShardBytes(n)
					}
					if goes {
						was += g.ShardBytes(n)
						if ok && !cut {
							came += g.ShardBytes(n)
						} else if ok {
							was -= g.ShardBytes(n) // whoever has it then has the copy
						}
					}
				}
			}
			for node, bytes := range want {
				want[node] = AtRest(bytes)
			}
			if !maps.Equal(one.Takes, want) && len(want)+len(one.Takes) > 0 || one.Placeless != AtRest(placeless) {
				rt.Fatalf("%s: %+v, want %v and %d without a place", lost, one, want, placeless)
			}
			if came+placeless != was {
				rt.Fatalf("%s had %d, of which %d are made anew and %d have no place", lost, was, came, placeless)
			}
			moved := map[string]int64{}
			for _, m := range layout.Diff(l, next, layout.MaxRow) {
				moved[m.To.ID] += c.held[cellOf(m.Group*4, m.Position)] + c.held[cellOf(m.Group*4+1, m.Position)] +
					c.held[cellOf(m.Group*4+2, m.Position)] + c.held[cellOf(m.Group*4+3, m.Position)]
			}
			for node, bytes := range moved {
				if most[node] < bytes {
					rt.Fatalf("%s keeps room for %d, and %d move there if %s is lost", node, most[node], bytes, lost)
				}
			}
		}
	})
}

// What fits with room for a loss does fit after the worst one, and a node is full then.
func TestWhatFitsStillFitsAfterTheWorstLoss(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sites := rapid.IntRange(2, 9).Draw(rt, "sites")
		nodes := holders(sites, 1<<40)
		for i := range nodes {
			nodes[i].Pledge = rapid.Int64Range(1<<38, 1<<42).Draw(rt, "pledge")
		}
		shards := rapid.IntRange(2, min(6, sites)).Draw(rt, "shards")
		l := makeLayout(rt, nil, nodes, shards)
		state := &placement.State{View: layout.View{New: l}}
		const unit = 1 << 20
		r := reportOf(state, func(visit func(catalog.Slot, int64)) bool {
			for g := range catalog.SlotGroups {
				for i := range shards {
					visit(catalog.Slot{Group: uint16(g), Shard: uint8(i)}, unit)
				}
			}
			return true
		})
		if sites == shards {
			if r.Fits != 0 || len(r.Room) != 0 {
				rt.Fatalf("%d fit, and room is %v, where nothing can be made anew", r.Fits, r.Room)
			}
			return
		}
		if r.Fits <= 0 || r.Fits > l.Capacity().Bytes {
			rt.Fatalf("%d fit, of %d without a loss", r.Fits, l.Capacity().Bytes)
		}
		scale := float64(r.Fits) / float64(unit*catalog.SlotGroups*shards)
		fullest := 0.0
		for _, n := range l.Nodes {
			used := scale * (float64(r.Owed[n.ID]) + float64(r.Room[n.ID])/1.02)
			fullest = max(fullest, used/float64(n.Pledge))
		}
		if fullest > 1.000001 || fullest < .999999 {
			rt.Fatalf("the fullest node has %f of its pledge", fullest)
		}
	})
}

// A copy that goes with its site is made anew from shards: what was cut from it too.
func TestWhatWasCutAtALostSiteIsMadeAnew(t *testing.T) {
	nodes := holders(4, 1<<40)
	l := makeLayout(t, nil, nodes, 3)
	f := catalog.SealFact{Stripe: shard.Stripe{Pack: [16]byte{9}, Generation: 1}, Code: shard.Code{K: 1, M: 2}, Size: 5000, Virtual: 1}
	state := &placement.State{View: layout.View{New: l}}
	owner, _ := state.Owner(f.Stripe, 1)
	f.Origin = owner.ID
	r := report(state, sealed{f})
	if r.Owed[owner.ID] != 0 {
		t.Fatalf("%+v", r)
	}
	for _, one := range r.Losses {
		sum := int64(0)
		for _, bytes := range one.Takes {
			sum += bytes
		}
		if one.Site == owner.Site && sum != AtRest(5000) {
			t.Errorf("%+v of a pack of which the site has the copy", one)
		}
	}
}

func report(state *placement.State, all sealed) *Report { return reportOf(state, all.each) }

// reportOf is what is told once all is worked out.
func reportOf(state *placement.State, each Slots) *Report {
	var b rebuild
	for b.next(state) {
	}
	r := Count(state, each)
	b.tell(r, each)
	return r
}

func TestShortagesNameTheWorstFirst(t *testing.T) {
	r := &Report{Losses: []Loss{
		{Site: "a", Takes: map[string]int64{"b1": 10, "c1": 20}},
		{Site: "b", Takes: map[string]int64{"c1": 25}},
		{Site: "c", Takes: map[string]int64{"b1": 12}},
		{Site: "d", Takes: map[string]int64{"b1": 12}},
		{Site: "e", Takes: map[string]int64{"b1": 1}, Placeless: 1},
	}}
	has := func(node string) int64 { return map[string]int64{"b1": 10, "c1": -5}[node] }
	want := []Shortage{{"b", 25}, {"a", 20}, {"c", 2}, {"d", 2}, {"e", 1}}
	if got := r.Shortages(has); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := r.Shortages(func(string) int64 { return 25 }); len(got) != 1 || got[0] != (Shortage{"e", 1}) {
		t.Errorf("with room for all: %v", got)
	}
	if got := (&Report{}).Shortages(has); got != nil {
		t.Errorf("of losses that are not known: %v", got)
	}
}

// Room is worked out site by site; that of a former layout stays until the next is
// known, but what is said of losses is of the present one.
func TestRoomStaysUntilTheNextIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := catalog.SealFact{Stripe: shard.Stripe{Pack: [16]byte{7}, Generation: 1}, Code: shard.Code{K: 1, M: 2}, Size: 1000, Virtual: catalog.NoShard}
		first := makeLayout(t, nil, holders(4, 1<<40), 3)
		f := &fixed{state: &placement.State{View: layout.View{New: first}}, changed: make(chan struct{}), sealed: sealed{one}}
		c := New(f, f)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Task().Run(ctx, &work.Progress{}) }()
		synctest.Wait()
		if r := c.Report(); r.Room != nil || r.Losses != nil || r.Owed == nil {
			t.Errorf("of one site of four: %+v", r)
		}
		time.Sleep(3 * leastPause)
		synctest.Wait()
		before := c.Report()
		sum := int64(0)
		for _, bytes := range before.Room {
			sum += bytes
		}
		if len(before.Losses) != 4 || sum < AtRest(1000) {
			t.Fatalf("%+v", before)
		}
		f.become(&placement.State{View: layout.View{Old: first, New: makeLayout(t, first, holders(5, 1<<40), 3)}})
		time.Sleep(leastPause)
		synctest.Wait()
		if r := c.Report(); r.Layout != 2 || r.Losses != nil || !maps.Equal(r.Room, before.Room) {
			t.Errorf("right after a change: %+v", r)
		}
		time.Sleep(5 * leastPause)
		synctest.Wait()
		if r := c.Report(); len(r.Losses) != 5 || r.Room == nil {
			t.Errorf("%+v", r)
		}
		f.become(&placement.State{})
		time.Sleep(2 * leastPause)
		synctest.Wait()
		if r := c.Report(); r.Layout != 0 || r.Losses != nil || len(r.Room) != 0 {
			t.Errorf("without a layout: %+v", r)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkLosses measures what one site's loss costs to work out, and what all of them
// cost to add up anew.
func BenchmarkLosses(b *testing.B) {
	for _, size := range []struct{ sites, shards int }{{6, 4}, {16, 12}, {24, 12}, {50, 14}} {
		nodes := holders(size.sites, 1<<43)
		l := makeLayout(b, nil, nodes, size.shards)
		state := &placement.State{View: layout.View{New: l}}
		name := fmt.Sprintf("%d sites, %d groups", size.sites, l.Groups)
		b.Run("plan of "+name, func(b *testing.B) {
			p := newPlans(l, state.Lost)
			for b.Loop() {
				p.all = nil
				p.next()
			}
		})
		p := newPlans(l, state.Lost)
		for !p.done() {
			p.next()
		}
		each := func(visit func(catalog.Slot, int64)) bool {
			for g := range catalog.SlotGroups {
				for i := range size.shards {
					visit(catalog.Slot{Group: uint16(g), Shard: uint8(i)}, 1<<20)
				}
			}
			return true
		}
		b.Run("sums of "+name, func(b *testing.B) {
			for b.Loop() {
				room(p.losses(newCells(each)))
			}
		})
	}
}
