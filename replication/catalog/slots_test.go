package catalog_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
	"pelago/shard"
)

// verifySlots compares the sums by slots with what the seals add up to, one by one.
func verifySlots(t tester, c *catalog.Catalog) {
	t.Helper()
	if err := c.CountSlots(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, want := map[catalog.Slot]int64{}, map[catalog.Slot]int64{}
	if !c.EachSlot(func(at catalog.Slot, bytes int64) { got[at] += bytes }) {
		t.Fatal("slots that were counted are not known")
	}
	v := c.View()
	defer v.Close()
	for group := range catalog.SlotGroups / 64 {
		for seals, err := range v.Group(group, catalog.SlotGroups/64, [16]byte{}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range seals {
				g, err := shard.NewGeometry(s.Code, s.Size)
				if err != nil {
					t.Fatal(err)
				}
				for i := range s.Code.N() {
					at := catalog.Slot{Group: uint16(shard.Group(s.Stripe.Pack, catalog.SlotGroups)), Shard: uint8(i)}
					if s.Virtual == i {
						at.Cut = s.Origin
					}
					want[at] += g.ShardBytes(i)
				}
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("slots %v, the seals add up to %v", got, want)
	}
}

// Whatever is applied, before, between and after the pages of the count: the sums are
// those of all stripes that stand.
func TestSlotsAreWhatTheSealsAddUpTo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fs := vfs.NewMem()
		c, err := catalogtest.Open(catalog.Options{FS: fs, Dir: "catalog", CacheBytes: 1 << 20})
		if err != nil {
			rt.Fatal(err)
		}
		defer c.Close()
		for n := byte(1); n <= 4; n++ {
			apply(rt, c, keyOf([]string{"a", "b"}[n%2], fmt.Sprintf("1.%d", n), n, 1))
		}
		for range rapid.IntRange(1, 30).Draw(rt, "before") {
			apply(rt, c, randomSeal(rt))
		}
		if c.EachSlot(func(catalog.Slot, int64) { rt.Error("a slot is told of") }) {
			rt.Error("what nobody counted is known")
		}
		for range rapid.IntRange(1, 30).Draw(rt, "beside") {
			apply(rt, c, randomSeal(rt), randomSeal(rt))
			if _, err := catalog.CountSlotsPage(c, rapid.IntRange(1, 2).Draw(rt, "page")); err != nil {
				rt.Fatal(err)
			}
		}
		verifySlots(rt, c)
		for range rapid.IntRange(0, 10).Draw(rt, "after") {
			apply(rt, c, randomSeal(rt))
		}
		verifySlots(rt, c)
	})
}
