package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard"
	"pelago/shard/pack"
)

// byNetwork is the network's time as the catalogue has it.
type byNetwork struct{ c *catalog.Catalog }

func (g *byNetwork) Over(stone *catalog.Tombstone) (bool, error) { return g.c.Over(stone) }

// sealedBench is an archive whose first two images are a pack of one series, of which the
// network knows a stripe; the third is in another pack, which it does not know.
func sealedBench(t *testing.T, fs vfs.FS) (b *bench, images []image, id pack.ID) {
	t.Helper()
	g := &byNetwork{}
	o := testOptions(fs, newRing())
	o.Graces = g
	b = openPurged(t, o)
	g.c = b.catalog
	one, two, single := serial(0), serial(1), serial(0)
	two.study, two.series = one.study, one.series
	single.series, single.sop = one.series+".9", one.sop+".9"
	images = []image{one, two, single}
	for _, m := range images {
		b.store(m)
	}
	b.pack()
	r, err := b.record(firstOf(t, b, one))
	if err != nil {
		t.Fatal(err)
	}
	at, err := b.location(r.Number)
	if err != nil {
		t.Fatal(err)
	}
	id = pack.ID(at.Pack)
	p, err := b.Archive.pack(id)
	if err != nil {
		t.Fatal(err)
	}
	key := &catalog.KeyFact{Origin: "node", Study: one.study, ID: [16]byte(p.Key), Epoch: 1}
	seal := &catalog.SealFact{
		By: "node", Study: one.study, Series: one.series, Stripe: shard.Stripe{Pack: id, Generation: 1}, Origin: "node", Key: key.ID,
		Size: 40_000, Instances: 2, Code: shard.Code{K: 1, M: 2}, Root: [32]byte{1}, Receipts: 7, Virtual: 0,
	}
	b.say(key, seal)
	return b, images, id
}

func firstOf(t *testing.T, b *bench, m image) (number uint64) {
	t.Helper()
	for ref, err := range b.list(t.Context(), keySeries(m.study, m.series, m.sop)) {
		if err != nil {
			t.Fatal(err)
		}
		return ref.Number
	}
	t.Fatal("not listed")
	return 0
}

// say applies facts and commands of this node.
func (b *bench) say(changes ...any) {
	b.t.Helper()
	results, err := b.o.Decide.(network).Do(changes...)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, err := range results {
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// pass lets the network's time go on, in which all members apply what there is.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	for d > 0 {
		clock, err := b.catalog.Clock()
		if err != nil {
			b.t.Fatal(err)
		}
		step := min(d, catalog.MaxTick)
		b.say(&catalog.TickFact{From: clock.Seconds, To: clock.Seconds + uint64(step.Seconds())})
		d -= step
	}
	n := b.o.Decide.(network)
	for _, node := range []string{"node", "decider"} {
		n.Node, n.Signer = node, alone.SignerOf(node)
		at := b.catalog.Applied()
		if results, err := n.Decide(b.t.Context(), nil, &catalog.SeenFact{Applied: at, Dropped: at}); err != nil || results[0] != nil {
			b.t.Fatal(results, err)
		}
	}
	n.Node, n.Signer = "", nil
}

func (b *bench) purge1(by *catalog.PurgeFact) {
	b.t.Helper()
	n := b.o.Decide.(network)
	n.Node, n.Signer = "node", alone.SignerOf("node")
	results, err := n.Decide(b.t.Context(), nil, by)
	n.Node, n.Signer = "", nil
	if err != nil || results[0] != nil {
		b.t.Fatal(results, err)
	}
}

