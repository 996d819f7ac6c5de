package protect

import (
	"context"
	"slices"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/placement"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
)

// twoAndTwo is a code with a shard more than t = 1 takes: what is lacking may hide.
var twoAndTwo = shard.Code{K: 2, M: 2}

func TestAPackWithAllItsShardsIsCommitted(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		m, origin := w.spreadPack(twoAndTwo, nil)
		w.startAll(0)
		began := time.Now()
		if err := origin.asks(m.sop(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if origin.read != 1 {
			t.Errorf("the copy was read %d times", origin.read)
		}
		for range 100 { // an image each
			if err := origin.Committed(t.Context(), "1.2", m.sop(), "MODALITY"); err != nil {
				t.Fatal(err)
			}
		}
		if w.asked["/held/proofs"] != 3 || w.asked[pathConfirm] != 3 || w.asked["/held/receipts"] != 3 {
			t.Errorf("asked %v", w.asked)
		}
		time.Sleep(2 * freshFor) // what was found is too old: the same again
		if err := origin.asks(m.sop(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if w.asked["/held/proofs"] != 6 || origin.read != 1 {
			t.Errorf("asked %v, read %d times", w.asked, origin.read)
		}
	})
}

func TestWhatIsStagedIsPackedSpreadAndCommitted(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		w.delay = 80 * time.Millisecond
		m := w.encode(twoAndTwo, nil, "origin")
		origin := w.owner(m, 0)
		w.encoded(m, origin)
		name := archive.SeriesName{Study: m.seal.Study, Series: m.seal.Series}
		origin.rests[m.sop()] = archive.Resting{Staged: []archive.SeriesName{name}}
		origin.pack = func([]archive.SeriesName) error {
			time.Sleep(500 * time.Millisecond)
			origin.mu.Lock()
			defer origin.mu.Unlock()
			origin.rests[m.sop()] = archive.Resting{Packs: []pack.ID{m.head.Stripe.Pack}}
			return nil
		}
		origin.spread = func([]pack.ID) {
			go func() {
				time.Sleep(300 * time.Millisecond)
				w.hold(m, nil)
				w.tell(m)
			}()
		}
		w.startAll(0)
		began := time.Now()
		if err := origin.asks(m.sop(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("it took %v, of which others took 800 ms", took)
		}
		if len(origin.packed) != 1 || !slices.Equal(origin.packed[0], []archive.SeriesName{name}) || !slices.Equal(origin.hurried, []pack.ID{m.head.Stripe.Pack}) {
			t.Errorf("packed %v, hurried %v", origin.packed, origin.hurried)
		}
	})
}

// What was packed is left alone until somebody asks again, who may wait for what came
// since; what failed is tried again unasked.
func TestASeriesIsPackedForWhoAsksAndNotForMinutes(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		m := w.encode(twoAndTwo, nil, "origin")
		origin := w.owner(m, 0)
		name := archive.SeriesName{Study: m.seal.Study, Series: m.seal.Series}
		origin.rests[m.sop()] = archive.Resting{Staged: []archive.SeriesName{name}}
		origin.fails[m.sop()] = nil
		failing := 2
		origin.pack = func([]archive.SeriesName) error {
			origin.mu.Lock()
			defer origin.mu.Unlock()
			if failing--; failing >= 0 {
				return fault.New(fault.Full, "no room")
			}
			return nil
		}
		packed := func() int {
			origin.mu.Lock()
			defer origin.mu.Unlock()
			return len(origin.packed)
		}
		ask := func() {
			t.Helper()
			if err := origin.Committed(t.Context(), "", m.sop(), ""); !fault.Is(err, fault.Unavailable) {
				t.Errorf("it is staged: %v", err)
			}
		}
		w.startAll(0)
		ask()
		time.Sleep(4 * time.Minute)
		if n := packed(); n != 3 {
			t.Errorf("packed %d times: twice in vain, and once", n)
		}
		for i := range 3 {
			ask()
			time.Sleep(4 * time.Second)
			if n := packed(); n != 4+i {
				t.Errorf("packed %d times, after it was asked again %d times", n, i+1)
			}
		}
		ask()
		ask()
		time.Sleep(10 * time.Minute)
		origin.Protect.mu.Lock()
		remembered := len(origin.series)
		origin.Protect.mu.Unlock()
		if n := packed(); n != 7 || remembered != 0 {
			t.Errorf("packed %d times, %d series are remembered", n, remembered)
		}
	})
}

