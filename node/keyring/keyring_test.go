package keyring

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/identity"
	"pelago/node/member"
	"pelago/replication/catalog"
)

func TestAMemberThatJoinsIsGivenAllEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		if !a.Ready(a.id()) || a.self.Current() != 1 {
			t.Fatalf("the founder holds %v", a.self.Epochs())
		}
		gone := w.join(nil)
		w.until("the second has the first epoch", func() bool { return same(1, a, gone) })
		w.remove(gone)
		w.until("the epoch turns", func() bool { return len(a.self.Epochs()) == 2 })
		b := w.join(nil)
		if a.Ready(b.id()) {
			t.Error("it is ready before it was given anything")
		}
		w.until("it has both", func() bool { return same(2, a, b) && a.Ready(b.id()) && b.Ready(b.id()) })
		if s := b.State(); s != (State{Held: 2}) {
			t.Errorf("%+v", s)
		}
		if b.log.Count("this node holds keys") != 1 || a.log.Count("a member was given") != 2 {
			t.Error("not one line for each")
		}
	})
}

func TestWitnessesAndUnprovedKeysGetNoEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		witness := w.join(func(m *member.Member) { m.Witness = true })
		liar := w.join(func(m *member.Member) { m.Proof[3] ^= 1 })
		other := w.make()
		swapped := w.join(func(m *member.Member) { m.Sealing, m.Proof = other.self.Sealing(), other.self.SealingProof() })
		gone := w.join(nil)
		w.until("an honest one has it", func() bool { return same(1, a, gone) })
		w.remove(gone) // the turn looks for itself whom it seals to
		w.until("the epoch turns", func() bool { return len(a.self.Epochs()) == 2 })
		time.Sleep(time.Minute)
		for name, n := range map[string]*node{"a witness": witness, "a false proof": liar, "another node's key": swapped} {
			if len(n.self.Epochs()) != 0 || a.Ready(n.id()) {
				t.Errorf("%s holds %v", name, n.self.Epochs())
			}
			for _, envelope := range w.memory.Names(kindEnvelope) {
				if strings.HasSuffix(envelope, n.id()) {
					t.Errorf("%s has an envelope", name)
				}
			}
		}
		if s := witness.State(); s.Lacking != 0 {
			t.Errorf("a witness lacks %d", s.Lacking)
		}
		if n := a.log.Count("gets no keys"); n != 2 {
			t.Errorf("%d lines about keys that are not proved", n)
		}
		// Whoever seals to a witness, it takes nothing.
		sealed, err := a.self.SealEpoch(witness.self.Sealing(), 1)
		if err != nil {
			t.Fatal(err)
		}
		w.memory.Put(kindEnvelope, envelope{1, witness.id()}.name(), sealed)
		time.Sleep(time.Minute)
		if len(witness.self.Epochs()) != 0 {
			t.Error("a witness takes an envelope")
		}
	})
}

func TestRemovingANodeTurnsTheEpochOnceForAllThatAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		nobody := "nobody"
		w.leader.Store(&nobody) // all wait as long for a leader, about, and then try at once
		var rest []*node
		for range 5 {
			rest = append(rest, w.join(nil))
		}
		gone := w.join(nil)
		all := append([]*node{a, gone}, rest...)
		w.until("all have the first", func() bool { return same(1, all...) })
		w.remove(gone)
		left := append([]*node{a}, rest...)
		w.until("all that are left have the second", func() bool { return same(2, left...) })
		time.Sleep(10 * time.Minute)
		if !same(2, left...) || len(w.memory.Names(kindEpoch)) != 2 {
			t.Errorf("%d epochs", len(w.memory.Names(kindEpoch)))
		}
		newest := a.self.Current()
		if _, err := gone.self.Epoch(newest); err == nil || newest < 2 {
			t.Errorf("who was removed holds epoch %d", newest)
		}
		if old, err := w.memory.RegistryRecord(kindEnvelope, envelope{newest, gone.id()}.name()); err != nil || old != nil {
			t.Error("who was removed has an envelope of the new epoch")
		}
		if !slices.Equal(gone.self.Epochs(), []uint32{1}) {
			t.Errorf("who was removed holds %v", gone.self.Epochs())
		}
	})
}

