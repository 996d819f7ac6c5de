package repair

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
)

var (
	large = shard.Code{K: 2, M: 2}
	small = shard.Code{K: 1, M: 2}
)

// A site that is lost is rebuilt by who its rows are given to: first what can lose
// least, each from as many others as it takes; the change of the layout completes.
func TestALostSiteIsRebuiltMostExposedFirst(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		victim := w.names[2]
		var exposed []*made
		late := map[held.Name]bool{}
		for i := range 24 {
			code, size := large, int64(700_000)
			if i%3 == 0 {
				code, size = small, 60_000
			}
			w.sealed(code, size, nil)
		}
		// Of some, a second shard has no receipt, as its holder was down.
		for _, m := range w.made {
			if m.head.Code == large && len(exposed) < 6 {
				exposed = append(exposed, m)
			}
		}
		for _, m := range exposed {
			s := *w.sealOf(m)
			for i := range 4 {
				if o := w.owner(m, i); o.id != victim {
					s.Receipts &^= 1 << i
					late[m.name(i)] = true
					if _, err := o.store.Drop(t.Context(), held.Purged{Index: 1}, m.name(i)); err != nil {
						t.Fatal(err)
					}
					o.forget(m.name(i))
					break
				}
			}
			s.Revision++
			if err := w.commit(&s); err != nil {
				t.Fatal(err)
			}
		}
		w.set(w.lost, victim, true)
		w.set(w.down, victim, true)
		for _, d := range w.nodes {
			d.offer = 1
		}
		w.change()
		w.startAll()
		passes(time.Hour)
		if w.state.View.Old != nil {
			t.Fatalf("the change is not over: %v", w.complete)
		}
		w.whole()
		for _, d := range w.nodes {
			worst := -1
			for _, n := range d.order {
				if late[n] {
					continue // left to the origin at first
				}
				rank := 1
				if slices.Contains(exposed, w.stripe(n.Stripe)) {
					rank = 0
				}
				if rank < worst {
					t.Errorf("%v came after what is less exposed: %v", n, d.order)
				}
				worst = max(worst, rank)
			}
			if s := d.repair; s != nil && (s.Status().Queued != 0 || s.Status().Running != 0) {
				t.Errorf("%+v", s.Status())
			}
		}
		if w.asked[victim+"/leaves"] != 0 {
			t.Errorf("%d ranges were asked of the lost node", w.asked[victim+"/leaves"])
		}
	})
}

// What another holds is copied, once its bytes; only what nobody holds is made of k
// others.
func TestAShardIsCopiedBeforeItIsDecoded(t *testing.T) {
	for _, held := range []bool{true, false} {
		onNetwork(t, 6, 4, 2, func(w *network) {
			m := w.sealed(large, 3_000_000, func(m *made, f *catalog.SealFact) {
				f.Receipts &^= 1 << 3
				if held {
					f.Receipts |= 1 << 3
					row := w.state.View.New.Row(w.state.View.New.Group(shard.Spread(m.head.Stripe.Pack)))
					f.Elsewhere = []catalog.Elsewhere{{Shard: 3, Node: row[4].ID}}
					w.nodes[row[4].ID].put(m, 3)
				}
			})
			w.startAll()
			passes(time.Hour)
			w.whole()
			d := w.owner(m, 3)
			times := float64(d.repair.stats.Fetched.Load()) / float64(m.head.Size/2)
			if held && (times > 1.02 || times < 0.98) || !held && (times > 2.02 || times < 1.98) {
				t.Errorf("held elsewhere: %t: %.2f times its bytes came", held, times)
			}
		})
	}
}

// The origin cuts any shard from its copy.
func TestAShardIsCutFromTheOriginsCopy(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		origin := w.nodes[w.names[0]]
		m := w.sealed(large, 3_000_000, func(m *made, f *catalog.SealFact) {
			origin.hot[m.head.Stripe.Pack] = m
			for i := range 4 {
				if w.owner(m, i) != origin {
					f.Receipts &^= 1 << i
				} else {
					f.Virtual = i
				}
			}
		})
		w.startAll()
		passes(time.Hour)
		w.whole()
		for i := range 4 {
			if d := w.owner(m, i); d != origin {
				if times := float64(d.repair.stats.Fetched.Load()) / float64(m.head.Size/2); times > 1.25 { // a fifth of it its tail, which another column has
					t.Errorf("shard %d: %.2f times its bytes came", i, times)
				}
			} else if d.holds(m, i) {
				t.Error("the origin stores what it cuts from its copy")
			}
		}
	})
}

