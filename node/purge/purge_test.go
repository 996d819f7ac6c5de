package purge

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"pelago/node/archive"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard"
	"pelago/shard/held"
	"pelago/shard/pack"
)

// whole is a network of three in which study 1 (packs 10 and 11) is to be deleted and
// study 2 (pack 20) is not.
func whole(t *testing.T, change ...func(*network)) *network {
	n := newNetwork(t, "a", "b", "c")
	for _, c := range change {
		c(n)
	}
	for _, s := range n.nodes {
		s.start()
	}
	n.seal(n.nodes[0], 0x10)
	n.seal(n.nodes[0], 0x11)
	n.seal(n.nodes[1], 0x20)
	n.pass(10 * time.Minute) // the clock begins
	return n
}

const (
	allOfOne = "4 shards, 2 packs, 4 copies, 3 keys"
	allOfTwo = "2 shards, 1 packs, 2 copies, 3 keys"
	nothing  = "0 shards, 0 packs, 0 copies, 0 keys"
)

func (n *network) want(of byte, want, when string) {
	n.t.Helper()
	if got := n.left(of); got != want {
		n.fail("%s: study %d has %s left, want %s", when, of, got, want)
	}
}

// deletion is the whole way of a deletion.
func deletion(n *network) {
	n.want(1, allOfOne, "at first")
	n.delete("1.1")
	n.pass(grace - 10*time.Minute)
	n.want(1, allOfOne, "within the grace")
	n.pass(2 * grace)
	n.want(1, nothing, "after the grace")
	n.want(2, allOfTwo, "what was not deleted")
}

func TestWhatIsDeletedGoesEverywhereAfterTheGrace(t *testing.T) {
	if what := caught(func() { deletion(whole(t)) }); what != "" {
		t.Error(what)
	}
}

// Whichever durable step a node ends before or after, nothing is lost that is not
// deleted, keys go last, and all that is deleted goes.
func TestACrashAtAnyStepIsGoneOnFrom(t *testing.T) {
	steps := 0
	for crash := 0; crash <= steps; crash++ {
		n := whole(t, func(n *network) { n.pace = 10 * time.Minute; n.terms(20 * grace) })
		n.steps, n.crash = 0, crash
		if what := caught(func() { deletion(n) }); what != "" {
			t.Errorf("a crash at step %d: %s", crash, what)
		}
		if crash == 0 {
			steps = n.steps
			if steps < 40 {
				t.Fatalf("%d steps", steps)
			}
		}
		first, _ := n.nodes[0].c.StateHash()
		for _, s := range n.nodes {
			if hash, _ := s.c.StateHash(); hash != first {
				t.Errorf("a crash at step %d: nodes have other states", crash)
			}
		}
	}
}

func TestAMemberThatIsBehindBlocksUntilItIsAwayForTooLong(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		n.nodes[2].down = true
		n.delete("1.1")
		n.pass(2*grace + 30*time.Minute)
		n.want(1, allOfOne, "while a member has not applied the tombstone")
		n.pass(2 * grace)
		n.want(1, "2 shards, 0 packs, 2 copies, 1 keys", "once it does not count any more") // those at the member
		n.nodes[2].down = false
		n.pass(30 * time.Minute)
		n.want(1, nothing, "after its return")
		n.want(2, allOfTwo, "what was not deleted")
	})
	if what != "" {
		t.Error(what)
	}
}

// A node that was away for too long still has what came to it meanwhile, and waits for an
// operator: the key that opens it is not for others to give up there.
func TestWhatCameToANodeThatWasAwayCanBeOpened(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		n.delete("1.1")
		a, late := n.nodes[0], pack.ID{0x1F, 15: 2}
		a.down = true
		a.packs[late] = &archive.Parting{Study: "1.1", Series: "1.1.1", BySeries: true}
		n.pass(7 * grace)
		key := keyOf(late)
		if gone, err := n.nodes[1].c.Forgotten(key); !gone || err != nil {
			t.Fatalf("the others have not given the key up: %v", err)
		}
		a.down = false
		a.start()
		n.pass(time.Hour)
		if _, ok := a.ring[key]; !ok || a.packs[late] == nil {
			t.Error("nothing opens any more what is left")
		}
		delete(a.packs, late)
		a.start()
		n.pass(10 * time.Minute)
		n.want(1, nothing, "once that has gone")
	})
	if what != "" {
		t.Error(what)
	}
}

