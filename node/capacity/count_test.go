package capacity

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"pelago/cluster/layout"
	"pelago/node/placement"
	"pelago/node/work"
	"pelago/replication/catalog"
	"pelago/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// holders are so many sites, of a node each but the first, which has two.
func holders(sites int, pledge int64) []layout.Holder {
	all := []layout.Holder{{Node: layout.Node{ID: "n0b", Site: "s0", Pledge: pledge}}}
	for i := range sites {
		all = append(all, layout.Holder{Node: layout.Node{ID: fmt.Sprintf("n%d", i), Site: fmt.Sprintf("s%d", i), Pledge: pledge}})
	}
	return all
}

func makeLayout(t interface{ Fatal(...any) }, previous *layout.Layout, of []layout.Holder, n int) *layout.Layout {
	l, err := layout.Compute(previous, of, n)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sealed are stripes, and what a catalogue adds up of them.
type sealed []catalog.SealFact

func (all sealed) each(visit func(catalog.Slot, int64)) bool {
	for i := range all {
		f := &all[i]
		g, err := shard.NewGeometry(f.Code, f.Size)
		if err != nil {
			panic(err)
		}
		for n := range f.Code.N() {
			at := catalog.Slot{Group: uint16(shard.Group(f.Stripe.Pack, catalog.SlotGroups)), Shard: uint8(n)}
			if f.Virtual == n {
				at.Cut = f.Origin
			}
			visit(at, g.ShardBytes(n))
		}
	}
	return true
}

func randomSealed(t *rapid.T, nodes []layout.Holder) sealed {
	var all sealed
	for range rapid.IntRange(0, 60).Draw(t, "stripes") {
		f := catalog.SealFact{Size: rapid.Int64Range(1<<20, 64<<20).Draw(t, "size"), Virtual: catalog.NoShard}
		f.Code = rapid.SampledFrom([]shard.Code{{K: 1, M: 2}, {K: 2, M: 2}, {K: 3, M: 3}}).Draw(t, "code")
		copy(f.Stripe.Pack[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "pack"))
		f.Stripe.Generation = 1
		f.Origin = rapid.SampledFrom(nodes).Draw(t, "origin").ID
		if rapid.Bool().Draw(t, "cut") {
			f.Virtual = rapid.IntRange(0, f.Code.N()-1).Draw(t, "virtual")
		}
		all = append(all, f)
	}
	return all
}

// What each node owes is what going through all stripes, one by one, finds.
func TestOwedIsWhatAllStripesAddUpTo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sites := rapid.IntRange(3, 8).Draw(rt, "sites")
		nodes := holders(sites, 1<<40)
		l := makeLayout(rt, nil, nodes, min(4, sites))
		state := &placement.State{View: layout.View{New: l}}
		all := randomSealed(rt, nodes)
		want, placeless := map[string]int64{}, int64(0)
		for _, n := range nodes {
			want[n.ID] = 0
		}
		for i := range all {
			f := &all[i]
			g, _ := shard.NewGeometry(f.Code, f.Size)
			for n := range f.Code.N() {
				owner, ok := state.Owner(f.Stripe, n)
				cut := false
				for _, h := range nodes {
					cut = cut || f.Virtual == n && h.ID == f.Origin && h.Site == owner.Site
				}
				switch {
				case !ok:
					placeless += g.ShardBytes(n)
				case !cut:
					want[owner.ID] += g.ShardBytes(n)
				}
			}
		}
		got := Count(state, all.each)
		if !maps.Equal(got.Owed, want) || got.Placeless != placeless || got.Layout != l.Version {
			rt.Fatalf("%+v, want %v and %d of nobody", got, want, placeless)
		}
	})
}

func TestNobodyOwesWithoutALayout(t *testing.T) {
	if r := Count(&placement.State{}, sealed{}.each); r == nil || r.Layout != 0 || len(r.Owed) != 0 {
		t.Errorf("%+v", r)
	}
	l := makeLayout(t, nil, holders(3, 1<<40), 3)
	unknown := func(func(catalog.Slot, int64)) bool { return false }
	if r := Count(&placement.State{View: layout.View{New: l}}, unknown); r != nil {
		t.Errorf("of slots that are not known: %+v", r)
	}
}

// fixed are sums and places that a test changes.
type fixed struct {
	mu      sync.Mutex
	sealed  sealed
	state   *placement.State
	changed chan struct{}
}

func (f *fixed) CountSlots(context.Context) error { return nil }

func (f *fixed) EachSlot(visit func(catalog.Slot, int64)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sealed.each(visit)
}

func (f *fixed) State() *placement.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *fixed) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// become changes what the network is.
func (f *fixed) become(state *placement.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = state
	close(f.changed)
	f.changed = make(chan struct{})
}

// seal adds a stripe.
func (f *fixed) seal(one catalog.SealFact) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sealed = append(f.sealed, one)
}

func TestReportFollowsLayoutAndSeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixed{state: &placement.State{}, changed: make(chan struct{})}
		c := New(f, f)
		if c.Report() != nil {
			t.Error("there is a report before anything was counted")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Task().Run(ctx, &work.Progress{}) }()
		synctest.Wait()
		if r := c.Report(); r == nil || r.Layout != 0 {
			t.Fatalf("%+v", r)
		}
		f.become(&placement.State{View: layout.View{New: makeLayout(t, nil, holders(3, 1<<40), 3)}})
		time.Sleep(leastPause)
		synctest.Wait()
		if r := c.Report(); r.Layout != 1 || r.Owed["n1"] != 0 {
			t.Fatalf("after the layout changed: %+v", r)
		}
		f.seal(catalog.SealFact{Stripe: shard.Stripe{Pack: [16]byte{7}, Generation: 1}, Code: shard.Code{K: 1, M: 2}, Size: 1000, Virtual: catalog.NoShard})
		time.Sleep(every)
		synctest.Wait()
		if r := c.Report(); r.Owed["n1"] != 1000 || r.Owed["n2"] != 1000 || r.Owed["n0"]+r.Owed["n0b"] != 1000 {
			t.Fatalf("after a pack was sealed: %+v", r)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