// A copy of the origin that is rotten is seen when somebody doubts it: its shard is
// made from others, and is cut no more.
func TestARottenCopyIsReplacedByAShard(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		var m *made
		var origin *node
		for m == nil {
			one := w.encode(large, 900_000, [16]byte{byte(len(w.made)), 9}, 1)
			for i := range 4 {
				if w.owner(one, i).id == w.names[0] {
					m, origin = one, w.owner(one, i)
				}
			}
			if m == nil {
				w.made = w.made[:0]
			}
		}
		w.made = []*made{m}
		at := -1
		w.seal(m, func(m *made, f *catalog.SealFact) {
			origin.hot[m.head.Stripe.Pack] = m
			for i := range 4 {
				if w.owner(m, i) == origin {
					f.Virtual, at = i, i
				}
			}
		})
		w.startAll()
		passes(time.Minute)
		other := w.nodes[w.names[1]]
		other.repair.Doubt(m.name(at), origin.id)
		passes(time.Minute)
		if s := w.sealOf(m); s.Virtual != at {
			t.Fatalf("a whole copy is given up: %+v", s)
		}
		origin.rot[m.head.Stripe.Pack] = true
		passes(doubtAgain)
		other.repair.Doubt(m.name(at), origin.id)
		passes(time.Minute)
		if s := w.sealOf(m); s.Virtual != catalog.NoShard || !origin.holds(m, at) {
			t.Fatalf("%+v", s)
		}
		w.whole()
	})
}

// Rot of a source is not written anywhere: other sources are turned to, and the node
// is told to look.
func TestRotOfASourceIsNotSpread(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		var bad string
		m := w.sealed(large, 3_000_000, func(m *made, f *catalog.SealFact) {
			row := w.state.View.New.Row(w.state.View.New.Group(shard.Spread(m.head.Stripe.Pack)))
			bad = row[4].ID
			f.Elsewhere = []catalog.Elsewhere{{Shard: 3, Node: bad}}
			w.nodes[bad].put(m, 3)
		})
		w.spoil = func(node, kind string, b []byte) []byte {
			if node == bad && kind == "leaves" {
				b[len(b)/2] ^= 1
			}
			return b
		}
		w.startAll()
		passes(time.Hour)
		w.whole()
		if w.nodes[bad].repair.stats.Doubted.Load() == 0 {
			t.Error("the node was not told to look")
		}
		if !w.nodes[bad].holds(m, 3) {
			t.Log("what it has was whole, and went only for a receipt")
		}
	})
}

// Rot in different places of all others loses nothing.
func TestRotInDifferentPlacesLosesNothing(t *testing.T) {
	onNetwork(t, 4, 4, 2, func(w *network) {
		m := w.sealed(large, 3_000_000, func(_ *made, f *catalog.SealFact) { f.Receipts &^= 1 << 3 })
		w.spoil = func(node, kind string, b []byte) []byte {
			if kind != "leaves" {
				return b
			}
			for i := range 3 { // one bit each, of answers long enough to have several leaves
				if node == w.owner(m, i).id && len(b) > 20*shard.LeafBytes {
					b[(5+10*i)*shard.LeafBytes] ^= 1
				}
			}
			return b
		}
		w.startAll()
		passes(2 * time.Hour)
		w.whole()
	})
}