// A node is removed while the epoch is turned for another: it must not get it.
func TestARemovalBetweenIsTurnedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		b, c := w.join(nil), w.join(nil)
		w.until("all have the first", func() bool { return same(1, a, b, c) })
		w.memory.Before(func() { w.remove(c) })
		w.remove(b)
		w.until("the epoch turns", func() bool { return len(a.self.Epochs()) > 1 })
		time.Sleep(time.Minute)
		newest, err := w.memory.RegistryRecord(kindEpoch, numberText(a.self.Current()))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := parseEpoch(newest); err != nil || e.Revoked != 2 {
			t.Errorf("the newest epoch: %+v, %v", e, err)
		}
		if len(c.self.Epochs()) != 1 {
			t.Errorf("who was removed between holds %v", c.self.Epochs())
		}
	})
}

// The network says nothing of what became of the decision; or the node dies before
// it has opened its envelope. What the decision says is found in the records.
func TestATurnThatNobodyToldOfIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		b := w.join(nil)
		w.until("both have the first", func() bool { return same(1, a, b) })
		a.stop()
		w.remove(b)
		a.start()
		w.memory.Lose(true)
		if err := a.give(t.Context(), a.duties(a.now.Load())); err == nil {
			t.Fatal("it was told")
		}
		w.memory.Lose(false)
		if len(a.self.Epochs()) != 1 {
			t.Fatal("a key is held before its decision is known")
		}
		a.open() // the process is another one
		a.run()
		w.until("it holds the second", func() bool { return len(a.self.Epochs()) == 2 })
		time.Sleep(time.Minute)
		if n := len(w.memory.Names(kindEpoch)); n != 2 {
			t.Errorf("%d epochs", n)
		}
	})
}

func TestWithoutAMajorityNothingTurnsUntilThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		b, c := w.join(nil), w.join(nil)
		w.until("all have the first", func() bool { return same(1, a, b, c) })
		w.memory.Down(true)
		w.remove(b)
		time.Sleep(time.Minute)
		if len(a.self.Epochs()) != 1 {
			t.Error("it turned")
		}
		if a.log.Count("level=ERROR") != 0 {
			t.Error("the log tells of what passes by itself")
		}
		w.memory.Down(false)
		w.until("it turns", func() bool { return same(2, a, c) })
	})
}

func TestAWrongEnvelopeIsRefusedToldOfOnceAndMadeGood(t *testing.T) {
	for name, wrong := range map[string]func(t *testing.T, a, b *node) []byte{
		"garbage":   func(*testing.T, *node, *node) []byte { return []byte("garbage") },
		"another's": func(t *testing.T, a, b *node) []byte { return must(a.self.SealEpoch(a.self.Sealing(), 1)) },
		"another number's": func(t *testing.T, a, b *node) []byte {
			return must(identity.SealEpochKey(b.self.Sealing(), 2, must(a.self.Epoch(1))))
		},
		"another key": func(t *testing.T, a, b *node) []byte {
			return must(identity.SealEpochKey(b.self.Sealing(), 1, identity.NewEpoch()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a := w.found()
				b := w.make()
				w.memory.Put(kindEnvelope, envelope{1, b.id()}.name(), wrong(t, a, b))
				b.enlist(nil)
				b.run()
				w.until("it has the right one", func() bool { return same(1, a, b) })
				time.Sleep(time.Minute)
				if n := b.log.Count("is refused"); n != 1 {
					t.Errorf("%d lines", n)
				}
				if !a.Ready(b.id()) || b.State() != (State{Held: 1}) {
					t.Errorf("%+v", b.State())
				}
			})
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Records that nobody can read harm nobody.
func TestBrokenRecordsAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		for _, r := range []struct{ kind, name, value string }{
			{kindEpoch, "x", "{}"}, {kindEpoch, "0000000000", `{"version":1}`}, {kindEpoch, "7", `{"version":1}`},
			{kindEpoch, numberText(7), "garbage"}, {kindEpoch, numberText(8), `{"version":2}`}, {kindEpoch, "4294967296", "{}"},
			{kindEnvelope, "x", "x"}, {kindEnvelope, numberText(1), "x"}, {kindEnvelope, numberText(1) + "/", "x"},
		} {
			w.memory.Put(r.kind, r.name, []byte(r.value))
		}
		b := w.join(nil)
		w.until("it has the first", func() bool { return same(1, a, b) && a.Ready(b.id()) })
		time.Sleep(time.Minute)
		if n := b.log.Count("does not parse"); n != 9 {
			t.Errorf("%d lines", n)
		}
	})
}

func TestLostEpochKeysComeBackFromTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		b := w.join(nil)
		w.until("both have the first", func() bool { return same(1, a, b) })
		was := must(a.self.Epoch(1))
		for _, n := range []*node{a, b} { // both, and at the same time
			n.stop()
			if err := n.fs.Remove("keys/epochs"); err != nil {
				t.Fatal(err)
			}
			n.open()
			if n.self.Current() != 0 {
				t.Fatal("it is not lost")
			}
		}
		a.run()
		b.run()
		w.until("both have it again", func() bool { return same(1, a, b) })
		if must(a.self.Epoch(1)) != was {
			t.Error("it is another one")
		}
	})
}

// A network that was begun anew, or recovered where a turn was not known, has no
// record of epochs that nodes hold.
func TestEpochsThatOnlyNodesKnowAreMadeKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		b, gone := w.join(nil), w.join(nil)
		w.until("all have the first", func() bool { return same(1, a, b, gone) })
		w.remove(gone)
		w.until("both have two", func() bool { return same(2, a, b) })
		a.stop()
		b.stop()
		anew := newWorld(t)
		for _, n := range []*node{a, b} {
			n.w = anew
			n.open()
			n.enlist(nil)
		}
		anew.remove(gone)
		// a has lost the second, as though it had never heard of it.
		if err := a.fs.Remove("keys/epochs"); err != nil {
			t.Fatal(err)
		}
		a.open()
		if err := a.self.AddEpochs(map[uint32][32]byte{1: must(b.self.Epoch(1))}); err != nil {
			t.Fatal(err)
		}
		a.begin()
		a.run()
		anew.until("it turns again", func() bool { return len(a.self.Epochs()) == 2 })
		b.run()
		anew.until("both have all", func() bool { return len(a.self.Epochs()) >= 3 && same(len(a.self.Epochs()), a, b) })
		time.Sleep(time.Minute)
		newest := must(anew.memory.RegistryRecord(kindEpoch, numberText(a.self.Current())))
		if e := must(parseEpoch(newest)); e.Revoked != 1 {
			t.Errorf("who was removed may hold the newest epoch: %+v", e)
		}
		if !same(len(anew.memory.Names(kindEpoch)), a, b) {
			t.Errorf("%d records, %d held", len(anew.memory.Names(kindEpoch)), len(a.self.Epochs()))
		}
	})
}

// A witness that founds a network makes no keys: the first node that may does.
func TestOfANetworkOfAWitnessTheFirstMemberMakesTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		witness := w.make()
		witness.enlist(func(m *member.Member) { m.Witness, m.Founder = true, true })
		witness.run()
		time.Sleep(time.Minute)
		if n := len(w.memory.Names(kindEpoch)); n != 0 {
			t.Fatalf("%d epochs", n)
		}
		a, b := w.join(nil), w.join(nil)
		w.until("both have one", func() bool { return same(1, a, b) })
		time.Sleep(time.Minute)
		if n := len(w.memory.Names(kindEpoch)); n != 1 || len(witness.self.Epochs()) != 0 {
			t.Errorf("%d epochs, and the witness holds %v", n, witness.self.Epochs())
		}
	})
}