func TestAMemberThatComesBackInTimeLetsItGo(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		n.nodes[2].down = true
		n.delete("1.1")
		n.pass(2 * grace)
		n.want(1, allOfOne, "while a member has not applied the tombstone")
		n.nodes[2].down = false
		n.pass(30 * time.Minute)
		n.want(1, nothing, "after its return")
	})
	if what != "" {
		t.Error(what)
	}
}

func TestAHoldBlocksUntilItIsLifted(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		holds := Holds{Catalog: n.nodes[0].c, Decide: n.nodes[0]}
		if err := holds.Put(t.Context(), Hold{Study: "1.1", By: "o", Reason: "a court"}); err != nil {
			t.Fatal(err)
		}
		n.delete("1.1")
		n.pass(3 * grace)
		n.want(1, allOfOne, "while a hold keeps it")
		if all, err := holds.List(); err != nil || len(all) != 1 || all[0].Study != "1.1" || all[0].Reason != "a court" {
			t.Errorf("%+v, %v", all, err)
		}
		if err := holds.Drop(t.Context(), Hold{Study: "1.1"}); err != nil {
			t.Fatal(err)
		}
		n.pass(time.Hour)
		n.want(1, nothing, "after it")
	})
	if what != "" {
		t.Error(what)
	}
}

func TestWhatIsRestoredStays(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		n.delete("1.1")
		n.pass(grace - 10*time.Minute)
		n.must(n.nodes[1], &catalog.RestoreFact{Study: "1.1", Tick: 1 << 40})
		n.pass(5 * grace)
		n.want(1, allOfOne, "restored within the grace")
	})
	if what != "" {
		t.Error(what)
	}
}

// A pack in which something is left, as its origin knows, stays with its shards.
func TestAPackOfWhichSomethingIsLeftStays(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		n.nodes[0].packs[pack.ID{0x11, 15: 2}].BySeries = true
		n.delete("1.1")
		n.pass(3 * grace)
		n.want(1, "2 shards, 1 packs, 2 copies, 3 keys", "while something in a pack waits for an operator")
		n.nodes[0].packs[pack.ID{0x11, 15: 2}].BySeries = false
		n.pass(grace)
		n.want(1, nothing, "after")
	})
	if what != "" {
		t.Error(what)
	}
}

// Whose origin was removed is purged by others.
func TestWhatARemovedNodePackedGoesToo(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		n.delete("1.1")
		n.must(n.nodes[1], &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "a", Value: []byte("x")})
		n.nodes[0].down = true
		n.nodes[0].packs, n.nodes[0].ring = nil, map[[16]byte]string{}
		n.pass(3 * grace)
		n.want(1, nothing, "after the grace")
	})
	if what != "" {
		t.Error(what)
	}
}

// timed runs a network whose nodes' wall clocks are set wrong, and holds that nothing goes
// before the grace has really passed, whoever leads.
func timed(n *network) {
	n.delete("1.1")
	began := n.now
	for range 5 {
		n.jump += 1000 * time.Hour
		n.pass(5 * time.Minute)
		n.jump -= 1300 * time.Hour
		n.pass(5 * time.Minute)
	}
	n.nodes[0].down = true // another leads
	n.pass(4 * time.Minute)
	n.nodes[0].down = false
	n.nodes[0].start() // as after a restart
	n.want(1, allOfOne, "clocks were set")
	clock, err := n.nodes[0].c.Clock()
	if err != nil || clock.Seconds > uint64(n.now.Seconds()) {
		n.fail("the network's clock stands at %d, after %v", clock.Seconds, n.now-began)
	}
}