// A pack that others have shards of goes whole, by a committed purge, and not a moment
// before; what nobody else has goes once its grace is over.
func TestASealedPackGoesWhole(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	b, images, id := sealedBench(t, fs)
	b.pass(time.Hour)
	over := func(stone *catalog.Tombstone) (bool, error) { return b.catalog.Over(stone) }
	here := func(want bool, when string) {
		t.Helper()
		if has, err := b.HasPack(id); has != want || err != nil {
			t.Fatalf("%s: the pack is here %t, %v", when, has, err)
		}
	}
	parts := func(want string, when string) *Parting {
		t.Helper()
		p, err := b.Parting(id, over)
		if got := fmt.Sprintf("%+v", p); err != nil || p != nil && fmt.Sprint(p.ByStudy, p.BySeries, p.Instances) != want || (p == nil) != (want == "") {
			t.Fatalf("%s: %s, %v; want %q", when, got, err, want)
		}
		return p
	}
	far := time.Now().Add(10 * 365 * 24 * time.Hour) // whatever the wall clock says
	parts("", "nothing is deleted")
	for _, m := range []image{images[0], images[2]} {
		if err := b.Delete(ctx, m.study, m.series, m.sop, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.purge(ctx, far); err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(ctx, images[2].study, images[2].series, images[2].sop, "test"); err != nil {
		t.Fatalf("within the grace: %v", err)
	}
	b.same(images[2])
	if err := b.Delete(ctx, images[2].study, images[2].series, images[2].sop, "test"); err != nil {
		t.Fatal(err)
	}
	b.pass(30 * 24 * time.Hour)
	if err := b.purge(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if packs, err := b.Packs(ctx, images[2].study); err != nil || len(packs) != 1 {
		t.Fatalf("what nobody else has: %+v, %v", packs, err)
	}
	if err := b.Restore(ctx, images[0].study, images[0].series, images[0].sop, "test"); !fault.Is(err, fault.NotFound) {
		t.Errorf("restored after the grace: %v", err)
	}
	parts("", "one of two is deleted")
	here(true, "one of two is deleted")
	b.same(images[1])
	if err := b.Delete(ctx, images[1].study, images[1].series, images[1].sop, "test"); err != nil {
		t.Fatal(err)
	}
	parts("", "the other is within its grace")
	b.pass(30 * 24 * time.Hour)
	if err := b.purge(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	here(true, "before the purge is committed")
	if err := b.DropPurged(ctx, id); !fault.Is(err, fault.Invalid) {
		t.Errorf("dropped without a purge: %v", err)
	}
	p := parts(fmt.Sprint(false, false, []string{images[0].sop, images[1].sop}), "both are deleted")
	b.purge1(&catalog.PurgeFact{Pack: id, Instances: p.Instances})
	for range 2 {
		if err := b.DropPurged(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	here(false, "after it")
	if _, ok := b.o.Keys.(*ring).of[images[0].study]; !ok {
		t.Error("the key went with the pack")
	}
	if err := b.purge(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.o.Keys.(*ring).of[images[0].study]; ok {
		t.Error("this node's own key stays though nothing is under it")
	}
	b.sound()
	b.close()
}

// A quarantined version in a pack waits for an operator, whatever covers the series.
func TestAPackWithAConflictWaitsForAnOperator(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	m := serial(0)
	b.store(m)
	other := m
	other.seed += 1000
	if s := b.store(other); s.Outcome != Quarantined {
		t.Fatalf("%+v", s)
	}
	b.pack()
	if err := b.Delete(ctx, m.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	at, err := b.location(firstOf(t, b, m))
	if err != nil {
		t.Fatal(err)
	}
	reviews, err := b.Reviews(0, 10)
	if err != nil || len(reviews) != 1 {
		t.Fatal(reviews, err)
	}
	quarantined, err := b.location(reviews[0].Number)
	if err != nil || !bytes.Equal(quarantined.Pack, at.Pack) {
		t.Fatalf("the two are in two packs: %v", err)
	}
	always := func(*catalog.Tombstone) (bool, error) { return true, nil }
	if p, err := b.Parting(pack.ID(at.Pack), always); p != nil || err != nil {
		t.Errorf("%+v, %v", p, err)
	}
}

// What an operator discarded has its grace by the wall clock: a pack that holds some is
// not given up while that clock is in doubt.
func TestAClockThatJumpedEndsNoGraceInAPack(t *testing.T) {
	b, images, id := sealedBench(t, vfs.NewMem())
	b.pass(time.Hour)
	now := time.Now()
	if err := b.Delete(t.Context(), images[0].study, images[0].series, images[0].sop, "test"); err != nil {
		t.Fatal(err)
	}
	r, err := b.record(firstOf(t, b, images[1]))
	if err != nil {
		t.Fatal(err)
	}
	r.State, r.Decided = archivepb.State_DISCARDED, now.Add(-b.o.Grace-time.Hour).UnixMicro()
	if err := b.Archive.store.Set(keyNumber(rowInstance, r.Number), marshal(r.Instance), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	b.pass(30 * 24 * time.Hour)
	for looked, want := range map[time.Duration]bool{time.Hour: true, clockStride + time.Hour: false} {
		value := binary.BigEndian.AppendUint64(nil, uint64(now.Add(-looked).UnixMicro()))
		if err := b.Archive.store.Set([]byte{rowClock}, value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		p, err := b.Parting(id, func(stone *catalog.Tombstone) (bool, error) { return b.catalog.Over(stone) })
		if (p != nil) != want || err != nil {
			t.Errorf("looked at %s before: %+v, %v", looked, p, err)
		}
	}
}