// Nobody waits for a leader that has no keys to give.
func TestALeaderWithoutKeysKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		witness := w.join(func(m *member.Member) { m.Witness = true })
		took := func() time.Duration {
			began := time.Now()
			b := w.join(nil)
			w.until("it has the first", func() bool { return same(1, a, b) })
			return time.Since(began)
		}
		led := took()
		id := witness.id()
		w.leader.Store(&id)
		witnessed := took()
		other := w.join(nil)
		w.until("another has it", func() bool { return same(1, a, other) })
		time.Sleep(2 * giveSoon) // whoever waited to give to it has seen that it has its envelope
		other.stop()             // it leads, and does nothing
		idle := other.id()
		w.leader.Store(&idle)
		if waited := took(); led > 200*time.Millisecond || witnessed > time.Second || waited < 2*time.Second || waited > 8*time.Second {
			t.Errorf("%v by who leads, %v where a witness does, %v where a leader does nothing", led, witnessed, waited)
		}
	})
}

func TestLargeNetworksAreGivenKeysInBoundedDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		const members = maxTurned + maxGiven + 20
		var all []*node
		for range members {
			n := w.make()
			n.enlist(nil)
			all = append(all, n)
		}
		ready := func() bool {
			return !slices.ContainsFunc(all[1:], func(n *node) bool { return !a.Ready(n.id()) })
		}
		w.until("all are given the first", ready)
		w.remove(all[0])
		w.until("all are given the second", func() bool { return len(a.self.Epochs()) == 2 && ready() })
		if n := len(w.memory.Names(kindEpoch)); n != 2 {
			t.Errorf("%d epochs", n)
		}
	})
}

func TestWhoJoinsAfterManyTurnsIsGivenAllEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		for range maxGiven + 10 {
			n := w.make()
			w.remove(n)
			epochs := len(a.self.Epochs())
			w.until("it turns", func() bool { return len(a.self.Epochs()) == epochs+1 })
		}
		late := w.join(nil)
		w.until("the last has all", func() bool { return same(len(a.self.Epochs()), a, late) })
	})
}

func TestAnEpochCountsOnceItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		fail := false
		b := &node{w: w, fs: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if fail && op.Kind == errorfs.OpFileSync {
				return errorfs.ErrInjected
			}
			return nil
		}))}
		b.open()
		b.enlist(nil)
		w.until("it was given the first", func() bool { return a.Ready(b.id()) })
		fail = true
		b.start()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := b.Follow(ctx); err == nil || len(b.self.Epochs()) != 0 {
			t.Errorf("%v, and it holds %v", err, b.self.Epochs())
		}
		fail = false
		b.run()
		w.until("it has it", func() bool { return same(1, a, b) })
	})
}

func TestANetworkCannotTurnForEver(t *testing.T) {
	all := map[uint32]epoch{}
	for i := range uint32(identity.MaxEpochs) {
		all[i+1] = epoch{}
	}
	if _, err := next(all); err == nil {
		t.Error("more than can be held")
	}
	if _, err := next(map[uint32]epoch{1<<32 - 1: {}}); err == nil {
		t.Error("beyond the numbers")
	}
	seen := map[uint32]bool{}
	for range 100 {
		number, err := next(map[uint32]epoch{7: {}, 3: {}})
		if err != nil || number <= 7 || number > 7+stride {
			t.Fatalf("%d, %v", number, err)
		}
		seen[number] = true
	}
	if len(seen) < 90 {
		t.Errorf("%d numbers of 100", len(seen))
	}
	var _ member.Records = (*catalog.Catalog)(nil)
}
