package repair

import (
	"errors"
	"testing"
	"time"

	"pelago/cluster/layout"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/held"
)

// Each of these faults cost somebody data. The check of each holds without it, and
// fails with it: a suite that does not see one is none.
func TestDeliberateBugsAreSeen(t *testing.T) {
	seen := map[bug]bool{}
	for _, one := range []struct {
		name  string
		bug   bug
		check func(w *network, with bug) (lost bool)
	}{
		{"a repair that spreads rotten bytes", bugTrustsSource, spreadsRot},
		{"a drop without a receipt", bugNoReceipt, dropsWithoutReceipt},
		{"a drop of what no seal names", bugUnreferenced, dropsUnreferenced},
		{"a drop while the layout changes", bugDuringChange, dropsDuringChange},
		{"a drop for a later generation that is not whole", bugGenerations, dropsForGeneration},
	} {
		for _, with := range []bug{0, one.bug} {
			onNetwork(t, 6, 4, 2, func(w *network) {
				if got := one.check(w, with); got != (with != 0) {
					t.Errorf("%s: switched on: %t, seen: %t", one.name, with != 0, got)
				}
			})
		}
		seen[one.bug] = true
	}
	for b := bug(1); b < bugs; b++ {
		if !seen[b] {
			t.Errorf("nothing looks for bug %d", b)
		}
	}
}

// run has a node, or all, repair with a bug for a time.
func (w *network) run(with bug, of ...*node) {
	if len(of) == 0 {
		for _, id := range w.names {
			of = append(of, w.nodes[id])
		}
	}
	for _, d := range of {
		d.bug = with
		d.start()
	}
	passes(3 * time.Hour)
}

// spreadsRot: who stands in for the owner has other bytes under the shard's name, whole
// in themselves.
func spreadsRot(w *network, with bug) bool {
	m := w.sealed(small, 100_000, func(m *made, f *catalog.SealFact) {
		row := w.row(m)
		f.Elsewhere = []catalog.Elsewhere{{Shard: 1, Node: row[4]}}
		other := w.encode(small, 100_000, m.head.Stripe.Pack, 1)
		w.made = w.made[:len(w.made)-1]
		if other.head.Root() == m.head.Root() {
			w.t.Fatal("the same bytes")
		}
		w.nodes[row[4]].put(other, 1)
	})
	w.run(with, w.owner(m, 1))
	st, err := w.owner(m, 1).store.Status(m.name(1))
	return err != nil || st.Root != m.head.Root() || !w.owner(m, 1).holds(m, 1)
}

// dropsWithoutReceipt: the owner by the seal does not have it.
func dropsWithoutReceipt(w *network, with bug) bool {
	var d *node
	m := w.sealed(large, 300_000, func(m *made, _ *catalog.SealFact) {
		d = w.nodes[w.row(m)[5]]
		d.put(m, 3)
	})
	w.owner(m, 3).lose(m, 3)
	w.run(with, d)
	return !d.holds(m, 3)
}

// dropsUnreferenced: a shard of which the catalogue knows nothing.
func dropsUnreferenced(w *network, with bug) bool {
	m := w.encode(large, 300_000, [16]byte{}, 1)
	w.made = nil
	d := w.nodes[w.names[1]]
	d.put(m, 0)
	w.run(with, d)
	return !d.holds(m, 0)
}

// dropsDuringChange: the new owner has the shard, and others have not applied the
// change yet.
func dropsDuringChange(w *network, with bug) bool {
	m := w.sealed(large, 300_000, nil)
	before := w.owner(m, 0)
	w.change(before.id)
	w.seal2(m)
	w.mu.Lock()
	w.complete["nobody"] = 0
	w.mu.Unlock()
	after := w.owner(m, 0)
	if after == before {
		w.t.Fatal("nothing moves")
	}
	after.put(m, 0)
	w.run(with, before)
	return !before.holds(m, 0)
}

// A change of the layout that begins while the store waits for its locks keeps what was
// to go: by the new one it may belong here again.
func TestNothingGoesIfTheLayoutChangesWhileTheStoreWaits(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		m := w.sealed(large, 300_000, nil)
		before := w.owner(m, 0)
		w.change(before.id)
		w.seal2(m)
		after := w.owner(m, 0)
		if after == before {
			t.Fatal("nothing moves")
		}
		after.put(m, 0)
		w.mu.Lock()
		w.becomeLocked(layout.View{New: w.state.View.New})
		w.mu.Unlock()
		changes := 0
		before.dropping = func() {
			if changes++; changes == 1 {
				w.change() // which does not end: the others are not there
			}
		}
		w.run(0, before)
		if changes == 0 || !before.holds(m, 0) {
			t.Errorf("after %d changes it is here: %t", changes, before.holds(m, 0))
		}
	})
}

// seal2 has the seal say that all is at the owners by the new layout.
func (w *network) seal2(m *made) {
	s := *w.sealOf(m)
	s.Revision++
	s.Layout = w.state.View.New.Version
	if err := w.commit(&s); err != nil {
		w.t.Fatal(err)
	}
}