// Each fault would have an instance reported safe that is not: without it nobody says
// so, and with it somebody does, so that what sets the two apart is what is tested.
func TestNothingElseIsTakenForSafe(t *testing.T) {
	down := func(w *world, m *made, shards ...int) {
		for _, i := range shards {
			w.down[w.owner(m, i).id] = true
		}
	}
	for _, test := range []struct {
		name string
		bug  bug
		make func(t *testing.T, w *world) (sop string, asks *node)
	}{
		{"k shards are left", bugJustEnough, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			down(w, m, 2, 3)
			return m.sop(), origin
		}},
		{"two nodes of a site hold shards", bugNodes, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			down(w, m, 3)
			w.owner(m, 1).site = w.owner(m, 2).site
			return m.sop(), origin
		}},
		{"a shard is cut from a copy at a site that should hold it", bugAnyCopy, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, func(_ *made, lacks map[int]bool) { lacks[2] = true })
			w.owner(m, 2).copies[m.head.Stripe] = m
			down(w, m, 3)
			return m.sop(), origin
		}},
		{"the copy is rotten", bugCopyUnread, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			down(w, m, 3)
			origin.rotten[m.head.Stripe] = true
			return m.sop(), origin
		}},
		{"nodes are alive by gossip and do not answer", bugGossip, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			down(w, m, 1, 2)
			return m.sop(), origin
		}},
		{"a receipt is of an older generation", bugAnyReceipt, func(t *testing.T, w *world) (string, *node) {
			old := w.encode(twoAndTwo, nil, "origin")
			origin := w.owner(old, 0)
			w.encoded(old, origin)
			m := w.encoded(w.encode(twoAndTwo, old, "origin"), origin)
			w.hold(old, nil)
			w.hold(m, map[int]bool{2: true})
			w.tell(m)
			down(w, m, 3)
			w.owner(m, 2).copies[m.head.Stripe] = m // its bytes can be shown
			origin.shards = olderReceipts{origin.client(), w.owner(m, 2).id, held.Entry{Name: held.Name{Stripe: old.head.Stripe, Index: 2}, Root: old.head.Root()}}
			return m.sop(), origin
		}},
		{"too few sites have the key", bugKeysFollow, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			for i := range 4 {
				if n := w.owner(m, i); n != origin {
					n.keys[m.seal.Key] = true
				}
			}
			return m.sop(), origin
		}},
		{"the seal is applied here only", bugSealHere, func(t *testing.T, w *world) (string, *node) {
			var origin *node
			m, _ := w.spreadPack(twoAndTwo, func(m *made, _ map[int]bool) {
				origin = w.nodes[m.seal.Origin]
				for _, n := range w.nodes {
					n.lags = n != origin
				}
			})
			origin.catchUp()
			return m.sop(), origin
		}},
		{"it survived once, and sites are gone since", bugOnceIsEnough, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			if err := origin.asks(m.sop(), time.Minute); err != nil {
				t.Fatal(err)
			}
			w.set(w.down, w.owner(m, 2).id, true)
			w.set(w.down, w.owner(m, 3).id, true)
			time.Sleep(time.Minute)
			return m.sop(), origin
		}},
		{"a node that is cut off takes itself for alone", bugOwnView, func(t *testing.T, w *world) (string, *node) {
			n := w.nodes[w.ids[1]]
			n.mu.Lock()
			n.state = &placement.State{}
			n.rests["1.2.3"], n.lags = archive.Resting{}, true
			n.mu.Unlock()
			n.end()
			if err := n.catalog.Close(); err != nil { // it is behind since two nodes of its site were all
				t.Fatal(err)
			}
			early, solo := openAlone(t)
			for _, id := range []string{n.id, "other", "decider"} {
				if _, err := solo.Do(alone.Member(id, n.site)); err != nil {
					t.Fatal(err)
				}
			}
			n.catalog = early
			n.start()
			w.set(w.down, n.id, true)
			return "1.2.3", n
		}},
		{"a node that is cut off goes by a t that was lower", bugOwnView, func(t *testing.T, w *world) (string, *node) {
			m, origin := w.spreadPack(twoAndTwo, nil)
			origin.mu.Lock()
			origin.state = w.state
			origin.mu.Unlock()
			next := *w.state
			next.Survives = 2
			w.become(&next)
			w.set(w.down, w.owner(m, 3).id, true)
			origin.Protect.o.Current = func(ctx context.Context) error { return fault.New(fault.Unavailable, "no leader answers") }
			return m.sop(), origin
		}},
	} {
		for _, b := range []bug{0, test.bug} {
			name := test.name
			if b != 0 {
				name += ", and nobody looks"
			}
			t.Run(name, func(t *testing.T) {
				inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
					for _, id := range w.ids {
						w.nodes[id].bug = b
					}
					for _, id := range w.ids {
						w.nodes[id].Protect = nil
					}
					w.lateStart()
					sop, n := test.make(t, w)
					w.lateShards()
					err := n.asks(sop, 3*time.Minute)
					if safe := err == nil; safe != (b != 0) || err != nil && !fault.Is(err, fault.Unavailable) {
						t.Errorf("safe %t, %v", safe, err)
					}
				})
			})
		}
	}
}