// A shard that rots here is rebuilt at once, and the seal never says otherwise; if it
// cannot be had, the receipt is withdrawn within a minute, and given again later.
func TestALostShardIsRebuiltOrWithdrawn(t *testing.T) {
	onNetwork(t, 4, 4, 2, func(w *network) {
		m := w.sealed(large, 900_000, nil)
		w.startAll()
		passes(time.Minute)
		d := w.owner(m, 1)
		d.lose(m, 1)
		passes(5 * time.Second)
		if !d.holds(m, 1) {
			t.Fatal("it is not rebuilt")
		}
		if s := w.sealOf(m); s.Revision != 0 {
			t.Errorf("the network was told: %+v", s)
		}
		for i := range 4 {
			if o := w.owner(m, i); o != d {
				w.set(w.down, o.id, true)
			}
		}
		d.lose(m, 1)
		passes(time.Minute)
		if s := w.sealOf(m); s.Receipts != 0b1101 {
			t.Fatalf("its receipt still stands: %04b", s.Receipts)
		}
		for _, id := range w.names {
			w.set(w.down, id, false)
		}
		passes(2 * time.Hour)
		w.whole()
	})
}

// A node that is drained is emptied by those who get its rows, and drops what they
// have proved to hold.
func TestADrainedNodeIsEmptied(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		for i := range 10 {
			w.sealed(large, 300_000+int64(i)*1000, nil)
			w.sealed(small, 20_000, nil)
		}
		victim := w.nodes[w.names[4]]
		w.startAll()
		passes(time.Minute)
		w.change(victim.id)
		passes(2 * time.Hour)
		w.whole()
		for _, m := range w.made {
			for i := range m.head.Code.N() {
				if victim.holds(m, i) {
					t.Errorf("%v is still here", m.name(i))
				}
				if n := w.copiesOf(m, i); n != 1 {
					t.Errorf("%d nodes hold %v", n, m.name(i))
				}
			}
		}
		for _, d := range w.nodes {
			if f := d.repair.stats.Fetched.Load(); f > uint64(float64(d.repair.stats.Bytes.Load())*1.01) {
				t.Errorf("%d bytes came for %d", f, d.repair.stats.Bytes.Load())
			}
		}
	})
}

// A site that comes takes its part from who had it, and no seal is told anew for that.
func TestASiteThatComesIsFilledWithoutNews(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		for range 16 {
			w.sealed(large, 200_000, nil)
		}
		w.startAll()
		passes(time.Minute)
		w.join(6).start()
		w.change()
		passes(2 * time.Hour)
		w.whole()
		total := 0
		for _, m := range w.made {
			if s := w.sealOf(m); s.Revision != 0 {
				t.Errorf("%+v", s)
			}
			for i := range 4 {
				total += w.copiesOf(m, i)
			}
		}
		if total != 4*len(w.made) {
			t.Errorf("%d shards of %d", total, 4*len(w.made))
		}
	})
}

// A node that was declared lost and is back keeps what it has until those who took its
// place have proved theirs.
func TestAReturnedNodeDropsForProofOnly(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		for range 12 {
			w.sealed(large, 200_000, nil)
		}
		back := w.nodes[w.names[2]]
		w.set(w.lost, back.id, true)
		w.set(w.down, back.id, true)
		w.change()
		w.startAll()
		passes(time.Hour)
		w.whole()
		// It is back, and nobody gives receipts.
		w.before = func(_, _, kind string) error {
			if kind == "receipts" || kind == "proofs" {
				return errors.New("no answer")
			}
			return nil
		}
		w.set(w.lost, back.id, false)
		w.set(w.down, back.id, false)
		back.start()
		w.change()
		passes(2 * time.Hour)
		kept := 0
		for _, m := range w.made {
			for i := range 4 {
				if back.holds(m, i) {
					kept++
				}
			}
		}
		if back.repair.stats.Dropped.Load() != 0 || kept == 0 {
			t.Fatalf("%d were dropped without proof, %d kept", back.repair.stats.Dropped.Load(), kept)
		}
		w.mu.Lock()
		w.before = nil
		w.mu.Unlock()
		passes(2 * time.Hour)
		w.whole()
		for _, m := range w.made {
			for i := range 4 {
				if n := w.copiesOf(m, i); n != 1 {
					t.Errorf("%d nodes hold %v", n, m.name(i))
				}
			}
		}
	})
}