func TestNoClockThatJumpsEndsAGrace(t *testing.T) {
	if what := caught(func() { timed(whole(t)) }); what != "" {
		t.Error(what)
	}
	if what := caught(func() { timed(whole(t, func(n *network) { n.wall = true })) }); what == "" {
		t.Error("a clock that wall clocks move is not noticed")
	}
}

// unreferenced starts a node that holds what the catalogue does not know: a shard whose seal
// is still to be told.
func unreferenced(n *network) {
	name := held.Name{Stripe: shard.Stripe{Pack: [16]byte{0x77}, Generation: 1}}
	n.nodes[1].shards[name] = true
	n.delete("1.1")
	n.pass(3 * grace)
	for _, s := range n.nodes {
		s.start()
		s.turn()
	}
	if !n.nodes[1].shards[name] {
		n.fail("what no seal names was dropped")
	}
	n.want(1, nothing, "what was deleted")
}

func TestWhatIsNotReferencedIsNoReason(t *testing.T) {
	if what := caught(func() { unreferenced(whole(t)) }); what != "" {
		t.Error(what)
	}
	if what := caught(func() { unreferenced(whole(t, func(n *network) { n.bug = bugUnreferenced })) }); what == "" {
		t.Error("a purge of the unreferenced is not noticed")
	}
}

func TestKeysForgottenTooSoonAreNoticed(t *testing.T) {
	what := caught(func() {
		n := whole(t, func(n *network) { n.bug = bugDroppedBefore })
		n.delete("1.1")
		n.pass(grace - 10*time.Minute)
		for n.nodes[2].c.Sealed().Packs > 1 { // until the purge, which c does not carry out
			n.now += time.Minute
			for _, s := range n.nodes {
				s.turnBut(s.name == "c")
			}
		}
		for range 30 {
			n.now += time.Minute
			for _, s := range n.nodes {
				s.turnBut(s.name == "c")
			}
		}
	})
	if !strings.Contains(what, "has a shard under it") {
		t.Errorf("a member that says it has dropped what it has not: %q", what)
	}
}

// turnBut is turn for a node that drops nothing.
func (s *site) turnBut(idle bool) {
	if !idle {
		s.turn()
		return
	}
	s.apply()
	terms, _ := s.c.Terms()
	_ = s.p.tell(context.Background(), terms)
}

// What came back with an older copy of a store goes at the next start.
func TestWhatComesBackGoesAtTheNextStart(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		b := n.nodes[1]
		var name held.Name
		for name = range b.shards {
			if name.Pack[0] == 0x10 {
				break
			}
		}
		deletion(n)
		b.shards[name], b.ring[keyOf(name.Pack)] = true, "a"
		b.start()
		b.turn()
		n.want(1, nothing, "after a start")
	})
	if what != "" {
		t.Error(what)
	}
}

// The clock goes on by what a node has seen pass, and no faster, whoever ticks.
func TestTicksAddUpToNoMoreThanTime(t *testing.T) {
	var c clock
	for _, step := range []struct {
		at   uint64
		now  time.Duration
		want time.Duration
	}{
		{5, time.Hour, 0},             // seen for the first time: nobody knows for how long
		{5, 2 * time.Hour, time.Hour}, //
		{9, 3 * time.Hour, 0},         // another has ticked
		{9, 150 * time.Minute, 0},     // a clock that went back: it begins again
		{9, 155 * time.Minute, 5 * time.Minute},
	} {
		if got := c.look(step.at, step.now); got != step.want {
			t.Errorf("at %d, %v: %v, want %v", step.at, step.now, got, step.want)
		}
	}
}