// dropsForGeneration: a second generation is sealed with two of its shards.
func dropsForGeneration(w *network, with bug) bool {
	m := w.sealed(large, 300_000, nil)
	next := w.encode(small, 300_000, m.head.Stripe.Pack, 2)
	w.made = w.made[:1]
	s := *w.sealOf(m)
	s.Stripe, s.Code, s.Root, s.Size, s.Receipts, s.Revision = next.head.Stripe, next.head.Code, next.head.Root(), next.head.Size, 1, 0
	w.owner(next, 0).put(next, 0)
	if err := w.commit(&s); err != nil {
		w.t.Fatal(err)
	}
	d := w.owner(m, 1)
	w.run(with, d)
	return !d.holds(m, 1)
}

// row are the nodes of a stripe's row.
func (w *network) row(m *made) (ids []string) {
	for i := range w.state.View.New.Width() {
		ids = append(ids, at(w.state.View.New, m.head.Stripe.Pack, i).ID)
	}
	return ids
}

// A stripe that a whole later generation has taken the place of goes, when as many of
// its holders say that they have it as the network promises, and not before.
func TestASupersededStripeGoesWhenTheOtherIsThere(t *testing.T) {
	onNetwork(t, 6, 4, 2, func(w *network) {
		m := w.sealed(large, 300_000, nil)
		next := w.encode(large, 300_000, m.head.Stripe.Pack, 2)
		w.made = w.made[:1]
		s := *w.sealOf(m)
		s.Stripe, s.Root, s.Size, s.Receipts, s.Revision = next.head.Stripe, next.head.Root(), next.head.Size, 0b1111, 0
		s.Withdrawn, s.Survives = 1, 2
		if next.head.Size != m.head.Size {
			t.Fatal("not the same pack")
		}
		if err := w.commit(&s); err != nil {
			t.Fatal(err)
		}
		if w.refused > 0 {
			t.Fatal("the network does not take the second generation")
		}
		for i := range 3 {
			w.owner(next, i).put(next, i)
		}
		w.mu.Lock()
		w.before = func(_, _, kind string) error { // nobody brings the fourth
			if kind == "leaves" {
				return errors.New("no answer")
			}
			return nil
		}
		w.mu.Unlock()
		w.startAll()
		passes(time.Hour)
		for i := range 4 {
			if !w.owner(m, i).holds(m, i) {
				t.Errorf("shard %d is gone, of the generation that has four", i)
			}
		}
		w.mu.Lock()
		w.before = nil
		w.mu.Unlock()
		passes(3 * time.Hour)
		for i := range 4 {
			st, err := w.owner(m, i).store.Status(m.name(i))
			if err != nil || st.State != held.Dropped {
				t.Errorf("shard %d: %v, %v", i, st.State, err)
			}
			if !w.owner(next, i).holds(next, i) {
				t.Errorf("shard %d of the second generation is lacking", i)
			}
		}
	})
}

// What the two rows of a change and the seal say of where a shard counts, and what
// news says of the others.
func TestNewsDuringAChangeSaysOfOthersWhatIsSo(t *testing.T) {
	onNetwork(t, 7, 4, 2, func(w *network) {
		before := w.state.View.New
		w.lost[w.names[1]] = true
		after := mustCompute(t, before, w, 4)
		drained, err := layout.Compute(before, w.holders(w.names[3]), 4)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range []*layout.Layout{after, drained} {
			for g := range l.Groups {
				seal := &catalog.SealFact{Code: large, Receipts: 0b1111, Virtual: catalog.NoShard, Layout: before.Version}
				seal.Stripe.Pack = packOf(g, l.Groups)
				for pos := range 4 {
					p := &plan{self: l.At(g, pos).ID, view: layout.View{New: l, Old: before}, lost: func(n string) bool { return w.lost[n] }}
					next := p.landed(seal, pos)
					moved, gone := before.At(g, pos).ID != p.self, w.lost[before.At(g, pos).ID]
					if (next != nil) != (moved && gone) {
						t.Fatalf("layout %d, group %d, shard %d: moved %t, from who is lost %t: %+v", i, g, pos, moved, gone, next)
					}
					if next == nil {
						continue
					}
					for j := range 4 {
						was, is := p.counted(seal, j), p.counted(next, j)
						switch {
						case j == pos && is != p.self:
							t.Fatalf("shard %d counts at %q", j, is)
						case j != pos && w.lost[was] && is != "", j != pos && !w.lost[was] && is != was:
							t.Fatalf("shard %d counted at %s, and now at %q", j, was, is)
						}
					}
				}
			}
		}
	})
}

// packOf is a pack of a placement group.
func packOf(group, groups int) (id [16]byte) {
	for i := 0; ; i++ {
		id = [16]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}
		if shard.Group(id, groups) == group {
			return id
		}
	}
}