// Of two nodes that tell of one stripe at once, one is refused, reads, and tells anew.
func TestNewsOfOneStripeByTwoNodes(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		w.from = "gone"
		w.set(w.down, w.from, true)
		for range 6 {
			w.sealed(large, 200_000, func(_ *made, f *catalog.SealFact) { f.Receipts = 0b0011 })
		}
		w.delayed = true
		w.startAll()
		for range 20 {
			passes(time.Minute)
			w.flush()
		}
		if w.refused == 0 {
			t.Error("nobody was refused: the test tests nothing")
		}
		w.whole()
	})
}

// Without room the large wait, the small land; with room, all do.
func TestAFullDiskWaitsAndStarvesNobody(t *testing.T) {
	onNetwork(t, 4, 4, 2, func(w *network) {
		var d *node
		for range 8 {
			m := w.sealed(large, 2_000_000, func(m *made, f *catalog.SealFact) { f.Receipts &^= 1 })
			d = w.owner(m, 0)
			w.sealed(small, 20_000, func(m *made, f *catalog.SealFact) { f.Receipts &^= 1 })
		}
		var isFull atomic.Bool
		isFull.Store(true)
		for _, d := range w.nodes {
			d.full = func(n int64) bool { return isFull.Load() && n > 100_000 }
		}
		w.startAll()
		passes(time.Hour)
		for _, m := range w.made {
			if got, want := w.owner(m, 0).holds(m, 0), m.head.Code == small; got != want {
				t.Errorf("a shard of %v is here: %t", m.head.Code, got)
			}
		}
		if s := d.repair.Status(); s.Queued == 0 || s.Left == 0 {
			t.Errorf("%+v", s)
		}
		isFull.Store(false)
		passes(10 * time.Minute)
		w.whole()
	})
}

// Beside readers small shards land several at a time, each by itself if there is no
// room for all; one that cannot be had keeps none of the others.
func TestBesideReadersSmallShardsLandTogether(t *testing.T) {
	for name, room := range map[string]int64{"together": 1 << 20, "each": 30_000} {
		t.Run(name, func(t *testing.T) {
			onNetwork(t, 4, 4, 2, func(w *network) {
				var gone *made
				for i := range 60 {
					m := w.sealed(small, 20_000, func(_ *made, f *catalog.SealFact) { f.Receipts &^= 1 })
					if i == 30 {
						gone = m
					}
				}
				d := w.owner(gone, 0)
				for i := 1; i < 3; i++ {
					w.owner(gone, i).lose(gone, i)
				}
				lacking := 0
				for _, m := range w.made {
					if w.owner(m, 0) == d {
						lacking++
					}
				}
				for _, d := range w.nodes {
					d.busy = true
					d.full = func(n int64) bool { return n > room }
				}
				w.startAll()
				passes(time.Hour)
				for _, m := range w.made {
					if got, want := w.owner(m, 0).holds(m, 0), m != gone; got != want {
						t.Errorf("a shard is here: %t, want %t", got, want)
					}
				}
				if together := d.landings <= lacking/3; len(d.order) != lacking-1 || together != (name == "together") {
					t.Errorf("%d shards landed of %d that were lacking, at %d times", len(d.order), lacking, d.landings)
				}
			})
		})
	}
}

// Interrupted at any call, and begun again, it comes to the same end.
func TestInterruptedAtEachStepItEndsAlike(t *testing.T) {
	steps, stride := 40, 3
	if testing.Short() {
		stride = 9
	}
	for step := 1; step <= steps; step += stride {
		onNetwork(t, 5, 4, 1, func(w *network) {
			for range 2 {
				w.sealed(large, 400_000, nil)
			}
			w.sealed(small, 30_000, nil)
			victim := w.names[3]
			w.set(w.lost, victim, true)
			w.set(w.down, victim, true)
			var calls atomic.Int64
			cut := make(chan string, 1)
			w.before = func(from, _, _ string) error {
				if calls.Add(1) == int64(step) {
					cut <- from
					return errors.New("cut off")
				}
				return nil
			}
			w.change()
			w.startAll()
			select {
			case id := <-cut:
				d := w.nodes[id]
				d.end()
				d.close()
				d.open()
				d.start()
			case <-time.After(time.Hour):
			}
			passes(3 * time.Hour)
			if w.state.View.Old != nil {
				t.Fatalf("step %d: the change is not over", step)
			}
			w.whole()
		})
	}
}