// In a network that is upgraded node by node no entry is proposed at which a program that is
// still to be upgraded would stop, a witness's among them.
func TestTheClockBeginsWhenAllMembersReadIt(t *testing.T) {
	what := caught(func() {
		n := newNetwork(t, "a", "b", "c", "w")
		witness, err := catalog.DecodeMember(alone.Member("w", "site-w").Value)
		if err != nil {
			t.Fatal(err)
		}
		witness.Witness = true
		value, err := proto.Marshal(witness)
		if err != nil {
			t.Fatal(err)
		}
		n.must(n.nodes[0], &catalog.RegistryFact{Kind: catalog.KindMember, Name: "w", Value: value})
		begun := func() bool {
			clock, err := n.nodes[0].c.Clock()
			if err != nil {
				t.Fatal(err)
			}
			return clock.Seconds > 0
		}
		b, c, w := n.nodes[1], n.nodes[2], n.nodes[3]
		b.reads, c.reads, w.reads = catalog.EntryVersion-1, 0, 0
		for _, upgraded := range []*site{b, w, c} {
			n.pass(2 * time.Hour)
			if begun() {
				t.Fatalf("the clock begins while %s cannot read it", upgraded.name)
			}
			upgraded.down = true
			n.pass(2 * time.Hour)
			if begun() {
				t.Fatalf("the clock begins while %s is off, and was not upgraded", upgraded.name)
			}
			upgraded.down, upgraded.reads = false, catalog.EntryVersion
			upgraded.start()
			n.pass(5 * time.Minute) // it is heard
			upgraded.down = upgraded == b
		}
		// One that was heard to read it is off, and holds nothing up.
		n.pass(time.Hour)
		if !begun() {
			t.Fatal("the clock does not begin after all were upgraded")
		}
		// It goes on whoever is not heard of after a restart: it has begun.
		before, _ := n.nodes[0].c.Clock()
		c.down = true
		n.nodes[0].start()
		n.pass(time.Hour)
		if after, _ := n.nodes[0].c.Clock(); after.Seconds <= before.Seconds {
			t.Error("the clock stands after a restart")
		}
	})
	if what != "" {
		t.Error(what)
	}
}

// A member that never came back is waited for until it is removed.
func TestTheClockBeginsWithoutRemovedMembers(t *testing.T) {
	n := newNetwork(t, "a", "b")
	n.nodes[1].down = true
	n.pass(5 * time.Hour)
	if clock, err := n.nodes[0].c.Clock(); err != nil || clock.Seconds > 0 {
		t.Fatalf("%+v, %v", clock, err)
	}
	n.must(n.nodes[0], &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: "b", Value: []byte("x")})
	n.pass(time.Hour)
	if clock, err := n.nodes[0].c.Clock(); err != nil || clock.Seconds == 0 {
		t.Errorf("%+v, %v", clock, err)
	}
}

// What was dropped in a generation of the network says nothing of the entries of the next.
func TestDroppedIsOfThisGeneration(t *testing.T) {
	what := caught(func() {
		n := whole(t)
		deletion(n)
		b := n.nodes[1]
		if got := b.p.Dropped(); got == 0 {
			t.Fatal("nothing was dropped")
		}
		n.recovered++
		if got := b.p.Dropped(); got != 0 {
			t.Errorf("before the next generation is looked at all up to %d passes for dropped", got)
		}
		if err := b.p.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.p.Dropped(); got != b.c.Applied() {
			t.Errorf("after it was looked at: %d of %d", got, b.c.Applied())
		}
	})
	if what != "" {
		t.Error(what)
	}
}

// With real tasks and virtual time: a network of one whose own terms count.
func TestTheTasksOfANetworkOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, "a")
		s := n.nodes[0]
		n.seal(s, 0x10)
		began := time.Now()
		s.p.o.Terms, s.p.o.Alone = catalog.Terms{Grace: 2 * grace, Away: 6 * grace}, func() bool { return true }
		s.p.o.Monotonic = func() time.Duration { return time.Since(began) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 3)
		left := func() string { // tasks go on
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.left(1)
		}
		for _, task := range s.p.Tasks() {
			go func() { ended <- task.Run(ctx, nil) }()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if terms, err := s.c.Terms(); err != nil || terms.Grace != 2*grace {
			t.Errorf("%+v, %v", terms, err)
		}
		n.mu.Lock()
		n.delete("1.1")
		n.mu.Unlock()
		time.Sleep(2*grace - 2*time.Minute)
		synctest.Wait()
		if got := left(); got != "0 shards, 1 packs, 0 copies, 1 keys" {
			t.Errorf("within the grace: %s", got)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if got := left(); got != nothing {
			t.Errorf("after the grace: %s", got)
		}
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}