// lateStart starts all nodes before anything is made.
func (w *world) lateStart() {
	for _, id := range w.ids {
		w.nodes[id].start()
	}
}

// lateShards has nodes ask through what a test has put in between.
func (w *world) lateShards() {
	for _, n := range w.nodes {
		if n.shards != nil {
			n.end()
			n.start()
		}
	}
}

// olderReceipts has a node answer with the receipt of a stripe that it really holds.
type olderReceipts struct {
	Shards
	node string
	of   held.Entry
}

func (o olderReceipts) Receipts(ctx context.Context, node string, entries []held.Entry) (*held.Landed, error) {
	l, err := o.Shards.Receipts(ctx, node, entries)
	if node != o.node || err != nil {
		return l, err
	}
	older, err := o.Shards.Receipts(ctx, node, []held.Entry{o.of})
	if err != nil {
		return nil, err
	}
	for i := range l.Outcomes {
		l.Outcomes[i] = held.Known
	}
	l.Receipt = older.Receipt
	return l, nil
}

func TestTheManifestIsOnEnoughSites(t *testing.T) {
	f := &catalog.SealFact{Code: twoAndTwo, Virtual: 0, Origin: "a"}
	e := evidence{keepers: []string{"A", "B"}}
	for i, site := range []string{"A", "B", "C", "D"} {
		e.shards = append(e.shards, proof{index: i, node: string(rune('a' + i)), site: site, cut: i == 0})
	}
	all := func(int) bool { return true }
	first := func(i int) bool { return i == 0 }
	if err := lacks(f, all, 1, e, 0); err != nil {
		t.Error(err)
	}
	if err := lacks(f, first, 1, e, 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one site has the manifest: %v", err)
	}
	if lacks(f, first, 1, e, bugNoManifest) != nil {
		t.Error("nothing else keeps it from being safe")
	}
}

func TestWhatIsLookedAtAgainIsNotTakenForSafeMeanwhile(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		m, origin := w.spreadPack(twoAndTwo, nil)
		w.startAll(0)
		if err := origin.asks(m.sop(), time.Minute); err != nil {
			t.Fatal(err)
		}
		// Later two sites are gone. What has changed since has the pack looked at again,
		// which takes as long as those who are there take to answer.
		time.Sleep(4 * freshFor)
		w.mu.Lock()
		w.delay = lookTime / 2
		w.mu.Unlock()
		for _, i := range []int{1, 2} {
			w.set(w.down, w.owner(m, i).id, true)
		}
		next := *w.state
		w.become(&next)
		time.Sleep(time.Second)
		for range 2 * lookTime / time.Second {
			if err := origin.Committed(t.Context(), "1.2", m.sop(), "MODALITY"); !fault.Is(err, fault.Unavailable) {
				t.Fatalf("two of four holders are gone: %v", err)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestACopyInWhichRotWasMetIsReadAgain(t *testing.T) {
	inWorld(t, 5, twoAndTwo, 1, func(t *testing.T, w *world) {
		m, origin := w.spreadPack(twoAndTwo, nil)
		for w.ids[0] == w.owner(m, 3).id { // who leads must be there
			m, origin = w.spreadPack(twoAndTwo, nil)
		}
		w.set(w.down, w.owner(m, 3).id, true)
		w.startAll(0)
		if err := origin.asks(m.sop(), time.Minute); err != nil {
			t.Fatal(err)
		}
		origin.mu.Lock()
		origin.rotten[m.head.Stripe] = true
		origin.mu.Unlock()
		origin.CopyLost(m.head.Stripe.Pack)
		began := time.Now()
		if err := origin.asks(m.sop(), time.Minute); !fault.Is(err, fault.Unavailable) || time.Since(began) > 2*time.Minute {
			t.Errorf("the copy is rotten, and its shard is needed: %v", err)
		}
		if origin.read < 2 || origin.read > 20 {
			t.Errorf("the copy was read %d times", origin.read)
		}
	})
}