// A shard that is where no layout names it is found by asking everybody.
func TestAShardIsFoundWhereNoLayoutNamesIt(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		m := w.sealed(large, 400_000, func(_ *made, f *catalog.SealFact) { f.Receipts = 0b0001 })
		row := w.state.View.New.Row(w.state.View.New.Group(shard.Spread(m.head.Stripe.Pack)))
		w.nodes[row[5].ID].put(m, 2)
		w.startAll()
		passes(2 * time.Hour)
		w.whole()
	})
}

// What nobody has enough for waits, is told of, and keeps neither others nor the
// network's next layout waiting; it is brought when somebody comes back with it.
func TestWhatIsLostKeepsNobodyWaiting(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		m := w.sealed(large, 300_000, nil)
		var gone []string
		for i := range 3 {
			gone = append(gone, w.owner(m, i).id)
		}
		for range 6 {
			w.sealed(shard.Code{K: 1, M: 3}, 30_000, nil)
		}
		for _, id := range gone {
			w.set(w.lost, id, true)
			w.set(w.down, id, true)
		}
		w.state.View.New = mustCompute(t, w.state.View.New, w, 3) // n is as many sites as are left
		w.startAll()
		passes(3 * time.Hour)
		lost := 0
		for _, id := range w.names {
			if !slices.Contains(gone, id) {
				lost += w.nodes[id].repair.Status().Lost
				if w.complete[id] == 0 {
					t.Errorf("node %s has not completed the layout: %+v", id, w.nodes[id].repair.Status())
				}
			}
		}
		if lost == 0 {
			t.Error("nothing is said to be lost")
		}
		for _, o := range w.made[1:] {
			for i := range 3 {
				if !w.owner(o, i).holds(o, i) {
					t.Errorf("%v is not brought", o.name(i))
				}
			}
		}
		for _, id := range gone {
			w.set(w.down, id, false)
		}
		passes(3 * time.Hour)
		for i := range 3 {
			if !w.owner(m, i).holds(m, i) {
				t.Errorf("%v is not brought", m.name(i))
			}
		}
	})
}

// Doubts of others are bounded, and those that are made up count for nothing.
func TestMadeUpDoubtsSilenceNobody(t *testing.T) {
	onNetwork(t, 4, 4, 2, func(w *network) {
		m := w.sealed(large, 300_000, nil)
		d := w.owner(m, 0)
		w.startAll()
		passes(time.Minute)
		for i := range 3 * maxDoubts {
			name := m.name(0)
			name.Pack[0], name.Pack[1], name.Pack[2] = byte(i), byte(i>>8), 77
			response, err := (&Repair{o: Options{Calls: caller{w, "hostile"}}}).send(t.Context(), d.id, "POST", pathDoubt, appendName(nil, name))
			if !fault.Is(err, fault.NotFound) {
				t.Fatal(response, err)
			}
		}
		w.owner(m, 1).repair.Doubt(m.name(0), d.id)
		passes(time.Minute)
		if n := d.repair.stats.Doubted.Load(); n != 1 {
			t.Errorf("%d shards were read", n)
		}
	})
}

func (w *network) stripe(s shard.Stripe) *made {
	for _, m := range w.made {
		if m.head.Stripe == s {
			return m
		}
	}
	panic(fmt.Sprint("no stripe ", s))
}

// A network that was recovered has no memory of its last layouts, and makes others of
// their versions: who has said of the former that it has all of it says so again.
func TestAVersionThatComesAgainIsCompletedAgain(t *testing.T) {
	onNetwork(t, 4, 2, 1, func(w *network) {
		w.sealed(small, 60_000, nil)
		w.startAll()
		passes(time.Hour)
		w.mu.Lock()
		if len(w.complete) != len(w.names) {
			t.Errorf("%v", w.complete)
		}
		clear(w.complete)
		again := *w.state.View.New
		w.becomeLocked(layout.View{New: &again})
		w.mu.Unlock()
		passes(time.Hour)
		if len(w.complete) != len(w.names) {
			t.Errorf("%v", w.complete)
		}
	})
}
